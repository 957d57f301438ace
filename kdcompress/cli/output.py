"""Where text goes: results to stdout, everything else to stderr."""

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console, RenderableType

from kdcompress.cli.options import Format
from kdcompress.errors import UsageError


def stderr() -> Console:
    """For progress, notes and hints."""
    return Console(stderr=True)


def emit(json: str, table: RenderableType, form: Format) -> None:
    """The result on stdout: JSON and nothing else, or the table."""
    from kdcompress.render.console import show

    if form is Format.json:
        print(json)
    else:
        show(Console(), table)
    sys.stdout.flush()  # a reader who left is heard of here, not when Python has gone


def refuse_unwritable(path: Path | None, option: str = "--report") -> None:
    """Find out before an hour of attacks whether the report can be written."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} must be a file, got the folder {path}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: its folder must exist and be writable; create {path.parent} first")


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
