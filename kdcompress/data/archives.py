"""A tar file, read in one pass into memory; nothing is ever written to the disk."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from kdcompress.data.items import IMAGE_SUFFIXES, open_image
from kdcompress.data.tree import Tree
from kdcompress.errors import DataError

# By content, since names lie.
_COMPRESSIONS: tuple[tuple[bytes, Callable[[IO[bytes]], object]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"BZh", bz2.open),
)
_BLOCK = 512  # a tar ends with blocks of zeros


def tar_tree(path: Path, limit: int, on_read: Callable[[int, int], None] | None = None) -> tuple[Tree, tuple[str, ...]]:
    """The tree in a tar file (plain, or compressed with gzip, xz or bzip2), and notes on what was left out.

    Args:
        path: the file.
        limit: the most bytes of image files to hold in memory.
        on_read: told how many bytes of the file have been read, and its size.

    Raises:
        DataError: if the file is no tar, is truncated, holds more than `limit`, or has a member whose path climbs out
            of the archive.
    """
    images: dict[str, bytes] = {}
    folders: dict[str, set[str]] = {"": set()}
    files: dict[str, set[str]] = {}
    held = skipped = 0
    try:
        with path.open("rb") as raw:
            stream = _Tail(_decompressed(raw))
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for number, member in enumerate(archive):
                    name = _safe_name(path, member.name)
                    if not member.isfile() and not member.isdir():
                        skipped += 1
                        continue
                    _add(folders, files, name, member.isdir())
                    if member.isfile() and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                        held += member.size
                        if held > limit:
                            raise DataError(
                                f"--data {path}: expected at most {limit} bytes of images in a tar, which is held in "
                                "memory, found more; unpack it and give the folder"
                            )
                        images[name] = cast(IO[bytes], archive.extractfile(member)).read()
                    if on_read is not None and number % 1024 == 0:
                        on_read(raw.tell(), path.stat().st_size)
            stream.check_end()
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"--data {path}: expected a whole tar file (.tar, .tar.gz, .tar.xz, .tar.bz2), found one that is "
            f"truncated, damaged or of another kind ({detail}); fetch it again"
        ) from error

    def children(folder: str) -> tuple[list[str], list[str]]:
        return sorted(folders.get(folder, ())), sorted(files.get(folder, ()))

    notes = (f"{skipped} links or special files in the archive are ignored",) if skipped else ()
    return Tree(str(path), children, lambda name: open_image(io.BytesIO(images[name]))), notes


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    start = raw.read(8)
    raw.seek(0)
    return next((cast(IO[bytes], opened(raw)) for magic, opened in _COMPRESSIONS if start.startswith(magic)), raw)


def _safe_name(path: Path, member: str) -> str:
    """The member's path without `./`; nothing is written by it, but an archive that tries is not to be trusted."""
    parts = PurePosixPath(member).parts
    if ".." in parts or member.startswith("/"):
        raise DataError(f"--data {path}: expected paths inside the archive, found the member {member}; do not use it")
    return "/".join(parts)


def _add(folders: dict[str, set[str]], files: dict[str, set[str]], name: str, is_folder: bool) -> None:
    """Enter a member and the folders above it, which an archive need not list."""
    parent, _, last = name.rpartition("/")
    if not last:
        return
    if is_folder:
        folders.setdefault(name, set())
        folders.setdefault(parent, set()).add(last)
    else:
        files.setdefault(parent, set()).add(last)
    while parent:
        above, _, last = parent.rpartition("/")
        folders.setdefault(above, set()).add(last)
        parent = above


class _Tail(io.RawIOBase):
    """A stream that remembers its last block: `tarfile` takes a file cut inside a header for a finished one."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._source.read(size)
        self._last = (self._last + found)[-_BLOCK:]
        return found

    def check_end(self) -> None:
        """Read to the end, which makes the decompressor check its own end mark.

        Raises:
            EOFError: if the archive does not end with zeros.
        """
        while self.read(1 << 20):
            pass
        if len(self._last) < _BLOCK or self._last.strip(b"\0"):
            raise EOFError("the end mark is missing")
