"""timm's dataset schemes (`torch/cifar10`, `hfds/...`), from local files only."""

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kdcompress.data.decoding import OnProgress
from kdcompress.data.items import Items, open_image
from kdcompress.data.shards import shard_splits
from kdcompress.data.tree import folder_tree, tree_splits
from kdcompress.errors import DataError, did_you_mean

# The package behind each scheme: its name for pip, and for import.
_PACKAGES = {
    "torch": ("torchvision", "torchvision"),
    "hfds": ("datasets", "datasets"),
    "hfids": ("datasets", "datasets"),
    "tfds": ("tensorflow-datasets", "tensorflow_datasets"),
}
_SHARDS = "wds"  # timm's reader of them goes through in sequence, and knows no image before it has come by
TORCH_NAMES = (
    *("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist"),
    *("imagenet", "inaturalist", "inat", "places365", "image_folder", "folder"),
)
# timm's names for the test split, best first. Its torch sets know no `test`, but take `validation` for it.
_SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "val")}
_TORCH_SPLIT_NAMES = {"train": ("train",), "test": ("validation",)}


def scheme_splits(
    spec: str, data_dir: Path | None, splits: Sequence[str], limit: int, on_progress: OnProgress | None = None
) -> tuple[dict[str, Items], tuple[str, ...]]:
    """The asked `splits` of a timm data set, and notes. Nothing is downloaded.

    Args:
        spec: such as `torch/cifar10`.
        data_dir: timm's root folder.
        splits: `train`, `test` or both.
        limit: the most bytes of decoded images held for a scheme that can only be read in sequence.

    Raises:
        DataError: if the package behind the scheme is missing, the name is unknown, or the data is not there.
    """
    prefix, _, name = spec.partition("/")
    scheme = prefix.lower()
    if scheme == _SHARDS:
        return shard_splits(_folder(spec, data_dir, name), on_progress)
    package, module = _PACKAGES[scheme]
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:  # a mere folder of that name in the working directory has no origin
        raise DataError(f"--data {spec} needs the package {package}, which is not installed: pip install {package}")
    if scheme == "torch" and name.lower() not in TORCH_NAMES:
        raise DataError(
            f"--data {spec}: expected torch/ and one of {', '.join(TORCH_NAMES)}, got {name}"
            f"{did_you_mean(name.lower(), TORCH_NAMES)}"
        )
    if data_dir is not None or scheme == "torch":
        data_dir = _folder(spec, data_dir)
    if data_dir is not None and scheme == "torch" and name.lower() in {"image_folder", "folder"}:
        # The same layout that --data DIR reads, with the same checks.
        return tree_splits(folder_tree(data_dir))
    names = _TORCH_SPLIT_NAMES if scheme == "torch" else _SPLIT_NAMES
    return {split: _items(spec, data_dir, split, names[split], limit) for split in splits}, ()


def _folder(spec: str, data_dir: Path | None, name: str = "") -> Path:
    """`--data-dir`, or the folder `name` in it where there is one."""
    if data_dir is None:
        raise DataError(f"--data {spec} needs --data-dir, the folder that the data set lies in")
    if not data_dir.is_dir():
        raise DataError(f"--data-dir must be a folder, found no folder {data_dir}")
    return data_dir / name if (data_dir / name).is_dir() else data_dir


def _items(spec: str, data_dir: Path | None, split: str, names: Sequence[str], limit: int) -> Items:
    dataset = _opened(spec, data_dir, split, names)
    reader = getattr(dataset, "reader", None)
    if not hasattr(dataset, "__getitem__") or (reader is not None and not hasattr(reader, "__getitem__")):
        images, labels = _in_sequence(spec, dataset, split, limit)
        return _labelled(dataset, split, labels, images.__getitem__)
    # timm's own wrapper replaces an image it cannot read by its neighbour: ask its reader instead.
    source: Any = dataset if reader is None else reader

    def opened(position: int) -> Image.Image:
        image = source[position][0]
        if isinstance(image, Image.Image):
            return image
        with image:  # an open file, which PIL would not close
            return open_image(io.BytesIO(image.read()))

    return _labelled(dataset, split, _labels(source), opened)


