"""kdcompress init."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import OUTPUT
from kdcompress.cli.output import stderr
from kdcompress.errors import UsageError
from kdcompress.files import write_whole


def init(
    teacher: options.Teacher,
    data: options.Data,
    data_dir: options.DataDir = None,
    out: Annotated[Path, typer.Option(help="The file to write.", rich_help_panel=OUTPUT)] = Path("run.toml"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Write a commented file of options for a teacher and data, to be filled in and given to --config.

    Example: kdcompress init --teacher robust.pt --data cifar10/
    """
    with boundary():
        if out.exists() and not overwrite:
            raise UsageError(f"--out {out} is there already; name another file, or add --overwrite")
        from kdcompress.render.progress import listening
        from kdcompress.starting import starting_options

        with listening(stderr()) as listener:
            text = starting_options(teacher, data, data_dir, listener=listener)
        try:
            write_whole(out, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written ({error.strerror or error})") from error
        open_lines = text.count("# FILL IN")
        typer.echo(f"{out} is written" + (f"; {open_lines} lines say FILL IN" if open_lines else ""))
        typer.echo(f"then: kdcompress distill --config {out} && kdcompress evaluate --config {out}")
