"""A teacher asked once: V fixed views of every image, each with the teacher's lesson, in files.

A flipped image's gradient is not the flipped gradient, so a lesson belongs to one view: crop, flip and noise included.
Later epochs, and later students, then pay nothing for the teacher.

The views depend on the images and their number alone, not on `--seed`: runs with several seeds share them (but for
`--train-images`, where the seed chooses the images). So the cache covers training split and hold-out, in the order of
the images' names, whichever of them a seed holds out.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from kdcompress.data import Data, Split
from kdcompress.devices import LAYOUT
from kdcompress.errors import UsageError
from kdcompress.maths.randomness import generator
from kdcompress.models.teachers import LoadedModel
from kdcompress.progress import Listener
from kdcompress.seats import own_part
from kdcompress.settings import CacheSettings, TeachingSettings
from kdcompress.training.backward import Batch
from kdcompress.training.batches import Batches, Order, batch_size, random_views
from kdcompress.training.ingredients import training_split
from kdcompress.training.lessons import Kind, lesson, noisy
from kdcompress.training.mapped_file import Arrays, Shape, file_size, read_mapped, sweep, write_mapped

FORMAT = 1
"""Raised whenever the same key would stand for other contents."""
CHUNK = 250
SAMPLE = 1_000
"""Images whose pixels stand for a split that is not in memory."""
CHECKED = 8
"""Images that a cache found on the disk is tried on: the code of a teacher's factory may have changed."""
ABANDONED = 86_400.0
"""Seconds after which a half-written view belongs to a run that was killed."""

Shapes = dict[str, tuple[str, Shape]]
View = dict[str, Tensor]


def refuse_inside(cache: CacheSettings, out: Path) -> None:
    """A run's folder holds the run alone, so that it can be replaced whole.

    Raises:
        UsageError: if the cache would lie in it.
    """
    if cache.cache_dir is not None and out.resolve() in (cache.cache_dir.resolve(), *cache.cache_dir.resolve().parents):
        raise UsageError(f"--cache-dir {cache.cache_dir} must lie outside --out {out}; name another folder")


