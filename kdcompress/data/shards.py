"""WebDataset shards: plain tar files of samples, `KEY.jpg` beside `KEY.cls`, read where they lie.

They are gone through once for where every image begins; after that any image is one read of its shard. So a run knows
all names and labels before it begins, holds out the same images as from a folder, and is resumed to the batch. What an
image's name or a header says is never opened or written.
"""

import io
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from PIL import Image

from kdcompress.data.items import IMAGE_SUFFIXES, Items, open_image
from kdcompress.data.tree import TEST_FOLDERS
from kdcompress.errors import DataError

CLASS_NAMES = "classes.txt"
"""In the folder of the shards, where there is one: a class a line, in the order of the labels."""
_SPLIT = re.compile(r"(?:^|[-_.])(train|test|val|validation)(?:[-_.]|\d)")
_LABEL = ".cls"
_LABEL_BYTES = 32  # a number: what is longer is none, and is not read


@dataclass
class _Found:
    """What the shards of one split hold, sample by sample."""

    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)  # shard, offset, bytes


def shards_of(folder: Path) -> dict[str, list[Path]]:
    """The shards of each split, `train` and the test split's own name, in the order of their names.

    >>> shards_of(Path("nowhere"))
    {}
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.tar")):
        if (said := _SPLIT.search(path.name)) is not None:
            found.setdefault(said[1], []).append(path)
    return found


def refuse_packed(folder: Path) -> None:
    """Compressed shards are no folder tree, and cannot be read from the middle.

    Raises:
        DataError: naming the first.
    """
    packed = next(iter(sorted(folder.glob("*train*.tar.*"))), None)
    if packed is not None and not (folder / "train").is_dir():
        raise DataError(f"--data {folder}: expected shards that are not compressed, found {packed.name}; unpack it")


def shard_splits(
    folder: Path, on_progress: Callable[[str, int, int], None] | None = None
) -> tuple[dict[str, Items], tuple[str, ...]]:
    """The splits `train` and `test` of the shards in a folder, where they are there, and notes on what was left out.

    A shard's name says its split (`x-train-0000.tar`); `val` or `validation` is the test split where there is no
    `test`.

    Args:
        on_progress: told (what, shards gone through, shards).

    Raises:
        DataError: if a shard is compressed, damaged or cut short; if a sample has no image, no label or two of them.
    """
    found = shards_of(folder)
    tests = [name for name in TEST_FOLDERS if name in found]
    wanted = {"train": found.get("train", []), "test": found[tests[0]] if tests else []}
    total, done = sum(map(len, wanted.values())), 0
    if total == 0:
        raise DataError(
            f"--data {folder}: expected shards such as train-0000.tar and test-0000.tar, found "
            f"{next((path.name for path in sorted(folder.glob('*'))), 'nothing')}"
        )
    classes = _class_names(folder)
    splits: dict[str, Items] = {}
    for split, shards in wanted.items():
        if not shards:
            continue
        samples = _Found()
        for number, shard in enumerate(shards):
            _go_through(shard, number, samples)
            done += 1
            if on_progress is not None:
                on_progress("find images in shards", done, total)
        splits[split] = _items(shards, samples, classes)
    notes = tuple(f"{tests[0]} is the test split; {ignored} is ignored" for ignored in tests[1:])
    if tests and tests[0] != "test" and not notes:
        notes = (f"there is no test split; {tests[0]} stands in for it",)
    return splits, (*notes, *(line for shards in wanted.values() for line in _gaps(shards)))


def _gaps(shards: list[Path]) -> list[str]:
    """What the numbers of the shards leave out between the first and the last."""
    numbers = [int(found[0]) for shard in shards if (found := re.search(r"\d+(?=\.tar$)", shard.name))]
    if len(numbers) < len(shards) or len(set(numbers)) < len(numbers):  # not numbered so
        return []
    lost = sorted(set(range(min(numbers), max(numbers) + 1)) - set(numbers)) if numbers else []
    told = ", ".join(map(str, lost[:3])) + (", ..." if len(lost) > 3 else "")
    return [f"shards numbered {told} are not there between {shards[0].name} and {shards[-1].name}"] if lost else []


def _items(shards: list[Path], samples: _Found, classes: tuple[str, ...]) -> Items:
    places, most = samples.places, max(samples.labels, default=0)
    if classes and most >= len(classes):
        raise DataError(
            f"--data {shards[0].parent}: {CLASS_NAMES} names {len(classes)} classes, and "
            f"{samples.ids[samples.labels.index(most)]} is of class {most}, counted from 0"
        )
    if not classes and 2 * len(set(samples.labels)) < most:
        raise DataError(
            f"--data {shards[0].parent}: only {len(set(samples.labels))} classes have images, and "
            f"{samples.ids[samples.labels.index(most)]} is of class {most}; name all classes in {CLASS_NAMES} if it is"
        )

    def opened(position: int) -> Image.Image:
        shard, offset, size = places[position]
        with shards[shard].open("rb") as file:
            file.seek(offset)
            return open_image(io.BytesIO(file.read(size)))

    return Items(
        classes,
        tuple(samples.ids),
        tuple(samples.labels),
        opened,
        f"{shards[0].parent}/",
        tuple(shard for shard, _, _ in places),
    )


def _go_through(shard: Path, number: int, samples: _Found) -> None:
    """Every sample of a shard: members that follow each other under one name, up to its first dot."""
    try:
        with shard.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            end = shard.stat().st_size
            seen: set[str] = set()
            key, image, label = "", None, None
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, dot, rest = name.partition(".")
                suffix, here = f".{rest.lower()}", f"{folder}/{stem}" if folder else stem
                if not member.isfile() or not stem or not dot:  # macOS adds files whose names begin with a dot
                    continue
                if here != key:
                    _add(shard, number, key, image, label, samples)
                    if here in seen:
                        raise DataError(f"--data {shard}: two samples are called {here}; write the shard again")
                    seen.add(here)
                    key, image, label = here, None, None
                if member.offset_data + member.size > end:
                    raise EOFError(f"it ends inside {member.name}")
                if suffix in IMAGE_SUFFIXES:
                    _refuse_second(shard, here, "images", image)
                    image = (member.offset_data, member.size)
                elif suffix == _LABEL:
                    _refuse_second(shard, here, "labels", label)
                    label = _label(shard, here, archive, member)
            _add(shard, number, key, image, label, samples)
            raw.seek(archive.offset)
            if raw.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # a bad header too looks like the end
                raise EOFError(f"no end mark after {len(seen)} samples")
    except (tarfile.TarError, EOFError, OSError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"--data {shard}: expected a whole tar that is not compressed, found one that is truncated, damaged or of "
            f"another kind ({detail}); fetch or unpack it again"
        ) from error


def _refuse_second(shard: Path, key: str, what: str, found: object) -> None:
    if found is not None:
        raise DataError(f"--data {shard}: expected one image and one label in the sample {key}, found two {what}")


def _add(shard: Path, number: int, key: str, image: tuple[int, int] | None, label: int | None, samples: _Found) -> None:
    if not key:
        return
    if image is None or label is None:
        lacks = "an image" if image is None else f"{key}{_LABEL} with its class as a number"
        raise DataError(f"--data {shard}: expected {lacks} in the sample {key}, found none")
    samples.ids.append(f"{shard.name}/{key}")
    samples.labels.append(label)
    samples.places.append((number, *image))


def _label(shard: Path, key: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    text = b"" if member.size > _LABEL_BYTES else cast(IO[bytes], archive.extractfile(member)).read()
    if not text.strip().isdigit():
        raise DataError(f"--data {shard}: expected a class as a number in {key}{_LABEL}, found {text[:20]!r}")
    return int(text)


def _class_names(folder: Path) -> tuple[str, ...]:
    try:
        names = (folder / CLASS_NAMES).read_text(encoding="utf-8").rstrip().splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--data {folder}: {CLASS_NAMES} cannot be read ({error})") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"--data {folder}: {CLASS_NAMES} names {twice!r} twice; every class has a line and a name")
    return tuple(names)
