"""Settings as the options that would ask for them, and as a file of those: what a run leaves to be run again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdcompress.settings.base import Settings
from kdcompress.settings.inputs import ModelFile

Options = dict[str, Any]
"""By option without its dashes: a text, a number, a flag, or a list of texts where it is given several times."""

_PYTHON_ONLY = {"labels_at", "soft_labels_at", "trust_power", "check_images", "min_pgd_share", "max_remainder"}
"""Fields that no option sets: the recipe's, and thresholds."""


def as_options(settings: Settings) -> Options:
    """Every option that asks for these settings, those left to their defaults included.

    Paths are absolute, so that the file can be used from another folder.
    """
    found: Options = {}
    for name, value in settings:
        if value is None or name in _PYTHON_ONLY:
            continue
        if isinstance(value, ModelFile):
            found |= _of_a_file(name, value)
        elif isinstance(value, Settings):
            found |= as_options(value)
        elif isinstance(value, Mapping):
            if value:
                found[_option(name.removesuffix("s"))] = _pairs(value)
        elif name == "data":
            found["data"] = str(Path(value).resolve()) if Path(value).expanduser().exists() else value
        else:
            found[_option(name)] = str(value.resolve()) if isinstance(value, Path) else value
    return found


def as_toml(command: str, options: Options) -> str:
    """A file that `kdcompress COMMAND --config FILE` reads."""
    lines = [f"# kdcompress {command} --config FILE", "", f"[{command}]"]
    lines += [f"{name} = {_written(value)}" for name, value in options.items()]
    return "\n".join(lines) + "\n"


def _of_a_file(role: str, file: ModelFile) -> Options:
    found: Options = {role: str(file.path.resolve())}
    if file.arch is not None:
        found[f"{role}-arch"] = file.arch
    if file.args:
        found[f"{role}-arg"] = _pairs(file.args)
    for name, value in (("mean", file.mean), ("std", file.std)):
        if value is not None:
            found[f"{role}-{name}"] = value if isinstance(value, str) else ",".join(map(repr, value))
    return found


def _pairs(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in arguments.items()]


def _option(name: str) -> str:
    return name.replace("_", "-")


def _written(value: Any) -> str:
    """As TOML, whose texts and lists of texts are JSON's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else json.dumps(value)
