"""WebDataset shards: the same data as a folder, every fault named, and an order that reads them from end to end."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdcompress.data import load_data, sharded_order
from kdcompress.data import loading as loading_module
from kdcompress.errors import DataError
from kdcompress.maths.randomness import generator
from kdcompress.settings import RunSettings
from kdcompress.training.batches import fresh_batches

Sample = dict[str, bytes]


def picture(brightness: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), brightness, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def sample(number: int, label: int | None = None) -> Sample:
    return {
        f"{number:04d}.png": picture(number),
        f"{number:04d}.cls": str(number % 2 if label is None else label).encode(),
    }


def write_shard(path: Path, samples: list[Sample], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for one in samples:
            for name, content in one.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Eight training shards of five images, image n of brightness n, and one of test images."""
    folder = tmp_path / "pictures"
    for number in range(8):
        write_shard(folder / f"train-{number:02d}.tar", [sample(5 * number + i) for i in range(5)])
    write_shard(folder / "test-00.tar", [sample(n) for n in range(100, 104)])
    return folder


@pytest.fixture
def from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No split fits into memory."""
    monkeypatch.setattr(loading_module, "MEMORY_LIMIT", 0)


def brightness(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


@pytest.mark.parametrize("spec", ["{}", "wds/pictures", "wds/"])
def test_every_image_comes_with_its_label_and_name(shards: Path, spec: str) -> None:
    named = spec.startswith("wds")
    data = load_data(spec.format(shards), data_dir=(shards.parent if spec.endswith("s") else shards) if named else None)
    assert data.train is not None and data.holdout is not None and data.test is not None
    seen = {}
    for split in (data.train, data.holdout):
        for x, y in split.batches(3):
            seen |= dict(zip(brightness(x), y.tolist(), strict=True))
    assert seen == {n: n % 2 for n in range(40)}
    ((x, y),) = data.test.batches(9)
    assert (brightness(x), y.tolist(), data.test.ids[0]) == ([100, 101, 102, 103], [0, 1, 0, 1], "test-00.tar/0100")
    assert data.classes == ("0", "1") and data.notes == ()


def test_shards_that_are_missing_between_others_are_noted(shards: Path) -> None:
    (shards / "train-03.tar").unlink()
    (shards / "train-05.tar").unlink()
    said = "shards numbered 3, 5 are not there between train-00.tar and train-07.tar"
    assert load_data(str(shards)).notes == (said,)


def test_class_names_are_read_where_they_are(shards: Path) -> None:
    (shards / "classes.txt").write_text("cat\ndog\n")
    assert load_data(str(shards)).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "split"),
    [("imagenet1k-train-0000.tar", "train"), ("train_0.tar", "train"), ("x.val-00.tar", "val"), ("trainer.tar", None)],
)
def test_a_shards_name_says_its_split(tmp_path: Path, name: str, split: str | None) -> None:
    from kdcompress.data.shards import shards_of

    (tmp_path / name).touch()
    assert list(shards_of(tmp_path)) == ([split] if split else [])


def test_validation_stands_in_for_a_test_split_and_is_noted(shards: Path) -> None:
    (shards / "test-00.tar").rename(shards / "val-00.tar")
    data = load_data(str(shards))
    assert data.test is not None and data.notes == ("there is no test split; val stands in for it",)


def without(name: str) -> Callable[[Sample], Sample]:
    return lambda one: {key: value for key, value in one.items() if not key.endswith(name)}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ([without("cls")(sample(1))], "expected 0001.cls with its class as a number in the sample 0001"),
        ([without("png")(sample(1))], "expected an image in the sample 0001"),
        ([sample(1) | {"0001.cls": b"cat"}], "expected a class as a number in 0001.cls, found b'cat'"),
        ([sample(1) | {"0001.cls": b"1" * 5000}], "expected a class as a number"),
        ([sample(1), sample(2), sample(1)], "two samples are called 0001"),
        (
            [sample(1) | {"0001.jpg": picture(2)}],
            "one image and one label in the sample 0001, found two images",
        ),
        ([sample(1) | {"0001.CLS": b"1"}], "one image and one label in the sample 0001, found two labels"),
        ([sample(1, label=-1)], "expected a class as a number in 0001.cls, found b'-1'"),
        ([sample(1) | {"0001.cls": b"0_1"}], "expected a class as a number"),
        ([sample(1, label=10**20)], "is of class 100000000000000000000"),
    ],
)
def test_a_faulty_sample_is_named(shards: Path, broken: list[Sample], said: str) -> None:
    write_shard(shards / "train-03.tar", broken)
    with pytest.raises(DataError) as caught:
        load_data(str(shards))
    assert said in str(caught.value)


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


MEMBER = 1024  # a header, and a small file's block


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: write_shard(path, [sample(1)], "w:gz"),
        lambda path: path.write_bytes(path.read_bytes()[:700]),
        lambda path: path.write_bytes(path.read_bytes()[: 2 * MEMBER]),
        lambda path: path.write_bytes(path.read_bytes()[: 2 * MEMBER + 100]),
        lambda path: flipped(path, 2 * MEMBER + 3),
        lambda path: path.write_bytes(b"no tar"),
    ],
)
def test_a_faulty_shard_is_named(shards: Path, damage: Callable[[Path], object]) -> None:
    damage(shards / "train-03.tar")
    with pytest.raises(DataError, match=r"train-03\.tar: expected a whole tar that is not compressed"):
        load_data(str(shards))


def test_a_tar_beside_a_tree_is_no_shard(write_tree: Callable[..., Path]) -> None:
    root = write_tree(per_class=6)
    write_shard(root / "ILSVRC2012_img_val.tar", [{"a.JPEG": picture(1)}])
    data = load_data(str(root))
    assert data.test is not None and "a" not in data.test.ids


def test_what_macos_adds_to_a_tar_is_left_out(shards: Path) -> None:
    one = sample(99)
    write_shard(shards / "train-07.tar", [{"._0099.png": b"x"} | one | {"._0099.cls": b"x"}])
    data = load_data(str(shards))
    assert data.train is not None and len(data.train) + len(data.holdout or ()) == 36


def test_compressed_shards_are_named(shards: Path) -> None:
    for path in shards.glob("*.tar"):
        path.rename(path.with_name(path.name + ".gz"))
    with pytest.raises(DataError, match=r"expected shards that are not compressed, found train-00\.tar\.gz"):
        load_data(str(shards))


def test_a_class_far_from_the_others_is_named(shards: Path) -> None:
    write_shard(shards / "train-03.tar", [sample(1, label=12345)])
    with pytest.raises(DataError, match=r"only 3 classes have images, and train-03\.tar/0001 is of class 12345"):
        load_data(str(shards))
    (shards / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"classes\.txt names 2 classes, and train-03\.tar/0001 is of class 12345"):
        load_data(str(shards))


def test_class_names_are_a_line_each_and_no_two_alike(shards: Path) -> None:
    (shards / "classes.txt").write_text("cat\ndog\n\n")
    assert load_data(str(shards)).classes == ("cat", "dog")
    (shards / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match=r"classes\.txt names 'cat' twice"):
        load_data(str(shards))


def test_a_link_in_a_shard_is_not_followed(shards: Path) -> None:
    with tarfile.open(shards / "train-00.tar", "w") as archive:
        link = tarfile.TarInfo("0001.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        info = tarfile.TarInfo("0001.cls")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
    with pytest.raises(DataError, match="expected an image in the sample 0001"):
        load_data(str(shards))


def test_images_that_do_not_fit_into_memory_are_read_where_they_lie(shards: Path, from_disk: None) -> None:
    data = load_data(str(shards))
    assert data.train is not None and not isinstance(data.train.pixels, torch.Tensor)
    assert data.train.shards is not None and len(data.train.shards) == len(data.train)
    for x, y in data.train.batches(4):
        assert [n % 2 for n in brightness(x)] == y.tolist()


def test_a_run_sees_every_image_once_an_epoch_and_goes_on_within_it(shards: Path, from_disk: None) -> None:
    data, run = load_data(str(shards)), RunSettings(epochs=1, batch_size=4, augment="none", seed=3)
    device = torch.device("cpu")
    first = [brightness(x) for x, _ in fresh_batches(data, run, device)(1)]
    seen = [n for batch in first for n in batch]
    assert len(seen) == len(set(seen)) == 36 and [batch for batch in first if batch != sorted(batch)]
    assert [brightness(x) for x, _ in fresh_batches(data, run, device)(1, skip=5)] == first[5:]


@pytest.mark.parametrize(("sizes", "batch"), [([1000] * 64, 256), ([10, 1, 500, 30, 7], 12), ([5], 4), ([3, 3], 7)])
def test_an_order_takes_nearly_all_images_once_and_keeps_to_few_shards(sizes: list[int], batch: int) -> None:
    shards = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = sharded_order(shards, batch, generator(0, "order"))
    N = len(shards)
    assert len(order) == N // batch * batch and len(order.unique()) == len(order)
    assert batch > N or not order.equal(sharded_order(shards, batch, generator(1, "order")))
    if N > 60_000:
        # Neighbouring batches come from the same shards, each process's part from its own half of them.
        steps = order.view(-1, batch)
        for rows in (slice(0, 128), slice(128, 256)):
            assert len(shards[steps[:10, rows]].unique()) <= 32
        assert shards[steps[:, :128]].unique().numel() + shards[steps[:, 128:]].unique().numel() <= len(sizes) + 1
