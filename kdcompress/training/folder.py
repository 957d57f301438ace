"""The folder a run leaves behind: all of it, or nothing."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kdcompress.errors import UsageError
from kdcompress.files import RUN_FILES

MAKING = ".making-"
"""How a folder is called until the run in it is whole."""


def refuse_used(out: Path, *, overwrite: bool) -> None:
    """Stop before any work is done where `out` cannot become this run's folder.

    Raises:
        UsageError: if `out` holds anything and `overwrite` is off; if it holds files of no run (never deleted); if it
            cannot be made or written.
    """
    try:
        found = _names(out)
        _try_to_write(out)
        if out.is_dir() and not os.access(out, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror or error}; name another folder") from error
    foreign = [name for name in found if name not in RUN_FILES]
    if foreign:
        raise UsageError(f"--out {out} holds {foreign[0]}, which no run wrote; name a new folder")
    if found and not overwrite:
        raise UsageError(f"--out {out} already holds a run ({', '.join(found)}); name a new folder, or add --overwrite")


def refuse_to_replace(inputs: Mapping[str, Path | None], out: Path) -> None:
    """With --overwrite a run's folder is replaced whole: nothing that the run is made from may lie in it.

    Args:
        inputs: by the option that names them; None is left out.

    Raises:
        UsageError: naming the file.
    """
    for option, path in inputs.items():
        if path is None:
            continue
        # Where the name is, and where the file is: os.path, since Path.resolve() fails on a link to itself.
        places = (os.path.realpath(path.parent), os.path.realpath(path))
        if any(Path(place).is_relative_to(out.resolve()) for place in places):
            raise UsageError(
                f"{option} {path} must lie outside --out {out}, which this run would replace; name another folder"
            )


def _names(out: Path) -> list[str]:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out must be a folder, got the file {out}; name a new folder")
    if out.resolve() == Path.cwd():
        raise UsageError(f"--out must be a folder of its own, got the current one ({out}); name a folder inside it")
    if out.is_mount():  # it could not be renamed, which would be found out after the training
        raise UsageError(f"--out must be a folder of its own, got the mount point {out}; name a folder inside it")
    return sorted(path.name for path in out.iterdir()) if out.is_dir() else []


def _try_to_write(out: Path) -> None:
    """Write beside `out`, or in the nearest folder above it that is there: missing ones are made at the end only."""
    out = out.resolve()
    there = next(folder for folder in out.parents if folder.exists())
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=there):
        pass


def unfinished_folder(out: Path) -> Path:
    """Where the run that `out` will hold is until it ends."""
    out = out.resolve()
    return out.with_name(out.name + ".unfinished")


@contextmanager
def run_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder that becomes `out` when the block ends, and vanishes if it fails.

    It is made in the folder of the unfinished run, which takes it away if this process is killed; without one, beside
    `out`. An old run in `out` stays until the new one is whole. What another run or the user put there since
    `refuse_used` stays too: then the new run is kept under another name.

    Raises:
        UsageError: if `out` was filled in the meantime; names the folder that the run is in.
    """
    out = out.resolve()  # a link to a folder stays a link
    out.parent.mkdir(parents=True, exist_ok=True)
    place = unfinished_folder(out)
    making = Path(tempfile.mkdtemp(prefix=MAKING, dir=place if place.is_dir() else out.parent))
    try:
        yield making
        making.chmod(0o755)  # mkdtemp's folders are private
        try:
            refuse_used(out, overwrite=overwrite)
            _take_place(making, out)
        except (UsageError, OSError) as error:
            kept = Path(tempfile.mkdtemp(prefix=f"{out.name}-", dir=out.parent))
            making.replace(kept)
            said = (
                error if isinstance(error, UsageError) else f"--out {out} cannot be written: {error.strerror or error}"
            )
            raise UsageError(f"{said}. This run is finished and lies in {kept}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _take_place(new: Path, out: Path) -> None:
    """`new` becomes `out`; what was there goes only when that has worked."""
    if not out.exists():
        new.replace(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    try:
        out.replace(aside / out.name)
        try:
            new.replace(out)
        except BaseException:
            (aside / out.name).replace(out)
            raise
    except BaseException:
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
