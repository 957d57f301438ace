"""kdcompress prune."""

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
    LossSettings,
    PruneSettings,
    RunSettings,
    TeacherCheckSettings,
    ThreatSettings,
)
from kdcompress.tracking import asked_for, tracked


def prune(
    student: Annotated[Path, typer.Argument(help="A student that kdcompress trained: student.safetensors.")],
    teacher: options.Teacher,
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
    ratio: Annotated[
        float,
        typer.Option(
            help="Share of the student's multiply-accumulates to take, by narrowing every layer alike.",
            rich_help_panel=STUDENT,
        ),
    ] = default(PruneSettings, "ratio"),
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
    """Take channels from a trained student, and let its teacher teach what is left again (KDIGA, as distill does).

    Example:

        kdcompress prune student/student.safetensors --ratio 0.5 \\
            --teacher teacher.safetensors --data cifar10/ --eps 8/255 \\
            --epochs 10 --out smaller/
    """
    asked = dict(locals())  # every option, called as its field
    with boundary():
        trackers = asked_for(log_to or [])
        settings = PruneSettings.of(
            teacher=options.model_file(teacher, teacher_arch, teacher_arg, teacher_mean, teacher_std, "teacher-"),
            student=student,
            ratio=ratio,
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
            record = runs.prune(settings, out, overwrite=overwrite, resume=resume, listener=listener)
        if speaks():
            emit(record.model_dump_json(indent=2), run_summary(record), format)
