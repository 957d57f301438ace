"""What is typed wrong is answered as everything else is: in one line, with exit code 2."""

import sys
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from kdcompress.errors import EXIT_CANNOT_RUN, UsageError
from kdcompress.settings import in_words

Misuse: Any = typer.BadParameter.__mro__[2]
"""The parser's own base class of such errors; typer hands out only some of its children."""


class Commands(TyperGroup):
    """The commands of the program, without the parser's boxes of several lines."""

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
        sys.exit(code)


def _line(error: Any) -> str:
    said = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        said = f"{error.param.opts[0]}: {in_words(error.__cause__.errors()[0])}"
    said += " See" if said.endswith("?") else "; see"
    command = error.ctx.command_path if getattr(error, "ctx", None) else "kdcompress"
    return f"error: {said[0].lower()}{said[1:]} '{command} --help'"
