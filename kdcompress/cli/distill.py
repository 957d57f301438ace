"""kdcompress distill."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.loss_options import Minimised
from kdcompress.cli.options import STUDENT
from kdcompress.cli.signatures import taking
from kdcompress.cli.training_options import Memory, Teaching, Training, of_teaching, run_in_folder
from kdcompress.settings import DistillSettings


@taking(Teaching, Minimised, Memory, Training)
def distill(
    student: options.Student,
    student_arg: options.StudentArg = None,
    student_stride: options.StudentStride = None,
    student_weights: Annotated[
        Path | None,
        typer.Option(
            help="Starting weights, in a safetensors or torch file; behind its normalisation. Default: fresh.",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    **asked: Any,
) -> None:
    """Train a small timm student that keeps a robust teacher's robustness (KDIGA unless --recipe says otherwise).

    Examples:

        kdcompress distill --teacher robust.pt --teacher-mean 0.49,0.48,0.45 \\
            --teacher-std 0.25,0.24,0.26 --student resnet18 --data cifar10/ \\
            --eps 8/255 --out student/
        kdcompress distill --config student/run.toml --epochs 60 --out longer/
    """
    from kdcompress.models.arguments import parse_arguments

    with boundary():
        settings = DistillSettings.of(
            student=student,
            student_args=parse_arguments(student_arg or [], "--student-arg"),
            student_stride=student_stride,
            student_weights=student_weights,
            **of_teaching(asked),
        )
        from kdcompress.training import runs

        run_in_folder(runs.distill, settings, asked)
