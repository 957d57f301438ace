"""kdcompress export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.measuring_options import Judged, Kept, of_evaluation, of_images, of_model
from kdcompress.cli.options import DATA, GATES, MEASURES, OUTPUT, THREAT, default
from kdcompress.cli.output import deliver, watched
from kdcompress.cli.places import refuse_places
from kdcompress.cli.signatures import taking
from kdcompress.errors import EXIT_GATE_MISSED
from kdcompress.settings import EvaluationSettings, ExportSettings, ThreatSettings

INT8 = "int8"


class FileFormat(StrEnum):
    """What is written."""

    onnx = "onnx"
    torch_export = "torch-export"


class Exported:
    """What is written, what int8 is asked, and what decides the exit code."""

    out: Annotated[Path, typer.Option(help="The file to write, such as student.onnx.", rich_help_panel=OUTPUT)]
    format: Annotated[
        FileFormat,
        typer.Option("--format", help="What is written: ONNX, or a .pt2 of torch.export.", rich_help_panel=OUTPUT),
    ] = FileFormat.onnx
    opset: Annotated[int, typer.Option(help="ONNX's version of its operations, 18 to 23.", rich_help_panel=OUTPUT)] = (
        default(ExportSettings, "opset")
    )
    images: Annotated[
        int,
        typer.Option(
            help="The first N of a seeded shuffle of the test split: logits are compared on them, and with --int8 they "
            "are attacked.",
            rich_help_panel=DATA,
        ),
    ] = 500
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Round weights and activations to int8, and measure what that did to the robustness: needs --eps.",
            rich_help_panel=INT8,
        ),
    ] = default(ExportSettings, "int8")
    calibration_images: Annotated[
        int, typer.Option(help="Training images that the ranges are read from.", rich_help_panel=INT8)
    ] = default(ExportSettings, "calibration_images")
    norm: options.NormOption = "Linf"
    eps: Annotated[
        str | None,
        typer.Option(
            help="With --int8: radius of the perturbation in pixels of [0,1], such as 8/255.", rich_help_panel=THREAT
        ),
    ] = None
    attack: Annotated[
        str,
        typer.Option(
            help="With --int8, of the float parent and its straight-through copy: as in evaluate; none skips it.",
            autocompletion=options.ATTACKS,
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "attack")
    max_robust_drop: Annotated[
        float | None,
        typer.Option(
            help="With --int8: most robust accuracy lost against the float parent, a fraction: the interval's upper "
            "end decides.",
            rich_help_panel=GATES,
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the result as JSON; --format is the file's here.", rich_help_panel=OUTPUT),
    ] = False


@taking(Judged, Exported, Kept)
def export(
    model: Annotated[Path, typer.Argument(help="The model file: student.safetensors, or any that --arch explains.")],
    **asked: Any,
) -> None:
    """Write a network for a runtime, its normalisation inside, and check that the file answers as the network does.

    With --int8, say whether rounding undid the robustness: both networks under
    attack, on the same images.

    Exit code 0: written, gate met. 1: written, the gate was missed. 2: nothing was written.

    Examples:

        kdcompress export student/student.safetensors --data cifar10/ \\
            --out student.onnx
        kdcompress export student/student.safetensors --data cifar10/ \\
            --int8 --eps 8/255 --max-robust-drop 0.03 --out student.int8.onnx
    """
    with boundary():
        out, eps = asked["out"], asked["eps"]
        settings = ExportSettings.of(
            model=of_model(model, asked),
            data=of_images(asked),
            format=asked["format"].value,
            **{name: asked[name] for name in ("opset", "int8", "calibration_images", "max_robust_drop")},
            threat=None if eps is None else ThreatSettings.of(norm=asked["norm"], eps=eps),
            evaluation=of_evaluation({**asked, "certify_images": 0}),
        )
        refuse_places({"--out": out, "--report": asked["report"]}, {"MODEL": settings.model}, settings.data)
        from kdcompress.export.exporting import export_model
        from kdcompress.render.export import described

        with watched() as listener:
            result = export_model(settings, out, listener=listener)
        text = result.model_dump_json(indent=2)
        deliver(
            text,
            described(result),
            options.Format.json if asked["json"] else options.Format.table,
            {asked["report"]: f"{text}\n".encode()},
        )
        if not result.gates_met:
            raise typer.Exit(EXIT_GATE_MISSED)