def _opened(spec: str, data_dir: Path | None, split: str, names: Sequence[str]) -> Any:
    """timm's dataset under the first of `names` that it has."""
    from timm.data.dataset_factory import create_dataset  # a slow import

    prefix, _, own = spec.partition("/")
    where, root = spec, None if data_dir is None else str(data_dir)
    if prefix.lower() == "hfds" and data_dir is not None and (data_dir / own).is_dir():
        # Parquet files of the user's: their folder is the name, and the library keeps its copy where it always does.
        where, root = f"{prefix}/{(data_dir / own).resolve()}", None
    failures: list[Exception] = []
    for name in names:
        try:
            with _offline(spec):
                return create_dataset(where, root=root, split=name, is_training=False, download=False)
        except Exception as error:  # five libraries raise what they like, assertions included
            failures.append(error)
    detail = " ".join((str(failures[0]) or type(failures[0]).__name__).split())[:200]
    under = "" if data_dir is None else f" under --data-dir {data_dir}"
    raise DataError(
        f"--data {spec}: no {split} split{under}; kdcompress never downloads: fetch the data set first, then name its "
        f"folder ({detail})"
    ) from failures[0]


@contextlib.contextmanager
def _offline(spec: str) -> Iterator[None]:
    """Hugging Face's libraries would fetch what is not in their cache: switch that off for a while."""
    names = ("huggingface_hub.constants", "datasets.config") if spec.lower().startswith("hf") else ()
    modules = [importlib.import_module(name) for name in names]
    before = [getattr(module, "HF_HUB_OFFLINE", False) for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value  # type: ignore[attr-defined]


def _in_sequence(spec: str, dataset: Any, split: str, limit: int) -> tuple[list[Image.Image], list[int]]:
    images: list[Image.Image] = []
    labels: list[int] = []
    held = 0
    with _offline(spec):
        for image, label in dataset:
            held += image.width * image.height * len(image.getbands())
            if held > limit:
                raise DataError(
                    f"--data {spec}: {split} needs more than {limit} bytes, and this scheme can only be read in "
                    "sequence into memory; store the images as a folder"
                )
            images.append(image)
            labels.append(int(label))
    expected = len(dataset)
    if expected and expected != len(images):
        raise DataError(
            f"--data {spec}: {split} should have {expected} images by its own index, found {len(images)}; "
            "images may be damaged: fetch the data set again"
        )
    return images, labels


def _labels(source: Any) -> list[int]:
    """Class indices without decoding images, where the source has them apart."""
    if (column := getattr(source, "label_key", None)) is not None and hasattr(source, "dataset"):
        if column not in source.dataset.column_names:
            found = ", ".join(source.dataset.column_names)
            raise DataError(f"--data hfds/...: expected the columns image and {column}, found {found}; rename them")
        return [_class_index(column, label) for label in source.dataset[column]]
    targets = getattr(source, "targets", None)
    if targets is not None and getattr(targets, "ndim", 1) == 1:
        return [int(label) for label in targets]
    if hasattr(source, "iter_targets"):
        return [int(label) for label in source.iter_targets()]
    labels = []
    for position in range(len(source)):
        image, label = source[position]
        image.close()
        labels.append(int(label))
    return labels


def _class_index(column: str, label: object) -> int:
    if not isinstance(label, int):
        raise DataError(f"--data hfds/...: expected class indices in the column {column}, found {label!r}")
    return label


def _labelled(dataset: Any, split: str, labels: list[int], opened: Any) -> Items:
    names = getattr(dataset, "classes", None)
    if names is None:
        by_name = getattr(getattr(dataset, "reader", None), "class_to_idx", None) or {}
        names = sorted(by_name, key=by_name.__getitem__)
    # ImageNet gives each class several names.
    classes = tuple(str(name[0] if isinstance(name, tuple) else name) for name in names)
    return Items(classes, tuple(f"{i:06d}" for i in range(len(labels))), tuple(labels), opened, f"{split} image ")
