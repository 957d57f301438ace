"""The commands, each imported when it is asked for; and what is typed wrong, answered in one line with exit code 2."""

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from kdcompress.cli.signatures import TYPED
from kdcompress.errors import EXIT_CANNOT_RUN, UsageError

SUMMARIES = {
    "distill": "Train a small timm student that keeps a robust teacher's robustness (KDIGA unless --recipe says "
    "otherwise).",
    "prune": "Take channels from a trained student, and let its teacher teach what is left again (KDIGA, as distill "
    "does).",
    "train": "Train any timm network robustly without a teacher, for those who have none.",
    "evaluate": "Report clean, robust (AutoAttack) and certified accuracy of a model, beside its teacher if named; "
    "judge gates.",
    "certify": "Report certified radii of a model and its teacher, each kind by itself, and audit the paper's "
    "propositions.",
    "compare": "Put reports side by side, and each against the first: what was lost, with its interval; judge gates.",
    "export": "Write a network for a runtime, its normalisation inside, and check that the file answers as the network "
    "does.",
    "inspect": "Say what a model file is: architecture, classes, normalisation, what is missing, and the command line "
    "to use.",
    "init": "Write a commented file of options for a teacher and data, to be filled in and given to --config.",
    "demo": "Distil a shipped robust teacher twice, as KD and as KDIGA, and attack all three: minutes, on two CPU "
    "cores.",
    "bench": "Time a step of KD, KDIGA in each mode, PGD-10 distillation and the published style, side by side.",
    "plan": "Say what a distillation will take on so many GPUs, before any is rented: memory, hours, cores, and what "
    "to set.",
}
"""The first paragraph of each command's docstring: `kdcompress --help` shows them all and imports none of the
commands, which halves the time that it takes (.14 s for .29, medians of 15 by turns, 2026-11-29)."""

Misuse: Any = typer.BadParameter.__mro__[2]
"""The parser's own base class of such errors; typer hands out only some of its children."""


class _Offered(Mapping[str, TyperCommand]):
    """Every command by its name, imported when it is looked up."""

    def __getitem__(self, name: str) -> TyperCommand:
        if name not in SUMMARIES:
            raise KeyError(name)
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


@cache
def _command(name: str) -> TyperCommand:
    from kdcompress.cli.configured import configured

    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name, cls=_Command)(configured(getattr(import_module(f"kdcompress.cli.{name}"), name)))
    command = cast(TyperCommand, typer.main.get_command(alone))
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""  # it takes no value
        elif getattr(parameter, "multiple", False) and parameter.metavar is None:
            parameter.metavar = "KEY=VALUE"
        elif parameter.param_type_name == "argument":
            parameter.metavar = str(parameter.name).upper()
    return command


class _Command(TyperCommand):
    """One of them, which takes no empty text: a path of no letters would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        ctx.meta[TYPED] = _typed(options)
        with_values = {word for one in self.params if not getattr(one, "is_flag", False) for word in one.opts}
        for before, typed in zip(["", *args], args, strict=False):
            option, equals, value = typed.partition("=")
            if typed in options and option in with_values and equals and not value:
                self._refuse_empty(ctx, option)
            elif not typed:
                self._refuse_empty(ctx, before if before in with_values and before.startswith("-") else "an argument")
        return super().parse_args(ctx, args)

    def _refuse_empty(self, ctx: Any, called: str) -> None:
        if not ctx.resilient_parsing:  # where a shell completes what is half typed
            raise UsageError(f"{called} is empty; is a variable of the shell not set?")


def _typed(args: list[str]) -> dict[str, str]:
    """Options as typed, called as fields, with what follows them."""
    found = {}
    for word, after in zip(args, [*args[1:], ""], strict=False):
        if word.startswith("--"):
            option, equals, value = word[2:].partition("=")
            found[option.replace("-", "_")] = value if equals else after
    return found


class Commands(TyperGroup):
    """The commands of the program, without the parser's boxes of several lines."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast(Any, _Offered())
        for option in self.params:
            option.metavar = ""  # all of them are flags

    def _in_brief(self) -> TyperGroup:
        """The same with the commands' first paragraphs alone."""
        brief = [TyperCommand(name=name, help=said) for name, said in SUMMARIES.items()]
        return TyperGroup(name=self.name, commands=brief, help=self.help, params=self.params)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Without importing the commands."""
        self._in_brief().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Without importing the commands."""
        return self._in_brief().shell_complete(ctx, incomplete)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and leave with its exit code."""
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except UsageError as error:  # of a file of options, or of the environment
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            code = EXIT_CANNOT_RUN
        except Misuse as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # the help is its message, or was printed already
                typer.echo(error.format_message(), nl=False)
            else:
                typer.echo(_line(error), err=True)
            code = EXIT_CANNOT_RUN
        except OSError as error:  # of a help or of the versions, which no command prints
            if error.filename is not None:
                raise
            from kdcompress.cli.output import unwritten

            unwritten(error)
            code = EXIT_CANNOT_RUN
        sys.exit(code)


def _line(error: Any) -> str:
    from pydantic import ValidationError

    from kdcompress.cli.configured import FROM
    from kdcompress.settings import in_words

    said = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        said = f"{error.param.opts[0]}: {in_words(error.__cause__.errors()[0])}"
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is not None and parameter is not None:
        whence = context.meta.get(FROM, {}).get(parameter.name)
        said += f" (from {whence})" if whence else ""
    said += " See" if said.endswith("?") else "; see"
    command = context.command_path if context else "kdcompress"
    return f"error: {said[0].lower()}{said[1:]} '{command} --help'"
