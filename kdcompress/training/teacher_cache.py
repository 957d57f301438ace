"""A teacher asked once: V fixed views of every image, each with the teacher's lesson, in files.

A flipped image's gradient is not the flipped gradient, so a lesson belongs to one view: crop, flip and noise included.
Later epochs, and later students, then pay nothing for the teacher.

The views depend on the images and their number alone, not on `--seed`: runs with several seeds share them. So the cache
covers training split and hold-out, in the order of the images' names, whichever of them a seed holds out.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcompress.data import Data, Split, epoch_order
from kdcompress.devices import LAYOUT
from kdcompress.errors import UsageError
from kdcompress.maths.randomness import generator
from kdcompress.models.teachers import LoadedModel
from kdcompress.progress import Listener
from kdcompress.settings import DistillSettings
from kdcompress.training.backward import Batch
from kdcompress.training.batches import Batches, batch_size, crop_and_flip
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


def cached_batches(
    settings: DistillSettings, teacher: LoadedModel, data: Data, kind: Kind, device: torch.device, listener: Listener
) -> Batches:
    """Batches with lessons behind the labels: epoch e has view (e - 1) mod V of every image, in a new order.

    Inputs are kept in float16, and it is of those that the teacher is asked; logits and gradients in float32.

    Raises:
        UsageError: if the disk cannot hold the views, before the teacher is asked; or if they cannot be written.
    """
    run, threat = settings.run, settings.threat.threat
    images, everything = training_split(data), _by_name(data)
    assert settings.cache.cache_dir is not None  # DistillSettings sees to it
    folder = settings.cache.cache_dir / _key(settings, teacher, data, everything, kind)
    shapes = _shapes(everything, data, kind)
    wanted = min(settings.cache.cache_views, run.epochs)
    paths = [folder / f"view-{number:03d}.safetensors" for number in range(wanted)]
    views = [read_mapped(path, shapes) for path in paths]
    if views[0] is not None and not _agrees(teacher.model, views[0], device):
        listener.note(f"teacher cache: the one in {folder} is of another function than this teacher: made again")
        views = [None] * wanted
    missing = [number for number, view in enumerate(views) if view is None]
    sweep(folder, ABANDONED)
    _tell(folder, len(missing) * file_size(shapes), wanted, len(missing), len(everything), listener)
    for done, number in enumerate(missing):

        def fill(arrays: Arrays, number: int = number, done: int = done) -> None:
            draws = generator(0, f"view {number}")
            for start in range(0, len(everything), CHUNK):
                listener.count("teacher cache", done * len(everything) + start, len(missing) * len(everything))
                at = range(start, min(start + CHUNK, len(everything)))
                pixels, y = next(everything.subset(at).batches(CHUNK, device=device))
                x = noisy(crop_and_flip(pixels, data, run, draws), settings.loss, threat, draws).half()
                said = lesson(teacher.model, _as_trained(x), y, kind, draws, len(data.classes))
                for name, part in zip(shapes, (x, *said), strict=True):
                    arrays[name][at.start : at.stop] = part.cpu().numpy()

        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_mapped(paths[number], shapes, fill)
        except OSError as error:
            told = error.strerror or error
            raise UsageError(f"--cache-dir {settings.cache.cache_dir} cannot be written: {told}") from error
        views[number] = read_mapped(paths[number], shapes)
    found = [view for view in views if view is not None]
    assert len(found) == wanted
    row = {name: at for at, name in enumerate(everything.ids)}
    rows = torch.tensor([row[name] for name in images.ids])
    order = generator(run.seed, "order")

    def batches(epoch: int) -> Iterator[Batch]:
        view = found[(epoch - 1) % wanted]
        shuffled = epoch_order(len(images), order)
        B = batch_size(data, run)
        for at in shuffled[: len(images) // B * B].view(-1, B):
            kept = {name: tensor[rows[at]].to(device) for name, tensor in view.items()}
            x = _as_trained(kept.pop("inputs"))
            yield x, images.labels[at].to(device), *kept.values()

    return batches


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


def _key(settings: DistillSettings, teacher: LoadedModel, data: Data, images: Split, kind: Kind) -> str:
    """Of all that decides what a view holds: teacher, images, preprocessing."""
    seen = hashlib.sha256(json.dumps([images.ids, images.labels.tolist()]).encode())
    sample = images if isinstance(images.pixels, Tensor) else images.shuffled(SAMPLE, seed=0)
    for x, _ in sample.batches(CHUNK):
        seen.update((x * 255).round().to(torch.uint8).numpy().tobytes())
    noise: Any = [settings.threat.norm, settings.threat.eps] if settings.loss.input_noise == "uniform" else None
    what = {
        "format": FORMAT,
        "teacher": [teacher.sha256, teacher.record.model_dump(mode="json")],
        "images": seen.hexdigest(),
        "augment": [settings.run.augment, data.flips, data.crop_padding],
        "noise": noise,
        "kind": kind,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _shapes(images: Split, data: Data, kind: Kind) -> Shapes:
    """In the order of a batch: inputs, then the lesson."""
    N, K, size = len(images), len(data.classes), data.input_size
    shapes: Shapes = {"inputs": ("F16", (N, *size)), "logits": ("F32", (N, K))}
    if kind != "logits":
        shapes["gradient"] = ("F32", (N, *size))
    if kind == "jacobian":
        shapes["directions"] = ("F32", (N, K))
    return shapes


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
