"""`kdcompress` and `python -m kdcompress`."""

import gc
import os
import sys

import typer

from kdcompress.cli.commands import Commands
from kdcompress.errors import EXIT_INTERRUPTED

app = typer.Typer(
    name="kdcompress",
    cls=Commands,
    help="Compress a robust network into a small timm student, and prove what was kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    show_version: bool = typer.Option(
        False, "--version", help="Print the versions that can move a figure, and stop.", is_eager=True
    ),
) -> None:
    """Options before a command."""
    if show_version:
        from kdcompress.versions import versions

        typer.echo(", ".join(f"{name} {number}" for name, number in versions(first="kdcompress").items()))
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    gc.disable()  # until a command begins: help and refusals only import, and answer in .29 s for .31
    try:
        app()
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:
            # An interrupt that fell into an import may have left a mark by which Python would end itself with the
            # signal in place of our exit code. All there was to clean up is cleaned up by now.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
