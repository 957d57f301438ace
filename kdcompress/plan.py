"""What a distillation will take, before a GPU is rented: memory, hours, and what the hours go into.

Memory and arithmetic are counted on shapes (`kdcompress.training.dry_run`); hours follow from the arithmetic and from
what a GPU sustains, which nobody knows before it was measured.
"""

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from kdcompress.data.loading import MEMORY_LIMIT
from kdcompress.engine import exact
from kdcompress.engine.finite_difference import finite_difference
from kdcompress.errors import KdcompressError, UsageError
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.factories import build_with_factory, is_factory
from kdcompress.models.layouts import LAYOUTS, build_layout
from kdcompress.models.students import create_student
from kdcompress.progress import Listener
from kdcompress.report import Result
from kdcompress.settings import LossSettings, PlanSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.backward import parts_of
from kdcompress.training.dry_run import StepCost, dry_run
from kdcompress.training.recipes import Recipe, distillation
from kdcompress.training.recipes.passes import passes
from kdcompress.versions import versions

UNUSED, LIBRARIES = 0.1, 2**30
"""What a GPU's allocator leaves unused, and bytes that its libraries take: guesses, since no GPU was at hand."""
READ_MS = 2.05
"""A core's milliseconds for a 500 x 375 JPEG at 224 x 224: see README, Large data."""
FLOAT = 4
FEW = 32
"""Images from which BatchNorm's statistics are usually thought good enough."""
MANY_CORES = 16
"""CPU cores that rented machines commonly have beside each GPU."""
LARGE_TEACHER = 20
"""r from which its gradient, where every step takes it, costs more than a PGD-10 attack on the student:
6 + 2 r > 26 + r."""


class PlanRow(Result):
    """The run on so many GPUs.

    Attributes:
        images: of a batch, on each.
        micro_batch: `--iga-micro-batch` by which a step fits into memory; None where a batch does whole.
        memory: bytes of a GPU, at the most, with what is allowed for.
        fits: whether there are so many.
        compute, exchange: seconds of a step, of arithmetic and of averaging gradients over all GPUs; the mean where
            some leave out the gradient term, which `memory` has.
        hours: of the whole run, validation and reading left out.
        step: seconds of both.
        cores: of CPUs, beside each GPU, that decode as fast as it learns; None where all images fit into memory.
    """

    gpus: int
    images: int
    micro_batch: int | None
    memory: int
    fits: bool
    compute: float
    exchange: float
    step: float
    images_per_second: float
    hours: float
    gpu_hours: float
    cores: float | None


