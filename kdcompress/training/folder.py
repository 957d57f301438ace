"""The folder a run leaves behind: all of it, or nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdcompress.errors import UsageError

RUN_FILES = ("student.safetensors", "student.json", "metrics.jsonl")


def refuse_used(out: Path, *, overwrite: bool) -> None:
    """Stop before any work is done where `out` cannot become this run's folder.

    Raises:
        UsageError: if `out` holds anything and `overwrite` is off; if it holds files of no run (never deleted); if its
            parent is missing or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder, got the file {out}")
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in found if name not in RUN_FILES]
    if foreign:
        raise UsageError(f"--out {out} holds {foreign[0]}, which no run wrote; name a new folder")
    if found and not overwrite:
        raise UsageError(f"--out {out} already holds a run ({', '.join(found)}); name a new folder, or add --overwrite")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent):
            pass
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror or error}") from error


@contextmanager
def run_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that becomes `out` when the block ends, and vanishes if it fails.

    An old run in `out` stays until the new one is whole.
    """
    making = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield making
        making.chmod(0o755)  # mkdtemp's folders are private
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            out.replace(old / out.name)
            making.replace(out)
            shutil.rmtree(old)
        else:
            making.replace(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
