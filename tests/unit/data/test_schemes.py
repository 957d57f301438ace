import hashlib
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data.dataset_factory
import torch
import torchvision
from PIL import Image

from kdcompress.data import load_data, loading, schemes
from kdcompress.errors import DataError
from kdcompress.settings.inputs import SCHEMES


def refused(spec: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_mnist(root: Path) -> None:
    """MNIST's file format, 40 training and 20 test images of noise, labels 0 to 9 in turn."""
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 40), ("t10k", 20)):
        images = np.random.RandomState(count).randint(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10's file format, 10 images a file; torchvision's table of checksums is made to fit."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> tuple[str, str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return name, hashlib.md5(data, usedforsecurity=False).hexdigest()

    def batch(number: int) -> dict[str, Any]:
        values = np.random.RandomState(number).randint(0, 256, (10, 3072), dtype=np.uint8)
        return {"data": values, "labels": list(range(10))}

    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [write(f"data_batch_{i}", batch(i)) for i in range(1, 6)])
    monkeypatch.setattr(kind, "test_list", [write("test_batch", batch(0))])
    meta, checksum = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(kind, "meta", {"filename": meta, "key": "label_names", "md5": checksum})


def test_torch_mnist_is_read_as_grey_images(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = load_data("torch/mnist", data_dir=tmp_path)
    assert data.train and data.holdout and data.test
    assert (data.input_size, data.flips, data.name) == ((1, 28, 28), False, "torch/mnist")
    assert (len(data.train), len(data.holdout), len(data.test)) == (36, 4, 20)
    assert len(data.classes) == 10
    inputs, labels = next(data.test.batches(20))
    expected = np.random.RandomState(20).randint(0, 256, (20, 28, 28), dtype=np.uint8)
    assert torch.equal(inputs[:, 0], torch.from_numpy(expected).float() / 255)
    assert labels.tolist() == [*range(10), *range(10)]


def test_torch_cifar10_is_read_with_its_class_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    data = load_data("torch/CIFAR10", data_dir=tmp_path, train_images=40)
    assert data.train and data.holdout and data.test
    assert data.classes[:2] == ("airplane", "automobile")
    assert (data.input_size, data.flips, data.crop_padding) == ((3, 32, 32), True, 4)
    assert (len(data.train) + len(data.holdout), len(data.test)) == (40, 10)
    expected = np.random.RandomState(0).randint(0, 256, (10, 3, 32, 32), dtype=np.uint8)
    assert torch.equal(next(data.test.batches(10))[0], torch.from_numpy(expected).float() / 255)


@pytest.mark.parametrize("spec", ["torch/image_folder", "torch/folder"])
def test_torch_image_folder_is_the_same_as_the_folder(write_tree: Callable[..., Path], spec: str) -> None:
    root = write_tree()
    data, folder = load_data(spec, data_dir=root), load_data(str(root))
    assert data.test and folder.test and data.holdout and folder.holdout
    assert data.test.ids == folder.test.ids
    assert data.holdout.ids == folder.holdout.ids


def test_data_that_is_not_there_is_not_downloaded(tmp_path: Path) -> None:
    line = refused("torch/cifar10", data_dir=tmp_path)
    assert "no test split under --data-dir" in line
    assert "never downloads" in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_wrong_data_dir_is_named(tmp_path: Path) -> None:
    assert refused("torch/cifar10").startswith("--data torch/cifar10 needs --data-dir")
    assert "--data-dir must be a folder" in refused("torch/cifar10", data_dir=tmp_path / "no")


def test_an_unknown_torch_name_is_met_with_the_nearest(tmp_path: Path) -> None:
    assert refused("torch/cifar1", data_dir=tmp_path).endswith("did you mean cifar10 or cifar100?")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(schemes._PACKAGES, "hfds", ("some-package", "kdcompress_no_such_module"))
    line = "--data hfds/x needs the package some-package, which is not installed: pip install some-package"
    assert refused("hfds/x") == line


class Sequence:
    """What timm makes of a scheme that can only be read from start to end."""

    def __init__(self, labels: list[int], length: int, class_to_idx: dict[str, int]) -> None:
        self.labels, self.length = labels, length
        self.reader = type("Reader", (), {"class_to_idx": class_to_idx})()

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        return ((Image.new("RGB", (4, 4), (label, 0, 0)), label) for label in self.labels)


class Indexed:
    """What timm makes of a scheme with random access: its reader gives open files."""

    def __init__(self, files: list[Path]) -> None:
        self.reader = self
        self.files = files
        self.class_to_idx = {"bee": 1, "ant": 0}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return self.files[position].open("rb"), position % 2


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Any]], None]:
    """Let timm's factory return what a function of the split's name says, for the scheme tfds/."""

    def install(make: Callable[[str], Any]) -> None:
        monkeypatch.setitem(schemes._PACKAGES, "tfds", ("tensorflow-datasets", "timm"))
        monkeypatch.setattr(timm.data.dataset_factory, "create_dataset", lambda name, *, split, **_: make(split))

    return install


def test_a_scheme_read_in_sequence_has_named_classes(tmp_path: Path, pretend: Any) -> None:
    pretend(lambda split: Sequence([0, 1] * 5, 10, {"bee": 1, "ant": 0}))
    data = load_data("tfds/x", data_dir=tmp_path)
    assert data.test
    assert data.classes == ("ant", "bee")
    inputs, labels = next(data.test.batches(10))
    assert torch.equal(inputs[:, 0, 0, 0].mul(255).round().long(), labels)