class Plan(Result):
    """The whole of it.

    Attributes:
        r: multiply-accumulates of the teacher over the student's.
        flops: of an image in a step late in the run, two a multiply-accumulate; the mean where some leave out the
            gradient term.
        resident: bytes that lie on a GPU between steps: both networks, the optimizer's state, the average.
        batchnorm: whether the student has any.
        advice: what to set, where the figures say so.
        an_image: bytes that an image adds during a step, from the largest batch of a GPU and half of it.
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
    advice: tuple[str, ...]
    settings: dict[str, object]
    versions: dict[str, str]


Counted = Callable[[int, int | None], StepCost]
"""(images of a batch, `--iga-micro-batch`) -> what a step takes."""


def plan(settings: PlanSettings, *, listener: Listener = Listener()) -> Plan:
    """Count a step of the run on every number of GPUs that was asked for.

    Raises:
        KdcompressError: if a network cannot be built, or not distilled.
    """
    run = settings.run
    input_size = (3, settings.image_size, settings.image_size)
    with _of_shapes():
        teacher, student = _teacher(settings).eval(), _student(settings)
        _refuse_classes(teacher, settings)
        r = macs(teacher, input_size) / max(1, macs(student, input_size))

    def step(images: int, micro_batch: int | None, *, aligned: bool = True) -> StepCost:
        recipe = _recipe(settings, aligned=aligned)
        with _of_shapes():
            return dry_run(student, teacher, recipe, input_size, run, batch_size=images, micro_batch=micro_batch)

    @cache
    def counted(images: int, micro_batch: int | None) -> StepCost:
        listener.note(f"counting a step of {images} images" + (f", {micro_batch} at a time" if micro_batch else ""))
        return step(images, micro_batch)

    most = run.batch_size // min(settings.gpus)
    whole, half = counted(most, None), counted(max(1, most // 2), None)
    share = settings.loss.aligned_share
    without = whole.flops if share == 1 else step(most, None, aligned=False).flops
    flops = (share * whole.flops + (1 - share) * without) / most
    resident = _resident(teacher, student, settings)
    batchnorm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.modules())
    rows = tuple(_row(gpus, settings, student, resident, flops, counted) for gpus in settings.gpus)
    return Plan(
        teacher=settings.teacher_arch,
        student=settings.student,
        teacher_params=parameter_count(teacher),
        student_params=parameter_count(student),
        r=r,
        flops=flops,
        resident=resident,
        an_image=(whole.peak - half.peak) // max(1, most - most // 2),
        batchnorm=batchnorm,
        steps=_steps(settings),
        rows=rows,
        advice=tuple(_advice(rows, settings, r, batchnorm)),
        settings=settings.model_dump(mode="json"),
        versions=versions(),
    )


def _advice(rows: tuple[PlanRow, ...], settings: PlanSettings, r: float, batchnorm: bool) -> Iterator[str]:
    if r > LARGE_TEACHER and settings.loss.inner_attack == "none" and settings.loss.iga_weight != 0:
        ours, rslad = (
            passes(loss, weight).in_forwards(r)
            for loss, weight in ((settings.loss, 1.0), (LossSettings(recipe="rslad"), 0.0))
        )
        yield f"the teacher costs {r:.0f} times the student: --cache-teacher asks it once" + (
            ", and --recipe rslad, which asks it for no gradient, costs less" if rslad < ours else ""
        )
    for row in rows:
        where = f"{row.gpus} GPU{'s' if row.gpus > 1 else ''}: "
        seen = row.micro_batch or row.images
        if not row.fits:
            yield f"{where}not even two images fit beside the networks: a smaller student, or a larger GPU"
        elif row.micro_batch:
            yield f"{where}--iga-micro-batch {row.micro_batch}"
        if batchnorm and seen < FEW:
            other = "add --sync-batchnorm, or take " if row.gpus > 1 and not row.micro_batch else "take "
            yield f"{where}BatchNorm sees {seen} images at a time: {other}more at a time"
        if row.exchange > row.compute:
            yield f"{where}most of the time goes into averaging gradients: take fewer GPUs, or a larger batch"
        if row.cores is not None and row.cores > MANY_CORES:
            yield f"{where}decoding may be slower than training: store images at the size they are trained at"


def _row(
    gpus: int, settings: PlanSettings, student: nn.Module, resident: int, flops: float, counted: Counted
) -> PlanRow:
    run = settings.run
    images = run.batch_size // gpus
    parameters = FLOAT * parameter_count(student)
    # Averaged as one row of numbers, beside the gradients that it is made of.
    averaging = 3 * parameters if gpus > 1 else 0
    available = settings.gpu_memory * 2**30

    def taken(part: int) -> int:
        """Bytes of a GPU with so many images at a time: two parts of a batch take what many do, but for its inputs."""
        step = counted(images, None) if part == images else counted(2 * part, part)
        waiting = FLOAT * 3 * settings.image_size**2 * max(0, images - 2 * part)
        return int((resident + max(step.peak + waiting, averaging)) * (1 + UNUSED)) + LIBRARIES

    part = images
    if taken(images) > available:
        # Of the sizes that batches are really divided into; the fewer at a time, the less memory.
        sizes = sorted({math.ceil(images / parts_of(images, most)) for most in range(2, images)} - {1, images})
        fitting = bisect_right(sizes, available, key=taken)
        part = sizes[max(0, fitting - 1)] if sizes else images
    memory = taken(part)
    compute = flops * images / (settings.tflops * 1e12)
    exchange = 2 * (gpus - 1) / gpus * parameters / (settings.link * 1e9)
    in_memory = settings.train_images * 3 * settings.image_size**2 <= MEMORY_LIMIT
    hours = _steps(settings) * (compute + exchange) / 3600
    return PlanRow(
        gpus=gpus,
        images=images,
        micro_batch=part if part < images and memory <= available else None,
        memory=memory,
        fits=memory <= available,
        compute=compute,
        exchange=exchange,
        step=compute + exchange,
        images_per_second=run.batch_size / (compute + exchange),
        hours=hours,
        gpu_hours=hours * gpus,
        cores=None if in_memory else images / (compute + exchange) * READ_MS / 1000,
    )


def _steps(settings: PlanSettings) -> int:
    return settings.run.epochs * (settings.train_images // settings.run.batch_size)


@contextmanager
def _of_shapes() -> Iterator[None]:
    """A network that cannot be built, counted or trained at this size ends in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")  # writes a page of its own of what is told here
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except KdcompressError:
        raise
    except Exception as error:  # networks raise what they like
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"a step of these networks cannot be counted: {detail}") from error
    finally:
        logger.setLevel(level)


def _refuse_classes(teacher: nn.Module, settings: PlanSettings) -> None:
    with torch.no_grad():
        found = teacher(torch.zeros(2, 3, settings.image_size, settings.image_size)).shape[-1]
    if found != settings.classes:
        raise UsageError(f"--classes must be the teacher's {found}, got {settings.classes}")


def _recipe(settings: PlanSettings, *, aligned: bool) -> Callable[[nn.Module], Recipe]:
    """Of every step alike: with the gradient term or without."""
    loss = settings.loss.model_copy(update={"iga_every": 1})
    align = finite_difference() if loss.iga_mode == "finite-difference" else exact(1 if loss.iga_norm == "l1" else 2)
    iga_weight = 1.0 if isinstance(loss.iga_weight, str) else loss.iga_weight

    def of(teacher: nn.Module) -> Recipe:
        return distillation(
            teacher,
            loss,
            ThreatModel("Linf", 4 / 255),
            iga_weight=iga_weight if aligned else 0.0,
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
        said = str(error).replace("--student-arg", "--teacher-arg").replace("--student", "--teacher-arch")
        raise UsageError(
            said.replace("the name of a timm model", f"a timm model, one of {', '.join(LAYOUTS)}, or file.py:function")
        ) from error


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
