"""Whether two runs are one: what decides how a run goes, by the options that say it."""

import hashlib
from pathlib import Path

import torch

from kdcompress.data import Data
from kdcompress.devices import device_name
from kdcompress.progress import Listener
from kdcompress.settings import TeachingSettings, TrainSettings
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
    """The record of the run in `out`, if it is one of these settings."""
    try:
        record = RunRecord.model_validate_json((out / "student.json").read_bytes())
        same = options_of(type(settings)(**record.settings)) == options_of(settings)
    except (OSError, ValueError):
        return None
    if not same:
        return None
    listener.note(f"--resume: the run in {out} is finished")
    return record


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
