"""kdcompress train."""

from typing import Annotated, Any

import typer

from kdcompress.cli import loss_options, options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import TRAINING, choice, default
from kdcompress.cli.signatures import taking
from kdcompress.cli.training_options import Training, of_training, run_in_folder
from kdcompress.settings import TrainSettings


@taking(Training)
def train(
    model: options.Student,
    recipe: Annotated[
        str,
        choice(
            TrainSettings,
            "recipe",
            TRAINING,
            "at: PGD adversarial training (Madry et al. 2018); trades (Zhang et al. 2019); fast: one step from a "
            "random start (Wong et al. 2020); noise: on noisy images (Cohen et al. 2019), with --noise-sigma.",
        ),
    ] = default(TrainSettings, "recipe"),
    attack_steps: Annotated[
        int | None,
        typer.Option(help="PGD steps of the inner attack. Default: at 7, trades 10, fast 1.", rich_help_panel=TRAINING),
    ] = None,
    beta: Annotated[float, typer.Option(help="Weight of trades's KL term.", rich_help_panel=TRAINING)] = default(
        TrainSettings, "beta"
    ),
    label_smoothing: loss_options.LabelSmoothing = default(TrainSettings, "label_smoothing"),
    model_arg: options.StudentArg = None,
    model_stride: options.StudentStride = None,
    **asked: Any,
) -> None:
    """Train any timm network robustly without a teacher, for those who have none.

    Example:

        kdcompress train --recipe at --model resnet18 --data cifar10/ \\
            --eps 8/255 --out teacher/
    """
    from kdcompress.models.arguments import parse_arguments

    with boundary():
        settings = TrainSettings.of(
            recipe=recipe,
            model=model,
            model_args=parse_arguments(model_arg or [], "--model-arg"),
            model_stride=model_stride,
            attack_steps=attack_steps,
            beta=beta,
            label_smoothing=label_smoothing,
            **of_training(asked),
        )
        from kdcompress.training import runs

        run_in_folder(runs.train, settings, asked)
