"""Options from a file and from the environment, under those that are typed.

    typed > KDCOMPRESS_OPTION in the environment > [COMMAND] in the file > what stands in the file above any table

A file may serve several commands: what stands above its tables is for every command that has such an option. There and
in the environment `format = "json"` is export's --json, whose --format is the file's.
"""

import gc
import inspect
import json
import os
import tomllib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from kdcompress.cli.boundary import boundary
from kdcompress.cli.output import QUIET, VERBOSE, speaks
from kdcompress.cli.signatures import TYPED, with_options
from kdcompress.errors import UsageError, did_you_mean

PREFIX = "KDCOMPRESS_"
ANOTHERS = {("export", "format"): {"json": ("json", True), "table": ("json", False)}}
"""(command, option) -> words that, said for all commands, mean another of its options than the one of that name."""


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """The command with --config, where and in the environment its options may stand as well, --quiet and --verbose."""

    @wraps(command)
    def with_more(
        context: typer.Context, config: Path | None, quiet: bool, verbose: bool, **options: Any
    ) -> None:  # `config` has been read before the others were looked at
        gc.enable()  # see kdcompress.__main__
        with boundary():
            if quiet and verbose:
                raise UsageError("--quiet and --verbose ask for opposite things; leave one of them out")
            _refuse_code(context)
            _refuse_to_replace(config, options)
            if speaks() and not quiet:
                typer.echo("".join(f"note: {line}\n" for line in context.meta.get(ASIDE, ())), err=True, nl=False)
        tokens = QUIET.set(quiet), VERBOSE.set(verbose)
        try:
            if verbose:
                typer.echo("\n".join(_origins(context)), err=True)
            command(**options)
        finally:
            QUIET.reset(tokens[0])
            VERBOSE.reset(tokens[1])

    more = {
        "context": (typer.Context, inspect.Parameter.empty),
        **{"config": (Config, None), "quiet": (Quiet, False), "verbose": (Verbose, False)},
    }
    return with_options(command, with_more, more)


def _refuse_to_replace(config: Path | None, options: Mapping[str, Any]) -> None:
    """The file of options may not be where a result goes."""
    for name in ("report", "html", "markdown", "card", "junit", "table", "picture", "out"):
        place = options.get(name)
        if config is not None and isinstance(place, Path) and place.exists() and place.samefile(config):
            raise UsageError(f"--{name} {place} would take the place of --config; name another file")


CODE = "kdcompress.code"
"""In a context's `meta`: options that a report asks for and that name a function, which would be run."""


def _is_code(option: str, value: Any) -> bool:
    return option.endswith("arch") and ":" in str(value)


def _refuse_code(context: typer.Context) -> None:
    """Whoever wrote a report could have written any function into it: only the user may start code."""
    for name, value in context.meta.get(CODE, {}).items():
        if getattr(context.get_parameter_source(name), "name", None) == "DEFAULT_MAP":
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option}: the report in --config names the function {value}, which would be run; type {option} "
                f"{value} where you trust it"
            )


FROM = "kdcompress.from"
"""In a context's `meta`: where the values of options come from that were not typed."""


def _origins(context: typer.Context) -> Iterator[str]:
    """A line for each option that has not its default: its value, and who said so."""
    yield f"kdcompress {context.info_name}: what is not listed here has its default"
    elsewhere = context.meta.get(FROM, {})
    for parameter in context.command.params:
        name = str(parameter.name)
        source = getattr(context.get_parameter_source(name), "name", None)
        if name in ("config", "verbose"):
            continue
        if (whence := "typed" if source == "COMMANDLINE" else elsewhere.get(name)) is not None:
            value = context.params.get(name)
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            yield f"  {max(parameter.opts, key=len)} {shown}: {whence}"


def _read(context: typer.Context, config: Path | None) -> Path | None:
    with boundary():
        _set_defaults(context, config)
    return config


def _set_defaults(context: typer.Context, config: Path | None) -> None:
    """Of the options that are not typed, from the file and the environment."""
    if config is None and not any(name.startswith(PREFIX) for name in os.environ):
        return
    commands: Mapping[str, Any] = getattr(context.parent and context.parent.command, "commands", {})
    command, name = context.command, str(context.info_name)
    everywhere = {option for one in commands.values() for option in names_of(one)}
    own = names_of(command)
    several = {one.name for one in command.params if one.nargs == -1 or getattr(one, "multiple", False)}
    set_ = from_environment(os.environ, name, own, everywhere, several)
    if config is None:
        filed = {}
    elif config.suffix == ".json":
        filed = from_report(config, command)
        context.meta[CODE] = {option: value for option, value in filed.items() if _is_code(option, value)}
    else:
        filed = from_file(config, name, own, everywhere, commands)
    filed = _without_what_follows(context, filed, own, set_, str(config))
    flags = {one.name for one in command.params if getattr(one, "is_flag", False)}
    for option, value in filed.items():
        if isinstance(value, bool) and option not in flags:
            raise UsageError(f"--config {config}: {option.replace('_', '-')} takes a value, got {str(value).lower()}")
    context.default_map = {
        option: [value] if option in several and not isinstance(value, list) else value
        for option, value in (filed | set_).items()
    }
    context.meta[FROM] = dict.fromkeys(filed, str(config)) | {
        option: (f"{PREFIX}{option.upper()} in " if PREFIX + option.upper() in os.environ else "") + "the environment"
        for option in set_
    }


