"""Where text goes: results to stdout, everything else to stderr."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console, RenderableType

from kdcompress.cli.options import Format
from kdcompress.errors import UsageError


def stderr() -> Console:
    """For progress, notes and hints."""
    return Console(stderr=True)


def deliver(json: str, table: RenderableType, form: Format, files: Mapping[Path | None, bytes]) -> None:
    """The result into its files and on stdout; a file that cannot be written does not cost the reader the rest.

    Raises:
        UsageError: if a file cannot be written.
    """
    failed = []
    for path, content in files.items():
        try:
            if path is not None:
                _write_whole(path, content)
        except OSError as error:
            failed.append(f"{path} cannot be written ({error.strerror or error})")
    emit(json, table, form)
    if failed:
        raise UsageError(f"{'; '.join(failed)}; the result stands on stdout alone")


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
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: its folder must exist; create {path.parent} first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: its folder {path.parent} must be writable; name another")


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all; a link keeps pointing, a device (/dev/null) stays one."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
