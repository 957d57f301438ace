"""kdcompress bench."""

from typing import Annotated

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.options import MEASURES, Format, default
from kdcompress.cli.output import deliver, watched
from kdcompress.cli.places import refuse_places
from kdcompress.settings import BenchSettings, DataSettings, RunSettings, ThreatSettings


def bench(
    teacher: options.Teacher,
    student: options.Student,
    data: options.Data,
    eps: options.Eps,
    teacher_arch: options.TeacherArch = None,
    teacher_arg: options.TeacherArg = None,
    teacher_mean: options.TeacherMean = None,
    teacher_std: options.TeacherStd = None,
    student_arg: options.StudentArg = None,
    student_stride: options.StudentStride = None,
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    train_images: options.TrainImages = None,
    norm: options.NormOption = "Linf",
    epochs: Annotated[
        int, typer.Option(help="How many the hours are reckoned for.", rich_help_panel=MEASURES)
    ] = default(RunSettings, "epochs"),
    batch_size: options.BatchSize = default(RunSettings, "batch_size"),
    precision: options.Precision = default(RunSettings, "precision"),
    repeats: Annotated[
        int, typer.Option(help="Timed steps of each method, in turns.", rich_help_panel=MEASURES)
    ] = default(BenchSettings, "repeats"),
    compiled: Annotated[
        bool, typer.Option(help="With the compiled mode, whose compiling takes minutes.", rich_help_panel=MEASURES)
    ] = default(BenchSettings, "compiled"),
    seed: options.Seed = default(RunSettings, "seed"),
    device: options.Device = default(RunSettings, "device"),
    report: options.Report = None,
    format: options.FormatOption = Format.table,
) -> None:
    """Time a step of KD, KDIGA in each mode, PGD-10 distillation and the published style, side by side.

    Example:

        kdcompress bench --teacher robust.pt --teacher-mean none \\
            --student resnet18 --data digits --eps 0.15 --no-compiled
    """
    from kdcompress.models.arguments import parse_arguments

    with boundary():
        settings = BenchSettings.of(
            teacher=options.model_file(teacher, teacher_arch, teacher_arg, teacher_mean, teacher_std, "teacher-"),
            student=student,
            student_args=parse_arguments(student_arg or [], "--student-arg"),
            student_stride=student_stride,
            data=DataSettings.of(data=data, data_dir=data_dir, image_size=image_size, train_images=train_images),
            threat=ThreatSettings.of(norm=norm, eps=eps),
            run=RunSettings.of(epochs=epochs, batch_size=batch_size, precision=precision, seed=seed, device=device),
            repeats=repeats,
            compiled=compiled,
        )
        refuse_places({"--report": report}, {"--teacher": settings.teacher}, settings.data)
        from kdcompress.bench import bench as measured
        from kdcompress.render.bench import costs

        with watched() as listener:
            result = measured(settings, listener=listener)
        text = result.model_dump_json(indent=2)
        deliver(text, costs(result), format, {report: f"{text}\n".encode()})