ASIDE = "kdcompress.aside"
"""In a context's `meta`: what of a file was left aside, and why, a line each."""


def _without_what_follows(
    context: typer.Context, filed: dict[str, Any], own: Mapping[str, str], set_: Mapping[str, Any], file: str
) -> dict[str, Any]:
    """The file's values, but for those that belong to a recipe (...) of the file's where another is asked for."""
    from kdcompress.settings.followers import overruled

    typed = {own[name]: value for name, value in context.meta.get(TYPED, {}).items() if name in own}
    asked = {**set_, **typed}
    found = overruled(filed, asked)
    context.meta[ASIDE] = [
        f"--{_dashed(option)} is {asked[option]}, not {filed[option]} as in {file}, which leaves aside what it says of "
        + ", ".join(f"--{_dashed(name)}" for name in gone if name not in asked)
        for option, gone in found.items()
        if any(name not in asked for name in gone)
    ]
    aside = {name for gone in found.values() for name in gone}
    return {name: value for name, value in filed.items() if name not in aside}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of options: epochs = 30 is --epochs 30. evaluate, certify and export also take a JSON report "
        "of theirs, to run it again. What is typed counts before it, and in between KDCOMPRESS_EPOCHS=30 in the "
        "environment.",
        metavar="FILE",
        is_eager=True,
        callback=_read,
    ),
]


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Write the result, and errors, and nothing of what goes on meanwhile.")
]

Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Say also where each option comes from, what is read and kept, and an error's traceback.",
    ),
]


def names_of(command: Any) -> dict[str, str]:
    """How an option may be called, with dashes or underscores alike -> its parameter's name."""
    return {
        word.lstrip("-").replace("-", "_"): one.name
        for one in command.params
        for word in (*one.opts, one.name)
        if one.name not in ("config", "help")
    }


def from_file(
    path: Path, command: str, own: Mapping[str, str], everywhere: Iterable[str], commands: Iterable[str]
) -> dict[str, Any]:
    """Values for `command`'s parameters.

    Raises:
        UsageError: if the file cannot be read, or asks for what no command has.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            f'--config {path}: expected TOML, such as epochs = 30 or data = "cifar10/": {error}'
        ) from error
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    for table in tables:
        if table not in commands:
            raise UsageError(
                f"--config {path}: expected tables named as commands, got [{table}]{did_you_mean(table, commands)}"
            )
    shared = _meant_here({name: value for name, value in content.items() if name not in tables}, command)
    above = _known(shared, own, everywhere, f"--config {path}: no command has an option")
    mine = _known(tables.get(command, {}), own, own, f"--config {path}: kdcompress {command} has no option")
    return above | mine


def from_report(path: Path, command: Any) -> dict[str, Any]:
    """Values for `command`'s parameters, from the settings in a report that it wrote.

    Raises:
        UsageError: if the file cannot be read, or is a report of another command.
    """
    from kdcompress.settings.config import of_report

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        defaults = {str(one.name): one.default for one in command.params}
        options = of_report(content if isinstance(content, dict) else {}, str(command.name), defaults)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except UsageError as error:
        raise UsageError(f"--config {path}: {error}") from error
    own = names_of(command)
    return {own[plain]: value for name, value in options.items() if (plain := name.replace("-", "_")) in own}


def from_environment(
    variables: Mapping[str, str],
    command: str,
    own: Mapping[str, str],
    everywhere: Iterable[str],
    several: Container[str],
) -> dict[str, Any]:
    """Values of KDCOMPRESS_... for `command`'s parameters.

    One of `several`, which may be given several times, is split at spaces.

    Raises:
        UsageError: for a name that no command has.
    """
    asked = {name.removeprefix(PREFIX).lower(): value for name, value in variables.items() if name.startswith(PREFIX)}
    asked = _meant_here(asked, command)
    found = _known(asked, own, everywhere, f"the environment's {PREFIX}...: no command has an option")
    return {name: value.split() if name in several else value for name, value in found.items()}


def _meant_here(asked: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What is said for all commands, in this one's words."""
    found = dict[str, Any]()
    for name, value in asked.items():
        words = ANOTHERS.get((command, name), {})
        if isinstance(value, str) and value in words:
            found.setdefault(*words[value])
        else:
            found[name] = value
    return found


def _known(asked: Mapping[str, Any], own: Mapping[str, str], allowed: Iterable[str], complaint: str) -> dict[str, Any]:
    found = {}
    allowed = set(allowed)
    for name, value in asked.items():
        plain = name.replace("-", "_")
        if plain not in allowed:
            near = did_you_mean(name, [one.replace("_", "-") for one in allowed])
            raise UsageError(f"{complaint} {name}{near}")
        if value == "":
            raise UsageError(f"{complaint.rpartition(': ')[0]}: {name} is empty; leave it out where it is not meant")
        if isinstance(value, dict):
            raise UsageError(f"{complaint} {name} with a table of values; write key=value texts in a list")
        if plain in own:
            found[own[plain]] = value
    return found
