"""A spec -> training, hold-out and test split."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kdcompress.data.archives import tar_tree
from kdcompress.data.decoding import Damaged, OnProgress, Size, common_size, decoded
from kdcompress.data.digits import DIGITS_SIDE, digits_splits
from kdcompress.data.items import Items, agreed_classes
from kdcompress.data.schemes import TORCH_NAMES, scheme_splits
from kdcompress.data.selection import balanced_positions, holdout_positions
from kdcompress.data.shards import refuse_packed, shard_splits, shards_of
from kdcompress.data.splits import ReadRows, Split
from kdcompress.data.tree import SPLIT_FOLDERS, folder_tree, tree_splits
from kdcompress.errors import DataError, did_you_mean
from kdcompress.settings.inputs import is_scheme

# A split with more pixels than this is read from its files again for every batch; also the most image bytes of a tar.
MEMORY_LIMIT = 4 * 2**30
_TAR_SUFFIX = re.compile(r"\.(tar(\.\w+)?|tgz|txz|tbz2?)$")
HOLDOUT_SHARE = 10  # one image in so many
HOLDOUT_MOST = 1_000
_HOLDOUT_BATCH = 250


@dataclass(frozen=True, eq=False)
class Data:
    """A loaded data set. A split that was not asked for is None.

    Attributes:
        name: for people: the built-in's or scheme's name, or the folder's or file's.
        classes: class names, in the order of the labels.
        input_size: (C, H, W).
        train: without the hold-out.
        holdout: a slice of the training split for choosing checkpoints and weights; never from the test split.
        test: the test split.
        flips: whether mirrored images are likely to keep their meaning. A guess: yes for colour, no for one channel
            (digits, letters); override it where the data is otherwise (house numbers, road signs).
        crop_padding: the shift in pixels that crops of this size usually get: H // 8, 1 for the digits.
        notes: what was ignored, one line each.
        damaged: training images that could not be read and are left out, as far as they have been asked for: a number
            each, and what was found. It grows while a split that is not in memory is read.
    """

    name: str
    classes: tuple[str, ...]
    input_size: Size
    train: Split | None
    holdout: Split | None
    test: Split | None
    flips: bool
    crop_padding: int
    notes: tuple[str, ...] = ()
    damaged: Damaged = field(default_factory=dict)

    @property
    def line(self) -> str:
        """What was read, for those who want to know."""
        splits = {"training": self.train, "held-out": self.holdout, "test": self.test}
        parts = [f"{len(split):,} {name} images" for name, split in splits.items() if split is not None]
        size = "x".join(map(str, self.input_size))
        return f"data: {self.name}: {', '.join(parts)}, {size}, {len(self.classes)} classes"


def load_data(
    spec: str,
    *,
    data_dir: Path | None = None,
    image_size: int | None = None,
    splits: Collection[Literal["train", "test"]] = ("train", "test"),
    train_images: int | None = None,
    for_ranges: bool = False,
    skip_corrupt: bool = False,
    colour: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Data:
    """Load a data set from the disk.

    >>> data = load_data("digits", splits=["test"])
    >>> inputs, labels = next(data.test.batches(4))
    >>> data.input_size, inputs.shape, labels.shape
    ((1, 16, 16), torch.Size([4, 1, 16, 16]), torch.Size([4]))

    Guarantees:
        - the hold-out is a tenth of the training images, 1,000 at most, each class in proportion; it depends on the
          images' names and the seed alone, so a folder and a tar of it have the same one;
        - the test split is never touched by `train_images` or `seed`;
        - nothing is downloaded, and nothing is written.

    Args:
        spec: `digits`; a folder with train/<class>/ and test/<class>/ (val/ or validation/ where there is no test/); a
            tar file with such a tree; a folder of WebDataset shards (train-0000.tar, ...); or a timm scheme such as
            `torch/cifar10`. The built-in and the schemes win over files of that name: write `./digits` for a folder.
        data_dir: root folder for timm schemes.
        image_size: side of the square that images are resized and cropped to; None keeps their size, which must then
            be the same for all.
        splits: what to load. The hold-out comes with the training split.
        train_images: keep so many training images, balanced by class, before the hold-out is cut. The digits' hold-out
            is fixed, so there the rest of the training split is thinned.
        for_ranges: where nothing is chosen by them: none is held out, and `train_images` may be fewer than there are
            classes, or more than there are images.
        skip_corrupt: leave training images out that cannot be read. An image of the test split is never left out.
        colour: three channels even where every image is grey, for a model that was made for three. The digits keep one.
        seed: chooses the hold-out and the kept training images.
        on_progress: told (what, done, total) in the calling thread.

    Splits of at most 4 GiB are decoded into memory here, so that every damaged file is found before training starts;
    larger ones are read from their files batch by batch.

    Raises:
        DataError: if the data cannot be read or is not what it should be.
    """
    for name, value in (("--image-size", image_size), ("--train-images", train_images)):
        if value is not None and value < 1:
            raise DataError(f"{name} must be at least 1, got {value}")
    if data_dir is not None and not is_scheme(spec):
        raise DataError(f"--data-dir is for timm's schemes such as torch/cifar10, got --data {spec}; leave it out")
    if spec == "digits":
        return _digits(image_size, splits, train_images, seed, for_ranges)
    found, notes = _found(spec, data_dir, splits, on_progress)
    classes = agreed_classes(spec, found)
    for split in splits:
        if split not in found:
            raise DataError(f"--data {spec}: expected a {split} split, found only {', '.join(found)}")
    wanted = {split: found[split] for split in ("train", "test") if split in splits}
    if not wanted:
        raise DataError("at least one of the splits train and test must be asked for")
    train_at, holdout_at = (_some if for_ranges else _train_and_holdout)(wanted.get("train"), train_images, seed)
    if "train" in wanted:
        wanted["train"] = wanted["train"].subset(train_at + holdout_at)
    size = common_size(list(wanted.values()), image_size, colour=colour, skip_corrupt=skip_corrupt)
    damaged: Damaged = {}
    loaded = {
        split: _loaded(
            split, items, size, image_size, damaged if skip_corrupt and split == "train" else None, on_progress
        )
        for split, items in wanted.items()
    }
    train, holdout = _parts(loaded.get("train"), len(train_at))
    return Data(
        name=spec if is_scheme(spec) else _TAR_SUFFIX.sub("", Path(spec).resolve().name),
        classes=classes,
        input_size=size,
        train=train,
        holdout=None if for_ranges else holdout,
        test=loaded.get("test"),
        flips=size[0] == 3,
        crop_padding=size[1] // 8,
        notes=notes,
        damaged=damaged,
    )


def _parts(both: Split | None, trained_on: int) -> tuple[Split | None, Split | None]:
    """The images to train on, and the others, which are held out: all of these must be readable."""
    if both is None:
        return None, None
    held_out = both.subset(range(trained_on, len(both)))
    if not isinstance(both.pixels, Tensor):
        for _ in held_out.batches(_HOLDOUT_BATCH):
            pass  # so that every damaged image among them is known
    return both.subset(range(trained_on)).readable(), held_out.readable()


def _digits(
    image_size: int | None, splits: Collection[str], train_images: int | None, seed: int, for_ranges: bool
) -> Data:
    parts = digits_splits(image_size)
    train, side = parts["train"], image_size or DIGITS_SIDE
    if train_images is not None:
        if not for_ranges:
            _check_enough(train_images, len(train), 10)
        train = train.subset(balanced_positions(train.ids, train.labels.tolist(), train_images, seed))
    return Data(
        name="digits",
        classes=tuple("0123456789"),
        input_size=(1, side, side),
        train=train if "train" in splits else None,
        holdout=parts["holdout"] if "train" in splits and not for_ranges else None,
        test=parts["test"] if "test" in splits else None,
        flips=False,
        crop_padding=1,
    )


def _found(
    spec: str, data_dir: Path | None, splits: Collection[str], on_progress: OnProgress | None
) -> tuple[dict[str, Items], tuple[str, ...]]:
    """The splits that are there, and notes."""
    if is_scheme(spec):
        return scheme_splits(spec, data_dir, sorted(splits), MEMORY_LIMIT, on_progress)
    try:
        path = Path(spec).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long; a home that nobody has
        raise DataError(
            f"--data must be an image folder, a tar file, digits or a timm scheme such as torch/cifar10; {spec} cannot "
            f"be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if is_folder and shards_of(path) and not any((path / name).is_dir() for name in SPLIT_FOLDERS):
        return shard_splits(path, on_progress)
    if is_folder:
        refuse_packed(path)
        return tree_splits(folder_tree(path))
    if is_file:
        told = None if on_progress is None else partial(on_progress, "read archive")
        tree, skipped = tar_tree(path, MEMORY_LIMIT, told)
        found, notes = tree_splits(tree)
        return found, skipped + notes
    known = ("digits", *(f"torch/{name}" for name in TORCH_NAMES))
    raise DataError(
        f"--data must be an image folder, a tar file, digits or a timm scheme such as torch/cifar10, found nothing at "
        f"{spec}{did_you_mean(spec, known)}"
    )


def _some(items: Items | None, count: int | None, seed: int) -> tuple[list[int], list[int]]:
    """As many, balanced by class, or all where there are fewer; and none held out."""
    if items is None:
        return [], []
    return balanced_positions(items.ids, items.labels, len(items) if count is None else count, seed), []


def _train_and_holdout(items: Items | None, train_images: int | None, seed: int) -> tuple[list[int], list[int]]:
    if items is None:
        return [], []
    kept = list(range(len(items)))
    if train_images is not None:
        _check_enough(train_images, len(items), len(set(items.labels)))
        kept = balanced_positions(items.ids, items.labels, train_images, seed)
    ids, labels = [items.ids[i] for i in kept], [items.labels[i] for i in kept]
    count = min(max(1, len(kept) // HOLDOUT_SHARE), HOLDOUT_MOST)
    held = {kept[i] for i in holdout_positions(ids, labels, count, seed)}
    if not held:
        raise DataError(
            f"the training split must have at least two images of a class, so that one can be held out, found "
            f"{len(kept)} images of {len(set(labels))} classes; add images or raise --train-images"
        )
    return [i for i in kept if i not in held], sorted(held)


def _check_enough(train_images: int, available: int, classes: int) -> None:
    if train_images < 2 * classes:
        raise DataError(
            f"--train-images must be at least {2 * classes}, two of each of the {classes} classes, got {train_images}"
        )
    if train_images > available:
        raise DataError(
            f"--train-images must be at most the {available} images of the training split, got {train_images}"
        )


def _loaded(
    split: str,
    items: Items,
    size: Size,
    image_size: int | None,
    damaged: Damaged | None,
    on_progress: OnProgress | None,
) -> Split:
    channels, height, width = size
    total = len(items)
    pixels: Tensor | ReadRows = partial(decoded, items, size, image_size, damaged=damaged)
    if total * channels * height * width <= MEMORY_LIMIT:
        told: Callable[[int], None] | None = None
        if on_progress is not None:
            report = partial(on_progress, f"decode {split}")
            told = lambda done: report(done, total)  # noqa: E731
        pixels = decoded(items, size, image_size, range(total), told, damaged)
    labels = torch.tensor(items.labels, dtype=torch.int64)
    shards = torch.tensor(items.shards) if items.shards and not isinstance(pixels, Tensor) else None
    return Split(labels, items.ids, pixels, torch.arange(total), {} if damaged is None else damaged, shards)
