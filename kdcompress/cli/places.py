"""Where results may go: into files that can be written and that nobody needs, found out before an hour of attacks."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from kdcompress.errors import UsageError
from kdcompress.files import RUN_FILES
from kdcompress.settings import DataSettings, ModelFile

NO_TEXT = ("--out", "--picture")
"""Results that are no text themselves."""


def refuse_places(
    outputs: Mapping[str, Path | None],
    inputs: Mapping[str, ModelFile | Path | None],
    data: DataSettings | None = None,
) -> None:
    """Stop where a result cannot be written, or would take the place of another or of what it is made from.

    Args:
        outputs: by option, `--report` among them; None for those that were not given.
        inputs: what is read, by what it is called on the command line.
        data: where the images are.

    Raises:
        UsageError: naming the option and the file.
    """
    wanted = {option: path for option, path in outputs.items() if path is not None}
    for option, path in wanted.items():
        _refuse_unwritable(path, option)
    _refuse_clash(wanted)
    for option, path in wanted.items():
        if path.exists() and not path.is_file():  # a device or a pipe replaces nothing
            continue
        needed = [what for what, place in _needed(inputs) if _same(path, place)]
        if data is not None and _is_of(data, path):
            needed.append("images of --data")
        if path.name in RUN_FILES and path.exists() and _is_a_run(path.parent):
            needed.append(f"{path.name} of the run in {path.parent}")
        if option not in NO_TEXT and path.exists() and _is_no_text(path):
            needed.append("a file that is no text, such as weights")
        if needed:
            raise UsageError(f"{option} {path} would take the place of {needed[0]}; name another file")


def _is_a_run(folder: Path) -> bool:
    """Whether hours of work lie there: weights beside the record of what made them."""
    return all((folder / name).is_file() for name in ("student.safetensors", "student.json"))


def _refuse_unwritable(path: Path, option: str) -> None:
    if str(path) == "-":
        raise UsageError(f"{option} must be a file, got -: stdout has the result already, as JSON with --format json")
    try:
        there = path.stat()
    except FileNotFoundError:
        there = None
    except OSError as error:  # a name too long, a link to itself
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror}); name another file") from error
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise UsageError(f"{option} must be a file, got the folder {path}")
    if there is not None and not stat.S_ISREG(there.st_mode):
        if not os.access(path, os.W_OK):
            raise UsageError(f"{option} {path}: it must be writable; name another file")
        return
    if there is not None and _is_a_stream(there):
        raise UsageError(f"{option} {path} is where the output goes; name another file")
    folder = path.resolve().parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: its folder must exist; create {folder} first")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{option} {path}: its folder {folder} must be writable; name another")


def _is_a_stream(there: os.stat_result) -> bool:
    """Whether stdout or stderr is sent into this file: what is printed later would be lost, or spoil the report."""
    for stream in (1, 2):
        try:
            if os.path.samestat(there, os.fstat(stream)):
                return True
        except OSError:  # closed
            continue
    return False


def _refuse_clash(outputs: Mapping[str, Path]) -> None:
    """Two results in one file would leave one of them."""
    seen: dict[Path, str] = {}
    for option, path in outputs.items():
        place = path.resolve()
        if place in seen and place != Path(os.devnull):
            raise UsageError(f"{seen[place]} and {option} must be different files, got {path} for both")
        seen[place] = option


def _needed(inputs: Mapping[str, ModelFile | Path | None]) -> Iterator[tuple[str, Path]]:
    """Every file that is read, or belongs to one that is, and what to call it."""
    for name, given in inputs.items():
        if isinstance(given, Path):
            yield name, given
        elif given is not None:
            yield name, given.path
            if given.path.suffix == ".safetensors":  # what a run left beside it, or would have left
                yield f"the record of {name}", given.path.with_suffix(".json")
                if given.path.name == "last.safetensors":
                    yield f"the record of {name}", given.path.with_name("student.json")
                yield f"the metrics of {name}", given.path.with_name("metrics.jsonl")
            code = (given.arch or "").rpartition(":")[0]
            if code.endswith(".py"):
                yield "--arch" if name == "MODEL" else f"{name}-arch", Path(code)


def _same(path: Path, needed: Path) -> bool:
    """One file by two names, through links of either kind."""
    try:
        return path.resolve() == needed.resolve() or path.samefile(needed)
    except (OSError, RuntimeError):  # one of them is not there, or cannot be looked at: whoever reads it will say so
        return False


def _is_of(data: DataSettings, path: Path) -> bool:
    """Whether the file is the images' archive, or one in their folder that is no text, as all results are."""
    try:
        for root in (data.data, data.data_dir):
            place = None if root is None else Path(root).expanduser()
            if place is not None and place.is_file() and path.samefile(place):
                return True
            if place is not None and place.is_dir() and path.resolve().is_relative_to(place.resolve()):
                return _is_no_text(path)
    except (OSError, RuntimeError):  # as above
        return False
    return False


def _is_no_text(path: Path) -> bool:
    """Whether it holds what no text has; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(4096)
    except OSError:
        return False
