"""Files that are there whole or not at all, and their names as text that can be written."""

import os
import tempfile
from pathlib import Path

RUN_FILES = ("student.safetensors", "last.safetensors", "student.json", "metrics.jsonl", "run.toml")
"""What a run leaves in its folder."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step; a link keeps pointing, a device or pipe (/dev/null, /dev/stdout) is written to.

    Raises:
        OSError: if it cannot be written; what was there before is untouched.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # by its own name: what a link to a pipe resolves to is no path
        return
    path = path.resolve()
    # So much of the name that the longest still leaves room for what makes it another.
    short = path.name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "ignore")
    handle, temporary = tempfile.mkstemp(prefix=f".{short}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name with nothing behind it
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def legible(name: str) -> str:
    r"""The name of a file, whatever its bytes, as text that UTF-8 can hold: what it cannot is written out.

    >>> legible("犬.png"), legible("\udcff.png")
    ('犬.png', '\\udcff.png')
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
