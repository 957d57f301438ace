"""kdcompress prune."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcompress.cli.boundary import boundary
from kdcompress.cli.loss_options import Minimised
from kdcompress.cli.options import STUDENT, default
from kdcompress.cli.signatures import taking
from kdcompress.cli.training_options import Memory, Teaching, Training, of_teaching, run_in_folder
from kdcompress.settings import PruneSettings


@taking(Teaching, Minimised, Memory, Training)
def prune(
    student: Annotated[Path, typer.Argument(help="A student that kdcompress trained: student.safetensors.")],
    ratio: Annotated[
        float,
        typer.Option(
            help="Share of the student's multiply-accumulates to take, by narrowing every layer alike.",
            rich_help_panel=STUDENT,
        ),
    ] = default(PruneSettings, "ratio"),
    **asked: Any,
) -> None:
    """Take channels from a trained student, and let its teacher teach what is left again (KDIGA, as distill does).

    Example:

        kdcompress prune student/student.safetensors --ratio 0.5 \\
            --teacher teacher.safetensors --data cifar10/ --eps 8/255 \\
            --epochs 10 --out smaller/
    """
    with boundary():
        settings = PruneSettings.of(student=student, ratio=ratio, **of_teaching(asked))
        from kdcompress.training import runs

        run_in_folder(runs.prune, settings, asked)
