"""A file is there whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

from kdcompress.evaluation.kept import forget_old
from kdcompress.files import write_whole


def test_a_file_of_the_longest_name_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for name in ("n" * 255, f"n.{'s' * 253}", f"{'犬' * 83}.json"):  # 255 bytes at most, in UTF-8
        write_whole(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_pipe_is_written_to_by_the_name_it_was_given() -> None:
    """What /dev/fd/N resolves to is no path that could be opened."""
    read, write = os.pipe()
    try:
        write_whole(Path(f"/dev/fd/{write}"), b"content")
        assert os.read(read, 100) == b"content"
    finally:
        os.close(read)
        os.close(write)


def test_what_a_killed_write_of_verdicts_leaves_is_forgotten_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "0123456789abcdef01234567"
    folder.mkdir()
    script = (
        "import os, pathlib; from kdcompress import files\n"
        "os.fdopen = lambda *_: os._exit(9)\n"
        f"files.write_whole(pathlib.Path({str(folder / 'chunk-00001-0123456789abcdef.safetensors')!r}), b'')"
    )
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    (left,) = folder.iterdir()
    assert left.name.startswith(".")
    forget_old(tmp_path, now=left.stat().st_mtime + 365 * 86_400)
    assert not folder.exists()