def test_classes_without_names_are_numbered(tmp_path: Path, pretend: Any) -> None:
    pretend(lambda split: Sequence([0, 1, 2] * 4, 0, {}))
    assert load_data("tfds/x", data_dir=tmp_path).classes == ("0", "1", "2")


def test_validation_is_the_test_split_of_a_scheme_without_one(tmp_path: Path, pretend: Any) -> None:
    def make(split: str) -> Sequence:
        if split == "test":
            raise RuntimeError("split test not found\nin info")
        return Sequence([0, 1] * (5 if split == "train" else 3), 0, {})

    pretend(make)
    data = load_data("tfds/x", data_dir=tmp_path)
    assert data.test
    assert len(data.test) == 6


def test_images_lost_on_the_way_are_noticed(tmp_path: Path, pretend: Any) -> None:
    pretend(lambda split: Sequence([0, 1] * 5, 11, {}))
    assert "should have 11 images by its own index, found 10" in refused("tfds/x", data_dir=tmp_path)


def test_unlabelled_images_are_noticed(tmp_path: Path, pretend: Any) -> None:
    pretend(lambda split: Sequence([0, 1] * 5 if split == "train" else [-1] * 4, 0, {}))
    assert "labels must be 0 to 1, found -1 in test" in refused("tfds/x", data_dir=tmp_path)


def test_an_empty_split_is_noticed(tmp_path: Path, pretend: Any) -> None:
    pretend(lambda split: Sequence([], 0, {"ant": 0, "bee": 1}))
    assert "expected images in every split, found none" in refused("tfds/x", data_dir=tmp_path)


def test_a_sequence_over_the_limit_is_refused(tmp_path: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(lambda split: Sequence([0, 1] * 5, 10, {}))
    monkeypatch.setattr(loading, "MEMORY_LIMIT", 400)
    assert "store the images as a folder" in refused("tfds/x", data_dir=tmp_path)


def test_a_damaged_image_is_reported_and_not_replaced_by_its_neighbour(
    tmp_path: Path, pretend: Any, write_tree: Callable[..., Path]
) -> None:
    files = sorted(write_tree().rglob("*.png"))
    pretend(lambda split: Indexed(files))
    data = load_data("tfds/x", data_dir=tmp_path)
    assert data.test
    assert (data.classes, len(data.test)) == (("ant", "bee"), 20)
    files[3].write_bytes(b"damaged")
    assert "image 000003: expected an image, found a damaged" in refused("tfds/x", data_dir=tmp_path, splits=("test",))


def test_hugging_face_is_offline_while_a_data_set_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setitem(schemes._PACKAGES, "hfds", ("datasets", "timm"))
    monkeypatch.setitem(__import__("sys").modules, "datasets.config", hub)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    seen: list[bool] = []

    def make(name: str, **_: Any) -> Sequence:
        seen.append(hub.HF_HUB_OFFLINE)
        return Sequence([0, 1] * 5, 10, {})

    monkeypatch.setattr(timm.data.dataset_factory, "create_dataset", make)
    load_data("hfds/x")
    assert seen == [True, True]
    assert hub.HF_HUB_OFFLINE is False


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `pictures`, Parquet files as Hugging Face lays them out: image n has brightness n."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for split, count in (("train", 40), ("test", 4)):
        pictures = [Image.fromarray(np.full((8, 8, 3), n, dtype=np.uint8)) for n in range(count)]
        rows = {"image": pictures, "label": [n % 2 for n in range(count)]}
        path = tmp_path / "pictures" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return tmp_path


@pytest.mark.parametrize("limit", [0, 2**30])
def test_parquet_files_are_read_in_memory_or_where_they_lie(
    parquet: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("kdcompress.data.loading.MEMORY_LIMIT", limit)
    data = load_data("hfds/pictures", data_dir=parquet)
    assert data.train is not None and data.holdout is not None and data.test is not None
    assert isinstance(data.train.pixels, torch.Tensor) == (limit > 0)
    seen = [
        pair for split in (data.train, data.holdout) for x, y in split.batches(7) for pair in zip(x, y, strict=True)
    ]
    assert sorted((round(float(x.mean() * 255)), int(y)) for x, y in seen) == [(n, n % 2) for n in range(40)]
    assert data.classes == ("cat", "dog") and len(data.test) == 4


def test_parquet_files_without_the_columns_are_refused(parquet: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = parquet / "other" / "train.parquet"
    path.parent.mkdir()
    picture = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))
    features = datasets.Features({"image": datasets.Image(), "fine": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": [picture] * 4, "fine": [0, 1, 0, 1]}, features=features).to_parquet(path)
    line = refused("hfds/other", data_dir=parquet, splits=("train",))
    assert line == "--data hfds/...: expected the columns image and label, found image, fine; rename them"
    assert "no test split under" in refused("hfds/other", data_dir=parquet)


@pytest.mark.parametrize("label", ["cat", None])
def test_labels_that_are_no_numbers_are_refused(parquet: Path, label: str | None) -> None:
    datasets = pytest.importorskip("datasets")
    path = parquet / "other" / "train.parquet"
    path.parent.mkdir()
    picture = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict({"image": [picture] * 4, "label": [label] * 4}, features=features).to_parquet(path)
    said = refused("hfds/other", data_dir=parquet, splits=("train",))
    assert f"expected class indices in the column label, found {label!r}" in said


def test_what_has_the_form_of_a_scheme_is_one_that_is_known() -> None:
    assert set(SCHEMES) == {*schemes._PACKAGES, schemes._SHARDS}
