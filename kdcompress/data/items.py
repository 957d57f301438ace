"""What a split holds before any image is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from kdcompress.errors import DataError
from kdcompress.files import legible

# Formats that PIL reads on every platform without plug-ins, and that other tools' image folders accept.
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MOST_CLASSES = 1_000_000
# The decoders behind those suffixes. PIL has others that run programs (Ghostscript, for PostScript named x.png).
_DECODERS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """The image in a file, opened and not yet decoded, by its content and never by a program of its choice."""
    return Image.open(source, formats=_DECODERS)


@dataclass(frozen=True, eq=False)
class Items:
    """Labelled images of one split, still in their files.

    Attributes:
        classes: class names in the order of the labels; empty where the source names none.
        ids: stable identifiers, unique in the split, such as `airplane/0000.jpg`.
        labels: one class index for each id.
        open: position -> the image, opened and perhaps not yet decoded; called from several threads.
        prefix: what makes of an id a name that the user can find, for error messages.
        shards: which file each lies in, where many lie in one; empty where each has its own. Neighbours are read
            together fastest.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    open: Callable[[int], Image.Image]
    prefix: str = ""
    shards: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, position: int) -> str:
        """The image's name in error messages."""
        return self.prefix + self.ids[position]

    def subset(self, positions: Sequence[int]) -> "Items":
        """The items at `positions`, in that order."""
        kept = tuple(positions)
        return Items(
            self.classes,
            tuple(self.ids[i] for i in kept),
            tuple(self.labels[i] for i in kept),
            lambda i: self.open(kept[i]),
            self.prefix,
            tuple(self.shards[i] for i in kept) if self.shards else (),
        )


def agreed_classes(spec: str, splits: dict[str, Items]) -> tuple[str, ...]:
    """The class names on which all `splits` agree, as text that can be recorded; numbers where the source has none.

    Raises:
        DataError: if there are fewer than two, if two splits differ, or if a label has no class.
    """
    named = {split: items.classes for split, items in splits.items() if items.classes}
    if len(named) == 2 and named["train"] != named["test"]:
        train, test = set(named["train"]), set(named["test"])
        raise DataError(
            f"--data {spec}: train and test must have the same classes; {listed('only in train', train - test)}"
            f"{'; ' if train - test and test - train else ''}{listed('only in test', test - train)}"
        )
    for split, items in splits.items():
        if not items.ids:
            raise DataError(f"--data {spec}: expected images in every split, found none in {split}")
    largest = max((label for items in splits.values() for label in items.labels), default=-1)
    if largest >= MOST_CLASSES:
        raise DataError(f"--data {spec}: labels must be under {MOST_CLASSES:,}, found {largest}")
    classes = next(iter(named.values()), None) or tuple(str(label) for label in range(largest + 1))
    for split, items in splits.items():
        outside = [label for label in items.labels if not 0 <= label < len(classes)]
        if outside:
            raise DataError(
                f"--data {spec}: labels must be 0 to {len(classes) - 1}, found {outside[0]} in {split}: "
                "is this split unlabelled?"
            )
    if len(classes) < 2:
        raise DataError(f"--data {spec}: at least 2 classes are needed, found {listed('only', set(classes)) or 'none'}")
    return tuple(map(legible, classes))


def listed(title: str, names: set[str], most: int = 5) -> str:
    """`title` and the first few of `names`, or nothing.

    >>> listed("only in train", {"cat", "ant"})
    'only in train: ant, cat'
    """
    shown = sorted(names)[:most]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{title}: {', '.join(shown)}{more}" if shown else ""
