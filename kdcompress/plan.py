"""What a distillation will take, before a GPU is rented: memory, hours, and what the hours go into.

Memory and arithmetic are counted on shapes (`kdcompress.training.dry_run`); hours follow from the arithmetic and from
what a GPU sustains, which nobody knows before it was measured.
"""

from collections.abc import Callable

from torch import nn

from kdcompress.engine import exact
from kdcompress.engine.finite_difference import finite_difference
from kdcompress.errors import UsageError
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.factories import build_with_factory, is_factory
from kdcompress.models.layouts import LAYOUTS, build_layout
from kdcompress.models.students import create_student
from kdcompress.progress import Listener
from kdcompress.report import Result
from kdcompress.settings import PlanSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.dry_run import StepCost, dry_run
from kdcompress.training.recipes import Recipe, distillation
from kdcompress.versions import versions

UNUSED, LIBRARIES = 0.1, 2**30
"""What a GPU's allocator leaves unused, and bytes that its libraries take: guesses, since no GPU was at hand."""
READ_MS = 2.05
"""A core's milliseconds for a 500 x 375 JPEG at 224 x 224: see README, Large data."""
FLOAT = 4


class PlanRow(Result):
    """The run on so many GPUs.

    Attributes:
        images: of a batch, on each.
        micro_batch: `--iga-micro-batch` by which a step fits into memory; None where a batch does whole.
        memory: bytes of a GPU, at the most, with what is allowed for.
        fits: whether there are so many.
        compute, exchange: seconds of a step, of arithmetic and of averaging gradients over all GPUs.
        hours: of the whole run, validation and reading left out.
        cores: of CPUs, beside each GPU, that decode as fast as it learns.
    """

    gpus: int
    images: int
    micro_batch: int | None
    memory: int
    fits: bool
    compute: float
    exchange: float
    images_per_second: float
    hours: float
    gpu_hours: float
    cores: float


class Plan(Result):
    """The whole of it.

    Attributes:
        r: multiply-accumulates of the teacher over the student's.
        flops: of an image in a step, two a multiply-accumulate.
        resident: bytes that lie on a GPU between steps: both networks, the optimizer's state, the average.
        batchnorm: whether the student has any.
        an_image: bytes that each image of a (part of a) batch adds during a step.
    """

    schema_version: str = "1.0"
    teacher: str
    student: str
    teacher_params: int
    student_params: int
    r: float
    flops: float
    resident: int
    an_image: int
    batchnorm: bool
    steps: int
    rows: tuple[PlanRow, ...]
    settings: dict[str, object]
    versions: dict[str, str]


