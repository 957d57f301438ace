"""Whether two runs are one: what decides how a run goes, by the options that say it."""

import hashlib
import tomllib
from pathlib import Path

import torch

from kdcompress.data import Data
from kdcompress.devices import device_name
from kdcompress.progress import Listener
from kdcompress.settings import DistillSettings, PruneSettings, TeachingSettings, TrainSettings
from kdcompress.settings.config import named
from kdcompress.training.ingredients import training_split
from kdcompress.training.run_record import RunRecord
from kdcompress.training.state import Facts
from kdcompress.versions import versions

NOT_ASKED = {"--device", "--checkpoint-every", "--teacher", "--student-weights", "--data", "--data-dir", "--cache-dir"}
"""Options that decide nothing, or name files that may have moved: these are told by what is in them."""


def identity(
    settings: TeachingSettings | TrainSettings, data: Data, device: torch.device, **files: str | None
) -> Facts:
    """By option, what decides how a run goes; `where` tells its last bits.

    Args:
        files: sha256 of the files that options name, by option.
    """
    images = training_split(data)
    names = hashlib.sha256("\n".join((*data.classes, *images.ids)).encode("utf-8", "backslashreplace"))
    names.update(images.labels.numpy().tobytes())
    found = {"--data": f"{len(images)} images, {names.hexdigest()[:12]}"}
    found |= {f"--{name}": f"sha256 {sha256[:12]}" for name, sha256 in files.items() if sha256 is not None}
    return options_of(settings) | found | {"where": {"device": device_name(device), "versions": versions()}}


def finished(out: Path, settings: TeachingSettings | TrainSettings, listener: Listener) -> RunRecord | None:
    """The record of the run in `out`, if it is one of these settings, from these files; what differs is said.

    Images are told by the place of their folder: what is in it is not read for a run that is finished. A file that is
    gone since is taken to have been the one.
    """
    try:
        record = RunRecord.model_validate_json((out / "student.json").read_bytes())
        was = options_of(type(settings)(**record.settings))
        ((_, ran),) = tomllib.loads((out / "run.toml").read_text(encoding="utf-8")).items()
    except (OSError, ValueError):
        return None
    asked = options_of(settings)
    if record.gradient is not None and asked["--iga-mode"] == record.gradient.mode:
        asked["--iga-mode"] = was["--iga-mode"]  # run.toml names what was chosen
    was |= _told(record) | {"--data-dir": ran.get("data-dir")}
    if "data" in ran:  # a name that is no UTF-8 cannot stand there
        was["--data"] = ran["data"]
    if isinstance(settings, PruneSettings):
        del asked["--student"]  # by what is in it
    asked |= _files(settings)
    for option in asked:
        if option in was and was[option] != asked[option]:
            listener.note(f"--resume: the run in {out} is another: {option} was {was[option]}, got {asked[option]}")
            return None
    listener.note(f"--resume: the run in {out} is finished")
    return record


def _told(record: RunRecord) -> Facts:
    """The files that a run was made from, by what was in them."""
    student = ("--student", record.pruned.sha256) if record.pruned else ("--student-weights", record.started_from)
    found = dict([student, ("--teacher", record.teacher and record.teacher.sha256)])
    return {option: f"sha256 {sha256[:12]}" if sha256 else None for option, sha256 in found.items()}


def _files(settings: TeachingSettings | TrainSettings) -> Facts:
    """The same of what is named now and is there, and where the images are."""
    folder, student = settings.data.data_dir, starting_weights(settings)
    place = None if folder is None else str(folder.resolve())
    found: Facts = {"--data": named(settings.data.data), "--data-dir": place}
    option = "--student" if isinstance(settings, PruneSettings) else "--student-weights"
    if student is None:
        found[option] = None
    teacher = settings.teacher.path if isinstance(settings, TeachingSettings) else None
    for name, path in ((option, student), ("--teacher", teacher)):
        if path is not None and path.is_file():
            found[name] = f"sha256 {sha256_of(path)[:12]}"
    return found


def starting_weights(settings: TeachingSettings | TrainSettings) -> Path | None:
    """The file that the student's weights come from; None where they are fresh."""
    if isinstance(settings, PruneSettings):
        return settings.student
    return settings.student_weights if isinstance(settings, DistillSettings) else None


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def options_of(settings: TeachingSettings | TrainSettings) -> Facts:
    """`--option`: value, of all that decide something."""
    found: Facts = {}
    for name, value in settings.model_dump(mode="json").items():
        if name in ("teacher", "surrogate"):
            found |= {f"--teacher-{field}": of for field, of in value.items() if field != "path"}
        elif isinstance(value, dict) and name not in ("student_args", "model_args"):
            found |= {_option(field): of for field, of in value.items()}
        else:
            found[_option(name)] = value
    return {option: value for option, value in found.items() if option not in NOT_ASKED}


def _option(name: str) -> str:
    return "--" + name.removesuffix("s" if name.endswith("_args") else "").replace("_", "-")