def cached_batches(
    settings: TeachingSettings, teacher: LoadedModel, data: Data, kind: Kind, device: torch.device, listener: Listener
) -> Batches:
    """Batches with lessons behind the labels: epoch e has view (e - 1) mod V of every image, in a new order.

    Inputs are kept in float16, and it is of those that the teacher is asked; logits and gradients in float32.

    Raises:
        UsageError: if the disk cannot hold the views, before the teacher is asked; if they cannot be read or written.
    """
    images, everything = training_split(data), _by_name(data)
    if settings.data.skip_corrupt and not isinstance(images.pixels, Tensor):
        raise UsageError("--skip-corrupt needs images that fit into memory where --cache-teacher is asked for")
    try:
        views = _views(settings, teacher, data, everything, kind, device, listener)
    except OSError as error:
        told = error.strerror or error
        raise UsageError(
            f"--cache-dir {settings.cache.cache_dir} cannot be used: {told}; name another folder"
        ) from error
    row = {name: at for at, name in enumerate(everything.ids)}
    rows = torch.tensor([row[name] for name in images.ids])
    B = batch_size(data, settings.run)
    order = Order(images, B, generator(settings.run.seed, "order"))

    def of(epoch: int, skip: int) -> Iterator[Batch]:
        view = views[(epoch - 1) % len(views)]
        left = order.next_epoch(skip)
        for whole in left[: len(left) // B * B].view(-1, B):
            at = own_part(whole)
            kept = {name: tensor[rows[at]].to(device) for name, tensor in view.items()}
            x = _as_trained(kept.pop("inputs"))
            yield x, images.labels[at].to(device), *kept.values()

    return Batches(of, {"order": order})


def _views(
    settings: TeachingSettings,
    teacher: LoadedModel,
    data: Data,
    images: Split,
    kind: Kind,
    device: torch.device,
    listener: Listener,
) -> list[View]:
    """Those that are found and still true, and the others made."""
    assert settings.cache.cache_dir is not None  # CacheSettings sees to it
    folder = settings.cache.cache_dir / _key(settings, teacher, data, images, kind)
    shapes = _shapes(images, data, kind)
    paths = [
        folder / f"view-{number:03d}.safetensors" for number in range(min(settings.cache.views, settings.run.epochs))
    ]
    views = [read_mapped(path, shapes) for path in paths]
    if not all(_agrees(teacher.model, view, device) for view in views if view is not None):
        listener.note(f"teacher cache: what lies in {folder} is not of this teacher's function: made again")
        for path in folder.glob("view-*.safetensors"):  # also those that this run does not need
            path.unlink()
        views = [None] * len(paths)
    missing = [number for number, view in enumerate(views) if view is None]
    sweep(folder, ABANDONED)
    _tell(folder, len(missing) * file_size(shapes), len(paths), len(missing), len(images), listener)
    for done, number in enumerate(missing):
        draws = generator(0, f"view {number}")

        def fill(arrays: Arrays, draws: Generator = draws, before: int = done * len(images)) -> None:
            for start in range(0, len(images), CHUNK):
                listener.count("teacher cache", before + start, len(missing) * len(images))
                at = slice(start, min(start + CHUNK, len(images)))
                made = _made(
                    images.subset(range(at.start, at.stop)), settings, teacher.model, data, kind, device, draws
                )
                for name, part in zip(["inputs", *_said(kind)], made, strict=True):
                    torch.from_numpy(arrays[name][at]).copy_(part)

        folder.mkdir(parents=True, exist_ok=True)
        write_mapped(paths[number], shapes, fill)
        views[number] = read_mapped(paths[number], shapes)
    found = [view for view in views if view is not None]
    assert len(found) == len(paths)
    return found


def _made(
    images: Split,
    settings: TeachingSettings,
    teacher: nn.Module,
    data: Data,
    kind: Kind,
    device: torch.device,
    draws: Generator,
) -> tuple[Tensor, ...]:
    """One view of a few images: inputs, and the lesson about them."""
    pixels, y = next(images.batches(len(images), device=device))
    seen = random_views(pixels, data, settings.run, draws)
    x = noisy(seen, settings.loss, settings.threat.threat, draws, settings.run.noise_sigma).half()
    return x, *lesson(teacher, _as_trained(x), y, kind, draws, len(data.classes))


def _as_trained(x: Tensor) -> Tensor:
    """Inputs from a cache, as networks see them."""
    return x.float().contiguous(memory_format=LAYOUT)


def _by_name(data: Data) -> Split:
    """Training split and hold-out, in the order of their names."""
    images, holdout = training_split(data), data.holdout
    assert holdout is not None and holdout.pixels is images.pixels  # two parts of one split
    ids = images.ids + holdout.ids
    both = Split(torch.cat([images.labels, holdout.labels]), ids, images.pixels, torch.cat([images.rows, holdout.rows]))
    return both.subset(sorted(range(len(ids)), key=ids.__getitem__))


def _key(settings: TeachingSettings, teacher: LoadedModel, data: Data, images: Split, kind: Kind) -> str:
    """Of all that decides what a view holds: teacher, images, preprocessing."""
    seen = hashlib.sha256(json.dumps([images.ids, images.labels.tolist()]).encode())
    sample = images if isinstance(images.pixels, Tensor) else images.shuffled(SAMPLE, seed=0)
    for x, _ in sample.batches(CHUNK):
        seen.update((x * 255).round().to(torch.uint8).numpy().tobytes())
    noise: Any = [settings.threat.norm, settings.threat.eps] if settings.loss.input_noise == "uniform" else None
    if settings.run.noise_sigma > 0:
        noise = ["N", settings.run.noise_sigma]
    what = {
        "format": FORMAT,
        "teacher": [teacher.sha256, teacher.record.model_dump(mode="json")],
        "images": seen.hexdigest(),
        "augment": [settings.run.augment, data.flips, data.crop_padding],
        "noise": noise,
        "kind": kind,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _said(kind: Kind) -> tuple[str, ...]:
    """Names of the parts of a lesson."""
    return {"logits": ("logits",), "ce": ("logits", "gradient"), "jacobian": ("logits", "gradient", "directions")}[kind]


def _shapes(images: Split, data: Data, kind: Kind) -> Shapes:
    N, K, size = len(images), len(data.classes), data.input_size
    lessons: Shapes = {name: ("F32", (N, *size) if name == "gradient" else (N, K)) for name in _said(kind)}
    return lessons | {"inputs": ("F16", (N, *size))}


def _agrees(teacher: nn.Module, view: View, device: torch.device) -> bool:
    """Whether the teacher still says what it said. Loosely: another device rounds otherwise."""
    kept = view["logits"][:CHECKED]
    with torch.no_grad():
        found = teacher(_as_trained(view["inputs"][:CHECKED].to(device))).float().cpu()
    return torch.allclose(found, kept, rtol=1e-2, atol=1e-2 * float(kept.abs().max()))


def _tell(folder: Path, needed: int, views: int, missing: int, images: int, listener: Listener) -> None:
    if missing == 0:
        listener.note(f"teacher cache: {views} views of {images} images found in {folder}")
        return
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    listener.note(
        f"teacher cache: {missing} of {views} views of {images} images are made, {_megabytes(needed)} in {folder} "
        f"({_megabytes(free)} free)"
    )
    if needed > free:
        raise UsageError(
            f"--cache-views {views} needs {_megabytes(needed)} in {there}, which has {_megabytes(free)} free; "
            "ask for fewer, or name another --cache-dir"
        )


def _megabytes(size: int) -> str:
    return f"{math.ceil(size / 1e6):,} MB"