def plan(settings: PlanSettings, *, listener: Listener = Listener()) -> Plan:
    """Count a step of the run on every number of GPUs that was asked for.

    Raises:
        KdcompressError: if a network cannot be built, or not distilled.
    """
    run = settings.run
    input_size = (3, settings.image_size, settings.image_size)
    teacher, student = _teacher(settings).eval(), _student(settings)
    r = macs(teacher, input_size) / max(1, macs(student, input_size))
    resident = _resident(teacher, student, settings)
    recipe = _recipe(settings)

    def counted(images: int, micro_batch: int | None = None) -> StepCost:
        listener.note(f"counting a step of {images} images" + (f", {micro_batch} at a time" if micro_batch else ""))
        try:
            return dry_run(student, teacher, recipe, input_size, run, batch_size=images, micro_batch=micro_batch)
        except (RuntimeError, NotImplementedError, TypeError) as error:  # of shapes: a network may branch on values
            detail = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"a step cannot be counted without its numbers ({detail}); time it by kdcompress bench"
            ) from error

    few = min(8, *(run.batch_size // gpus for gpus in settings.gpus))
    little, more = counted(few), counted(2 * few)
    an_image = max(1, (more.peak - little.peak) // few)
    flops = little.flops / few
    rows = tuple(_row(gpus, settings, student, resident, an_image, flops, counted) for gpus in settings.gpus)
    return Plan(
        teacher=settings.teacher_arch,
        student=settings.student,
        teacher_params=parameter_count(teacher),
        student_params=parameter_count(student),
        r=r,
        flops=flops,
        resident=resident,
        an_image=an_image,
        batchnorm=any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.modules()),
        steps=run.epochs * (settings.train_images // run.batch_size),
        rows=rows,
        settings=settings.model_dump(mode="json"),
        versions=versions(),
    )


def _row(
    gpus: int,
    settings: PlanSettings,
    student: nn.Module,
    resident: int,
    an_image: int,
    flops: float,
    counted: Callable[..., StepCost],
) -> PlanRow:
    run = settings.run
    images = run.batch_size // gpus
    parameters = FLOAT * parameter_count(student)
    # Averaged as one row of numbers, beside the gradients that it is made of.
    averaging = 3 * parameters if gpus > 1 else 0
    available = settings.gpu_memory * 2**30

    def taken(step: StepCost) -> int:
        return int((resident + max(step.peak, averaging)) * (1 + UNUSED)) + LIBRARIES

    memory, micro_batch = taken(counted(images)), None
    if memory > available:
        micro_batch = int(((available - LIBRARIES) / (1 + UNUSED) - resident) // an_image)
        while 2 <= micro_batch < images and (memory := taken(counted(images, micro_batch))) > available:
            micro_batch = min(micro_batch - 1, int(0.9 * micro_batch))
        micro_batch = micro_batch if 2 <= micro_batch < images else None
    compute = flops * images / (settings.tflops * 1e12)
    exchange = 2 * (gpus - 1) / gpus * parameters / (settings.link * 1e9)
    hours = run.epochs * (settings.train_images // run.batch_size) * (compute + exchange) / 3600
    return PlanRow(
        gpus=gpus,
        images=images,
        micro_batch=micro_batch,
        memory=memory,
        fits=memory <= available,
        compute=compute,
        exchange=exchange,
        images_per_second=run.batch_size / (compute + exchange),
        hours=hours,
        gpu_hours=hours * gpus,
        cores=images / (compute + exchange) * READ_MS / 1000,
    )


def _recipe(settings: PlanSettings) -> Callable[[nn.Module], Recipe]:
    loss = settings.loss
    align = finite_difference() if loss.iga_mode == "finite-difference" else exact(1 if loss.iga_norm == "l1" else 2)

    def of(teacher: nn.Module) -> Recipe:
        return distillation(
            teacher,
            loss,
            ThreatModel("Linf", 4 / 255),
            iga_weight=1.0 if loss.iga_weight == "auto" else loss.iga_weight,
            seed=0,
            align=align,
            classes=settings.classes,
            noise_sigma=settings.run.noise_sigma,
        )

    return of


def _teacher(settings: PlanSettings) -> nn.Module:
    arch, args = settings.teacher_arch, settings.teacher_args
    if is_factory(arch):
        return build_with_factory(arch, args, flag="--teacher-arch")
    if arch in LAYOUTS:
        return build_layout(arch, args)
    try:
        return _timm(settings, arch, args, None)
    except UsageError as error:  # it speaks of the student's options
        raise UsageError(str(error).replace("--student", "--teacher-arch")) from error


def _student(settings: PlanSettings) -> nn.Module:
    return _timm(settings, settings.student, settings.student_args, settings.student_stride)


def _timm(settings: PlanSettings, arch: str, args: dict[str, object], stride: int | None) -> nn.Module:
    size = (3, settings.image_size, settings.image_size)
    names = tuple(str(number) for number in range(settings.classes))
    return create_student(
        arch, args, classes=names, input_size=size, total_stride=stride, mean=(0.5,) * 3, std=(0.25,) * 3
    )[0]


def _resident(teacher: nn.Module, student: nn.Module, settings: PlanSettings) -> int:
    """Weights and statistics of both networks, the optimizer's state, the averaged weights."""
    run = settings.run
    copies = (2 if run.optimizer == "adamw" else 1) + (run.average != "none")
    held = [tensor for network in (teacher, student) for tensor in (*network.parameters(), *network.buffers())]
    return sum(tensor.nbytes for tensor in held) + copies * FLOAT * parameter_count(student)
