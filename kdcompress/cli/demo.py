"""kdcompress demo."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import MEASURES, OUTPUT, Format
from kdcompress.cli.output import deliver, watched
from kdcompress.cli.places import refuse_places
from kdcompress.errors import EXIT_GATE_MISSED
from kdcompress.settings import DemoSettings, EvaluationSettings, RunSettings


def demo(
    images: Annotated[
        int, typer.Option(min=1, max=360, help="Test images to attack, of 360.", rich_help_panel=MEASURES)
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of both distillations.", rich_help_panel=MEASURES)] = 0,
    device: Annotated[
        str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.", rich_help_panel=MEASURES)
    ] = options.default(RunSettings, "device"),
    report: Annotated[Path | None, typer.Option(help="Write the JSON report here.", rich_help_panel=OUTPUT)] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the result into this PNG or SVG file.", rich_help_panel=OUTPUT)
    ] = None,
    format: options.FormatOption = Format.table,
) -> None:
    """Distil a shipped robust teacher twice, as KD and as KDIGA, and attack all three: minutes, on two CPU cores.

    Exit code 0: the KDIGA student kept 70% of the teacher's robust accuracy. 1: it did not. 2: could not run.

    Example:

        kdcompress demo --picture demo.png
    """
    with boundary():
        refuse_places({"--report": report, "--picture": picture}, {})
        if picture is not None:
            from kdcompress.render.plots import refuse_format

            refuse_format(picture)
        run = DemoSettings().run.model_copy(update={"seed": seed, "device": device})
        settings = DemoSettings(
            run=RunSettings.of(**run.model_dump()),
            evaluation=EvaluationSettings.of(images=images, certify_images=0, device=device),
        )
        from kdcompress.demo import demo as demonstrated
        from kdcompress.render.console import demonstration

        with watched() as listener:
            result = demonstrated(settings, listener=listener)
        text = result.model_dump_json(indent=2)
        files = {report: f"{text}\n".encode()}
        if picture is not None:
            from kdcompress.render.plots import draw_accuracies

            files[picture] = draw_accuracies(result, picture.suffix)
        deliver(text, demonstration(result), format, files)
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
