"""Whether two runs are one: what decides how a run goes, by the options that say it."""

import hashlib
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
    """The record of the run in `out`, if it is one of these settings, from these files.

    Images are told by the name of their folder: what is in it is not read for a run that is finished.
    """
    try:
        record = RunRecord.model_validate_json((out / "student.json").read_bytes())
        then = type(settings)(**record.settings)
        was, asked = options_of(then), options_of(settings)
        if record.gradient is not None and asked["--iga-mode"] == record.gradient.mode:
            asked["--iga-mode"] = was["--iga-mode"]  # run.toml names what was chosen
        if was != asked or _images(then) != _images(settings) or _sources_of(record) != _sources(settings):
            return None
    except (OSError, ValueError):
        return None
    listener.note(f"--resume: the run in {out} is finished")
    return record


def _images(settings: TeachingSettings | TrainSettings) -> tuple[str, Path | None]:
    folder = settings.data.data_dir
    return named(settings.data.data), None if folder is None else folder.resolve()


def _sources_of(record: RunRecord) -> dict[str, str]:
    """The files that a run was made from, by what was in them."""
    student = record.started_from if record.pruned is None else record.pruned.sha256
    found = {"teacher": None if record.teacher is None else record.teacher.sha256, "student": student}
    return {name: sha256 for name, sha256 in found.items() if sha256 is not None}


def _sources(settings: TeachingSettings | TrainSettings) -> dict[str, str]:
    """The same of the files that are named now."""
    files: dict[str, Path | None] = {"student": starting_weights(settings)}
    if isinstance(settings, TeachingSettings):
        files["teacher"] = settings.teacher.path
    return {name: sha256_of(path) for name, path in files.items() if path is not None}


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
