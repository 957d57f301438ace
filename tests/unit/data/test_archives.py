import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kdcompress.data import load_data
from kdcompress.data.archives import tar_tree
from kdcompress.errors import DataError


def packed(root: Path, suffix: str = ".tar", inside: str = "pictures", mode: str = "w") -> Path:
    """`root` in a tar file beside it, under the name `inside`."""
    path = root.with_name(root.name + suffix)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(root, inside)
    return path


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz"), (".tar.bz2", "w:bz2")],
)
@pytest.mark.parametrize("inside", [".", "pictures", "./pictures"])
def test_a_tar_is_the_same_data_as_its_folder(
    write_tree: Callable[..., Path], suffix: str, mode: str, inside: str
) -> None:
    root = write_tree(per_class=6)
    folder, tar = load_data(str(root)), load_data(str(packed(root, suffix, inside, mode)))
    assert (folder.name, folder.classes, folder.input_size) == (tar.name, tar.classes, tar.input_size)
    for split in ("train", "holdout", "test"):
        one, other = getattr(folder, split), getattr(tar, split)
        assert one.ids == other.ids
        for (x, labels), (y, other_labels) in zip(one.batches(3), other.batches(3), strict=True):
            assert x.equal(y)
            assert labels.equal(other_labels)


def test_reading_a_tar_writes_nothing(write_tree: Callable[..., Path]) -> None:
    path = packed(write_tree())
    before = sorted(path.parent.rglob("*"))
    load_data(str(path))
    assert sorted(path.parent.rglob("*")) == before


def test_an_archive_that_lists_no_folders_is_read(write_tree: Callable[..., Path], tmp_path: Path) -> None:
    root = write_tree()
    with tarfile.open(tmp_path / "files.tar", "w") as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.add(file, file.relative_to(root).as_posix())
    assert load_data(str(tmp_path / "files.tar")).classes == ("ant", "bee")


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tar.xz", "w:xz"), (".tar.bz2", "w:bz2")]
)
def test_a_tar_cut_anywhere_is_refused(write_tree: Callable[..., Path], suffix: str, mode: str) -> None:
    whole = packed(write_tree(), suffix, mode=mode)
    content = whole.read_bytes()
    # A plain tar ends with 1 KiB or more of zeros that carry nothing: a cut among the last ones loses nothing.
    end = len(content.rstrip(b"\0")) if suffix == ".tar" else len(content) - 1
    cut = whole.with_name(f"cut{suffix}")
    for length in [*range(0, end, max(1, end // 60)), end]:
        cut.write_bytes(content[:length])
        with pytest.raises(DataError, match="expected a whole tar file") as caught:
            tar_tree(cut, 2**30)
        assert "\n" not in str(caught.value)


def test_a_plain_tar_cut_between_two_members_is_refused(write_tree: Callable[..., Path]) -> None:
    whole = packed(write_tree())
    with tarfile.open(whole) as archive:
        offsets = [info.offset for info in archive][1:]
    cut = whole.with_name("cut.tar")
    for offset in offsets:
        cut.write_bytes(whole.read_bytes()[:offset])
        with pytest.raises(DataError, match="expected a whole tar file"):
            tar_tree(cut, 2**30)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"\x1f\x8bnot gzip", b"\xfd7zXZ\x00no", bytes(range(256)) * 8]
)
def test_a_file_that_is_no_tar_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.tar").write_bytes(content)
    with pytest.raises(DataError, match="expected a whole tar file") as caught:
        load_data(str(tmp_path / "data.tar"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../train/a/0.png", "train/../../0.png", "/train/a/0.png"])
def test_a_member_that_climbs_out_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="paths inside the archive") as caught:
        tar_tree(tar_of(tmp_path / "x.tar", member(name)), 2**30)
    assert name in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_ignored_and_counted(tmp_path: Path, kind: bytes) -> None:
    path = tar_of(tmp_path / "x.tar", member("train/a/0.png"), member("train/a/1.png", kind))
    tree, notes = tar_tree(path, 2**30)
    assert tree.children("train/a") == ([], ["0.png"])
    assert notes == ("1 links or special files in the archive are ignored",)


def test_more_image_bytes_than_the_limit_are_refused_while_reading(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", member("a.txt", size=999), member("0.png", size=600), member("1.png", size=600))
    tar_tree(path, 1200)
    with pytest.raises(DataError, match="unpack it and give the folder"):
        tar_tree(path, 1199)
