"""kdcompress inspect."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import Format
from kdcompress.cli.output import deliver
from kdcompress.cli.places import refuse_places


def inspect(
    file: Annotated[Path, typer.Argument(help="A model file of any kind: safetensors or torch.")],
    report: options.Report = None,
    format: options.FormatOption = Format.table,
) -> None:
    """Say what a model file is: architecture, classes, normalisation, what is missing, and the command line to use.

    Nothing in the file is executed.

    Example:

        kdcompress inspect robust.pt
    """
    with boundary():
        refuse_places({"--report": report}, {"FILE": file})
        from kdcompress.models.inspection import inspect as looked_at
        from kdcompress.render.inspection import inspected

        found = looked_at(file)
        text = found.model_dump_json(indent=2)
        deliver(text, inspected(found), format, {report: f"{text}\n".encode()})
