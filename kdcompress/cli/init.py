"""kdcompress init."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import OUTPUT, Format
from kdcompress.cli.output import emit, watched
from kdcompress.cli.places import refuse_places
from kdcompress.errors import UsageError
from kdcompress.files import write_whole


def init(
    teacher: options.Teacher,
    data: options.Data,
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    out: Annotated[Path, typer.Option(help="The file to write.", rich_help_panel=OUTPUT)] = Path("run.toml"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.", rich_help_panel=OUTPUT)
    ] = False,
    format: options.FormatOption = Format.table,
) -> None:
    """Write a commented file of options for a teacher and data, to be filled in and given to --config.

    Example:

        kdcompress init --teacher robust.pt --data cifar10/
    """
    with boundary():
        refuse_places({"--out": out}, {"--teacher": teacher})
        if out.exists() and not overwrite:
            raise UsageError(f"--out {out} is there already; name another file, or add --overwrite")
        from kdcompress.starting import starting_options

        with watched() as listener:
            text = starting_options(teacher, data, data_dir, image_size, listener=listener)
        try:
            write_whole(out, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written ({error.strerror or error})") from error
        then = [f"kdcompress {command} --config {out}" for command in ("distill", "evaluate")]
        result = {"file": str(out), "open_lines": text.count("# FILL IN"), "then": then}
        emit(json.dumps(result, indent=2), _told(result), format)


def _told(result: dict[str, Any]) -> Text:
    open_lines = result["open_lines"]
    filling = f"; {open_lines} {'line says' if open_lines == 1 else 'lines say'} FILL IN" if open_lines else ""
    return Text(f"{result['file']} is written{filling}\nthen: {' && '.join(result['then'])}")
