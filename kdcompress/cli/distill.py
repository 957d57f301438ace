"""kdcompress distill."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import loss_options, options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import CACHE, STUDENT, TEACHER, Format, default
from kdcompress.cli.output import emit, speaks, watched
from kdcompress.settings import (
    CacheSettings,
    DataSettings,
    DistillSettings,
    LossSettings,
    RunSettings,
    TeacherCheckSettings,
    ThreatSettings,
)
from kdcompress.tracking import asked_for, tracked


def distill(
    teacher: options.Teacher,
    student: options.Student,
    data: options.Data,
    eps: options.Eps,
    out: options.Out,
    norm: options.NormOption = "Linf",
    teacher_arch: options.TeacherArch = None,
    teacher_arg: options.TeacherArg = None,
    teacher_mean: options.TeacherMean = None,
    teacher_std: options.TeacherStd = None,
    insist: Annotated[
        bool, typer.Option("--insist", help="Go on with a teacher that fails the check.", rich_help_panel=TEACHER)
    ] = False,
    student_arg: options.StudentArg = None,
    student_stride: options.StudentStride = None,
    student_weights: Annotated[
        Path | None,
        typer.Option(help="Starting weights, in a safetensors or torch file. Default: fresh.", rich_help_panel=STUDENT),
    ] = None,
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    train_images: options.TrainImages = None,
    skip_corrupt: options.SkipCorrupt = False,
    recipe: loss_options.Recipe = default(LossSettings, "recipe"),
    ce_weight: loss_options.CeWeight = None,
    kl_weight: loss_options.KlWeight = None,
    clean_weight: loss_options.CleanWeight = None,
    self_weight: loss_options.SelfWeight = None,
    igdm_weight: loss_options.IgdmWeight = None,
    iga_weight: loss_options.IgaWeight = None,
    iga_ramp: loss_options.IgaRamp = default(LossSettings, "iga_ramp"),
    iga_every: loss_options.IgaEvery = default(LossSettings, "iga_every"),
    align: loss_options.Align = default(LossSettings, "align"),
    iga_norm: loss_options.IgaNorm = default(LossSettings, "iga_norm"),
    iga_mode: loss_options.IgaMode = default(LossSettings, "iga_mode"),
    iga_micro_batch: loss_options.IgaMicroBatch = default(LossSettings, "iga_micro_batch"),
    temperature: loss_options.Temperature = None,
    label_smoothing: loss_options.LabelSmoothing = default(LossSettings, "label_smoothing"),
    input_noise: loss_options.InputNoise = None,
    inner_attack: loss_options.InnerAttack = None,
    inner_steps: loss_options.InnerSteps = None,
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
    cache_teacher: Annotated[
        bool,
        typer.Option(
            "--cache-teacher",
            help="Ask the teacher once, of fixed views of the images, and keep what it says for later epochs and runs.",
            rich_help_panel=CACHE,
        ),
    ] = False,
    cache_views: Annotated[
        int | None,
        typer.Option(help="Fixed views of each image (crop, flip, noise). Default: 8.", rich_help_panel=CACHE),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Where they are kept. Default: ~/.cache/kdcompress/views.", rich_help_panel=CACHE),
    ] = None,
    log_to: options.LogTo = None,
    checkpoint_every: options.CheckpointEvery = default(RunSettings, "checkpoint_every"),
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    format: options.FormatOption = Format.table,
) -> None:
    """Train a small timm student that keeps a robust teacher's robustness (KDIGA unless --recipe says otherwise).

    Examples:

        kdcompress distill --teacher robust.pt --teacher-mean 0.49,0.48,0.45 \\
            --teacher-std 0.25,0.24,0.26 --student resnet18 --data cifar10/ \\
            --eps 8/255 --out student/
        kdcompress distill --config student/run.toml --epochs 60 --out longer/
    """
    asked = dict(locals())  # every option, called as its field
    from kdcompress.models.arguments import parse_arguments

    with boundary():
        trackers = asked_for(log_to or [])
        settings = DistillSettings.of(
            teacher=options.model_file(teacher, teacher_arch, teacher_arg, teacher_mean, teacher_std, "teacher-"),
            student=student,
            student_args=parse_arguments(student_arg or [], "--student-arg"),
            student_stride=student_stride,
            student_weights=student_weights,
            data=options.gathered(DataSettings, asked),
            threat=options.gathered(ThreatSettings, asked),
            loss=options.gathered(LossSettings, asked),
            cache=CacheSettings.of(
                cache_teacher=cache_teacher,
                cache_views=cache_views,
                cache_dir=options.cache_folder("views") if cache_teacher and cache_dir is None else cache_dir,
            ),
            run=options.gathered(RunSettings, asked),
            check=options.gathered(TeacherCheckSettings, asked),
        )
        from kdcompress.render.console import run_summary
        from kdcompress.training import runs

        with watched() as shown, tracked(trackers, out, shown) as listener:
            record = runs.distill(settings, out, overwrite=overwrite, resume=resume, listener=listener)
        if speaks():
            emit(record.model_dump_json(indent=2), run_summary(record), format)
