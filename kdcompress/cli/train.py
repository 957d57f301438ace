"""kdcompress train."""

from typing import Annotated

import typer

from kdcompress.cli import loss_options, options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import TRAINING, Format, choice, default
from kdcompress.cli.output import emit, speaks, watched
from kdcompress.settings import DataSettings, RunSettings, ThreatSettings, TrainSettings
from kdcompress.tracking import asked_for, tracked


def train(
    model: options.Student,
    data: options.Data,
    eps: options.Eps,
    out: options.Out,
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
    norm: options.NormOption = "Linf",
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
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    train_images: options.TrainImages = None,
    skip_corrupt: options.SkipCorrupt = False,
    epochs: options.Epochs = default(RunSettings, "epochs"),
    batch_size: options.BatchSize = default(RunSettings, "batch_size"),
    schedule: options.Schedule = default(RunSettings, "schedule"),
    optimizer: options.Optimizer = default(RunSettings, "optimizer"),
    lr: options.Lr = None,
    weight_decay: options.WeightDecay = None,
    momentum: options.Momentum = None,
    average: options.AverageOption = default(RunSettings, "average"),
    ema: options.Ema = None,
    swa_start: options.SwaStart = None,
    augment: options.Augment = default(RunSettings, "augment"),
    precision: options.Precision = default(RunSettings, "precision"),
    noise_sigma: options.NoiseSigma = default(RunSettings, "noise_sigma"),
    sync_batchnorm: options.SyncBatchnorm = False,
    seed: options.Seed = default(RunSettings, "seed"),
    device: options.Device = default(RunSettings, "device"),
    log_to: options.LogTo = None,
    checkpoint_every: options.CheckpointEvery = default(RunSettings, "checkpoint_every"),
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    format: options.FormatOption = Format.table,
) -> None:
    """Train any timm network robustly without a teacher, for those who have none.

    Example:

        kdcompress train --recipe at --model resnet18 --data cifar10/ \\
            --eps 8/255 --out teacher/
    """
    asked = dict(locals())  # every option, called as its field
    from kdcompress.models.arguments import parse_arguments

    with boundary():
        trackers = asked_for(log_to or [])
        settings = TrainSettings.of(
            recipe=recipe,
            model=model,
            model_args=parse_arguments(model_arg or [], "--model-arg"),
            model_stride=model_stride,
            data=options.gathered(DataSettings, asked),
            threat=options.gathered(ThreatSettings, asked),
            attack_steps=attack_steps,
            beta=beta,
            label_smoothing=label_smoothing,
            run=options.gathered(RunSettings, asked),
        )
        from kdcompress.render.console import run_summary
        from kdcompress.training import runs

        with watched() as shown, tracked(trackers, out, shown) as listener:
            record = runs.train(settings, out, overwrite=overwrite, resume=resume, listener=listener)
        if speaks():
            emit(record.model_dump_json(indent=2), run_summary(record), format)
