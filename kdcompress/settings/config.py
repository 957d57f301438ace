"""Settings as the options that would ask for them, and as a file of those: what a run leaves to be run again.

Reports hold their settings too, and are read here as files of options.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdcompress.errors import UsageError
from kdcompress.settings.base import Settings
from kdcompress.settings.certification import AuditSettings, CertifySettings
from kdcompress.settings.evaluation import EvaluateSettings
from kdcompress.settings.export import ExportSettings
from kdcompress.settings.inputs import ModelFile, is_scheme

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
            found |= _of_a_file("model", value, "") if name in _ARGUMENT else _of_a_file(name, value, f"{name}-")
        elif isinstance(value, Settings):
            found |= as_options(value)
        elif isinstance(value, Mapping):
            if value:
                found[_option(name.removesuffix("s"))] = _pairs(value)
        elif name == "data":
            found["data"] = named(value)
        else:
            found[_option(name)] = str(value.resolve()) if isinstance(value, Path) else value
    return found


def named(data: str) -> str:
    """A folder or file of images by its whole path; built-in ones and schemes, which count before it, as they are."""
    if data == "digits" or is_scheme(data) or not Path(data).exists():
        return data
    return str(Path(data).resolve())


def as_toml(command: str, options: Options, *, besides: Sequence[str] = ()) -> str:
    """A file that `kdcompress COMMAND --config FILE` reads.

    Args:
        besides: what no option asks for, and the file therefore cannot: it says so.
    """
    lines = [f"# kdcompress {command} --config FILE", "", f"[{command}]"]
    if besides:
        lines.insert(1, f"# NOT THE WHOLE RUN, which Python asked for: no option asks for {', '.join(besides)}")
    lines += [line(name, value) for name, value in options.items()]
    return "\n".join(lines) + "\n"


def besides_options(settings: Settings) -> tuple[str, ...]:
    """What of these settings `as_options` cannot say: values that Python gave, and no recipe or default gives."""
    found: list[str] = []
    for _, value in settings:
        if isinstance(value, Settings):
            found += besides_options(value)
    own = [name for name, _ in settings if name in _PYTHON_ONLY]
    if own:
        usual = dict(type(settings).of(**{name: value for name, value in settings if name not in own}))
        found += [f"{name} = {value}" for name, value in settings if name in own and value != usual[name]]
    return tuple(found)


def line(option: str, value: Any) -> str:
    """A line of TOML; a comment where a name has bytes that are no UTF-8, which TOML cannot hold."""
    text = f"{option} = {_written(value)}"
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode("utf-8", "backslashreplace").decode()
        return f"# {shown}  # type --{option}: this name is no UTF-8, and cannot stand here"
    return text


def of_report(content: Mapping[str, Any], asking: str, defaults: Mapping[str, Any]) -> Options:
    """The options that ask for what a JSON report was asked for.

    Args:
        asking: the command that reads it, which must be the one that wrote it.
        defaults: the command's options, called as fields, with what each is where it is not given.

    Raises:
        UsageError: if it is no report of evaluate, certify or export; if it was asked for what no option asks for, as
            Python can.
    """
    command = "certify" if "audit" in content else "export" if "agreements" in content else "evaluate"
    try:
        settings = _JUDGING[command].model_validate(content["settings"])
    except (KeyError, ValidationError) as error:
        raise UsageError(
            "expected a JSON report of kdcompress evaluate, certify or export, or a TOML file of options"
        ) from error
    if command != asking:
        own = f"{asking} reads its own, or" if asking in _JUDGING else f"{asking} reads"
        raise UsageError(f"is a report of kdcompress {command}; {own} a TOML file, such as a run's run.toml")
    found = as_options(settings)
    evaluation = settings.evaluation
    found["masking-checks"] = found.pop("masking")
    if evaluation.keep_dir is None:
        found["fresh"] = True
    if isinstance(settings, EvaluateSettings | CertifySettings):
        found["eps"] = ",".join(map(repr, (settings.threat.eps, *settings.more_eps)))
        if (demand := settings.gates.min_certified_accuracy) is not None:
            found["min-certified-accuracy"] = f"{demand[0]!r}:{demand[1]!r}"
    if isinstance(settings, CertifySettings):
        found["kinds"] = ",".join(settings.kinds)
        found |= as_options(evaluation)  # the audit's seed and batch size are these
        if evaluation.batch_size is None:
            del found["batch-size"]
    lost = [one for one in _lost(settings, defaults) if one.split(" = ")[0] not in _FIXED[command]]
    if isinstance(settings, CertifySettings):
        usual = AuditSettings(seed=evaluation.seed)
        usual = usual.model_copy(update={"batch_size": evaluation.batch_size or usual.batch_size})
        lost += [] if settings.audit == usual else ["this audit"]
        lost += [] if settings.clever.seed == evaluation.seed else [f"clever.seed = {settings.clever.seed}"]
    if lost:
        raise UsageError(f"no option asks for {', '.join(lost)}, as it was made from Python; run it again from there")
    return found


_MAPPED = {"student", "model", "teacher", "surrogate", "data", "more_eps", "kinds", "keep_dir", "audit"}
"""Fields that options ask for under other names or in other ways, or that follow from others."""


_FIXED = {"evaluate": ("masking",), "certify": ("attack",), "export": ("certify_images",)}
"""Fields that a command has an option of another name for, or one value only."""


def _lost(settings: Settings, defaults: Mapping[str, Any]) -> list[str]:
    """What was asked for and no option can ask for: another value than a field's own, or nothing where one assumes."""
    found = []
    for name, value in settings:
        field = type(settings).model_fields[name]
        if isinstance(value, Settings) and not isinstance(value, ModelFile):
            found += _lost(value, defaults) if name not in _MAPPED else []
        elif name in _MAPPED or (name in defaults and (value is not None or defaults[name] is None)):
            continue
        elif name in defaults or value != field.get_default(call_default_factory=True, validated_data={}):
            found.append(f"{name} = {value}")
    return found


_JUDGING: dict[str, type[EvaluateSettings] | type[CertifySettings] | type[ExportSettings]] = {
    "evaluate": EvaluateSettings,
    "certify": CertifySettings,
    "export": ExportSettings,
}
_ARGUMENT = ("student", "model")
"""Fields of a model file that is not named by an option, but stands alone."""


def _of_a_file(role: str, file: ModelFile, prefix: str) -> Options:
    found: Options = {role: str(file.path.resolve())}
    if file.arch is not None:
        found[f"{prefix}arch"] = _whole(file.arch)
    if file.args:
        found[f"{prefix}arg"] = _pairs(file.args)
    for name, value in (("mean", file.mean), ("std", file.std)):
        if value is not None:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else ",".join(map(repr, value))
    return found


def _whole(arch: str) -> str:
    """`file.py:function` by the file's whole path; other names as they are."""
    path, colon, function = arch.rpartition(":")
    return f"{Path(path).resolve()}:{function}" if colon and path.endswith(".py") else arch


def _pairs(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in arguments.items()]


def _option(name: str) -> str:
    return name.replace("_", "-")


def _written(value: Any) -> str:
    """As TOML, whose texts and lists of texts are JSON's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        repr(value)
        if isinstance(value, int | float)
        else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    )
