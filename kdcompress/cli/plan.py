"""kdcompress plan."""

from typing import Annotated, Any

import typer

from kdcompress.cli import options
from kdcompress.cli.boundary import boundary
from kdcompress.cli.loss_options import Minimised
from kdcompress.cli.options import DATA, MEASURES, TEACHER, Format, default
from kdcompress.cli.output import deliver, speaks, watched
from kdcompress.cli.places import refuse_places
from kdcompress.cli.signatures import taking
from kdcompress.errors import UsageError
from kdcompress.settings import LossSettings, PlanSettings, RunSettings


class Planned:
    """How long, on which GPUs, and where the answer goes."""

    epochs: options.Epochs = 100
    batch_size: Annotated[
        int, typer.Option(help="Images a step, of all GPUs together.", rich_help_panel=options.TRAINING)
    ] = 1024
    optimizer: options.Optimizer = default(RunSettings, "optimizer")
    average: options.AverageOption = default(RunSettings, "average")
    precision: options.Precision = default(RunSettings, "precision")
    gpus: Annotated[str, typer.Option(help="How many, with commas.", rich_help_panel=MEASURES)] = "1,8,64"
    gpu_memory: Annotated[float, typer.Option(help="Of one, in GiB.", rich_help_panel=MEASURES)] = default(
        PlanSettings, "gpu_memory"
    )
    tflops: Annotated[
        float,
        typer.Option(
            help="TFLOP/s that one sustains in training; `kdcompress bench` measures it.", rich_help_panel=MEASURES
        ),
    ] = default(PlanSettings, "tflops")
    link: Annotated[float, typer.Option(help="GB/s of the slowest link between any two.", rich_help_panel=MEASURES)] = (
        default(PlanSettings, "link")
    )
    report: options.Report = None
    format: options.FormatOption = Format.table


@taking(Minimised, Planned)
def plan(
    teacher_arch: Annotated[
        str,
        typer.Option(
            help="timm name, CIFAR layout, package.module:function or file.py:function; no weights are needed.",
            rich_help_panel=TEACHER,
            show_default=False,
        ),
    ],
    student: options.Student,
    teacher_arg: options.TeacherArg = None,
    student_arg: options.StudentArg = None,
    student_stride: options.StudentStride = None,
    image_size: Annotated[int, typer.Option(help="Side of the images.", rich_help_panel=DATA)] = default(
        PlanSettings, "image_size"
    ),
    classes: Annotated[int, typer.Option(help="How many.", rich_help_panel=DATA)] = default(PlanSettings, "classes"),
    train_images: Annotated[int, typer.Option(help="How many an epoch has.", rich_help_panel=DATA)] = default(
        PlanSettings, "train_images"
    ),
    **asked: Any,
) -> None:
    """Say what a distillation will take on so many GPUs, before any is rented: memory, hours, cores, and what to set.

    Nothing is trained and no file is read: a step is counted on the shapes of its numbers.

    Example:

        kdcompress plan --teacher-arch wide_resnet50_2 --student resnet18 \\
            --batch-size 1024 --gpus 1,8,64
    """
    from kdcompress.models.arguments import parse_arguments

    with boundary():
        settings = PlanSettings.of(
            teacher_arch=teacher_arch,
            teacher_args=parse_arguments(teacher_arg or [], "--teacher-arg"),
            student=student,
            student_args=parse_arguments(student_arg or [], "--student-arg"),
            student_stride=student_stride,
            image_size=image_size,
            classes=classes,
            train_images=train_images,
            loss=options.gathered(LossSettings, asked),
            run=options.gathered(RunSettings, asked),
            gpus=_numbers(asked["gpus"]),
            **{name: asked[name] for name in ("gpu_memory", "tflops", "link")},
        )
        report = asked["report"]
        refuse_places({"--report": report}, {})
        from kdcompress.plan import plan as made
        from kdcompress.render.plan import planned

        with watched() as listener:
            result = made(settings, listener=listener)
        if not speaks():
            return
        text = result.model_dump_json(indent=2)
        deliver(text, planned(result), asked["format"], {report: f"{text}\n".encode()})


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise UsageError(f"--gpus must be numbers with commas between them, such as 1,8,64, got {text}") from None
