"""kdcompress distill."""

from pathlib import Path
from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import CACHE, LOSS, STUDENT, TEACHER, Format, default
from kdcompress.cli.output import emit, stderr
from kdcompress.settings import (
    CacheSettings,
    DataSettings,
    DistillSettings,
    LossSettings,
    RunSettings,
    TeacherCheckSettings,
    ThreatSettings,
)


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
    ce_weight: Annotated[float, typer.Option(help="Weight of the cross-entropy.", rich_help_panel=LOSS)] = default(
        LossSettings, "ce_weight"
    ),
    kl_weight: Annotated[
        float, typer.Option(help="Weight of T^2 KL(teacher || student).", rich_help_panel=LOSS)
    ] = default(LossSettings, "kl_weight"),
    iga_weight: Annotated[
        str,
        typer.Option(
            help="Weight of the input-gradient distance (eq. 14). auto scales it by eps and the image size; "
            "0 is plain KD, at KD's cost.",
            rich_help_panel=LOSS,
        ),
    ] = default(LossSettings, "iga_weight"),
    iga_ramp: Annotated[
        float, typer.Option(help="Share of the run over which that weight rises from 0.", rich_help_panel=LOSS)
    ] = default(LossSettings, "iga_ramp"),
    align: Annotated[
        str,
        typer.Option(
            help="Whose input gradients are aligned: ce as in eq. 14, or jacobian, random combinations of the logits.",
            rich_help_panel=LOSS,
        ),
    ] = default(LossSettings, "align"),
    iga_norm: Annotated[
        str,
        typer.Option(
            help="Norm of that distance: l2 is eq. 14's, l1 the dual norm of Linf, as in (26).", rich_help_panel=LOSS
        ),
    ] = default(LossSettings, "iga_norm"),
    iga_mode: Annotated[
        str,
        typer.Option(
            help="How it is computed: exact, compiled, finite-difference; auto takes the fastest exact way.",
            rich_help_panel=LOSS,
        ),
    ] = default(LossSettings, "iga_mode"),
    iga_micro_batch: Annotated[
        int | None,
        typer.Option(
            help="The most images in memory at once; a batch goes through in parts. "
            "Default: all, and halves where memory runs out.",
            rich_help_panel=LOSS,
        ),
    ] = default(LossSettings, "iga_micro_batch"),
    temperature: Annotated[float, typer.Option(help="T of the KL term.", rich_help_panel=LOSS)] = default(
        LossSettings, "temperature"
    ),
    input_noise: Annotated[
        str,
        typer.Option(
            help="Take the loss at x plus uniform noise in the ball, or at x: uniform or none.", rich_help_panel=LOSS
        ),
    ] = default(LossSettings, "input_noise"),
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
    overwrite: options.Overwrite = False,
    format: options.FormatOption = Format.table,
) -> None:
    """Train a small timm student that keeps a robust teacher's robustness (KDIGA; KD with --iga-weight 0).

    Example: kdcompress distill --teacher robust.pt --teacher-mean 0.49,0.48,0.45 --teacher-std 0.25,0.24,0.26
    --student resnet18 --data cifar10/ --eps 8/255 --out student/
    """
    from kdcompress.models.arguments import parse_arguments

    with boundary():
        settings = DistillSettings.of(
            teacher=options.model_file(teacher, teacher_arch, teacher_arg, teacher_mean, teacher_std, "teacher-"),
            student=student,
            student_args=parse_arguments(student_arg or [], "--student-arg"),
            student_stride=student_stride,
            student_weights=student_weights,
            data=DataSettings.of(data=data, data_dir=data_dir, image_size=image_size, train_images=train_images),
            threat=ThreatSettings.of(norm=norm, eps=eps),
            loss=LossSettings.of(
                ce_weight=ce_weight,
                kl_weight=kl_weight,
                iga_weight=iga_weight,
                iga_ramp=iga_ramp,
                align=align,
                iga_norm=iga_norm,
                iga_micro_batch=iga_micro_batch,
                iga_mode=iga_mode,
                temperature=temperature,
                input_noise=input_noise,
            ),
            cache=CacheSettings.of(
                cache_teacher=cache_teacher,
                cache_views=cache_views,
                cache_dir=options.cache_folder("views") if cache_teacher and cache_dir is None else cache_dir,
            ),
            run=RunSettings.of(
                epochs=epochs,
                batch_size=batch_size,
                schedule=schedule,
                optimizer=optimizer,
                lr=lr,
                weight_decay=weight_decay,
                momentum=momentum,
                average=average,
                ema=ema,
                swa_start=swa_start,
                augment=augment,
                precision=precision,
                noise_sigma=noise_sigma,
                seed=seed,
                device=device,
            ),
            check=TeacherCheckSettings.of(insist=insist),
        )
        from kdcompress.render.console import run_summary
        from kdcompress.render.progress import listening
        from kdcompress.training import runs

        with listening(stderr()) as listener:
            record = runs.distill(settings, out, overwrite=overwrite, listener=listener)
        emit(record.model_dump_json(indent=2), run_summary(record), format)
