"""What a step costs: every way of distilling the user's teacher into the user's student, side by side in one run."""

import copy
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from kdcompress.attacks.inner import perturb
from kdcompress.devices import LAYOUT, device_name, resolve_device
from kdcompress.engine import Alignment, exact
from kdcompress.engine.compiled import compiled
from kdcompress.engine.finite_difference import finite_difference
from kdcompress.errors import UsageError
from kdcompress.maths.gradients import double_backward, input_gradient
from kdcompress.maths.losses import distillation_kl, gradient_distance
from kdcompress.maths.randomness import generator
from kdcompress.models.cost import macs, parameter_count
from kdcompress.progress import Listener
from kdcompress.report import Result
from kdcompress.settings import BenchSettings, LossSettings
from kdcompress.training.ingredients import new_network, teacher_and_data, training_split
from kdcompress.training.lessons import Lesson, lesson
from kdcompress.training.recipes import Terms, distillation
from kdcompress.versions import versions

Step = Callable[[nn.Module], Terms]
Ways = dict[str, tuple[Callable[[nn.Module], Step], float]]


class Row(Result):
    """One way of distilling.

    Attributes:
        milliseconds: median of a step: loss, backward, AdamW.
        images_per_second: from that median.
        peak_memory: bytes at the most during a step, beyond what lay there before; None on a CPU.
        ratio: to KD's time.
        floor: to KD's, what forwards and backwards alone cost by the counts of multiply-accumulates.
        tflops: TFLOP/s of that floor in that time, two FLOP a multiply-accumulate: what `kdcompress plan` asks for.
        hours: for the epochs asked for, over the training images.
        fault: why there are no figures.
    """

    method: str
    milliseconds: float | None = None
    images_per_second: float | None = None
    peak_memory: int | None = None
    ratio: float | None = None
    floor: float
    tflops: float | None = None
    hours: float | None = None
    fault: str = ""


class Bench(Result):
    """The table.

    Attributes:
        r: multiply-accumulates of the teacher over the student's.
    """

    schema_version: str = "1.0"
    device: str
    batch_size: int
    repeats: int
    teacher: str
    student: str
    teacher_params: int
    student_params: int
    r: float
    epochs: int
    train_images: int
    rows: tuple[Row, ...]
    settings: dict[str, object]
    versions: dict[str, str]


def bench(settings: BenchSettings, *, listener: Listener = Listener()) -> Bench:
    """Time one batch of each method, in turns, so that other work on the machine slows all of them alike.

    Raises:
        KdcompressError: if a file, the data or an option is wrong.
    """
    run = settings.run
    device = resolve_device(run.device)
    teacher, data = teacher_and_data(settings.teacher, settings.data, run, listener)
    student, record = new_network(
        settings.student, settings.student_args, settings.student_stride, None, data, run, listener
    )
    images = training_split(data)
    student_macs = max(1, macs(student, data.input_size))
    r = macs(teacher.model, data.input_size) / student_macs
    f_t = teacher.model.to(device).to(memory_format=LAYOUT)
    x, y = next(images.shuffled(run.batch_size, run.seed).batches(run.batch_size, device=device))
    x = x.contiguous(memory_format=LAYOUT)
    ways = _ways(f_t, x, y, r, len(data.classes), settings)
    times, peaks, faults = _timed(ways, student.to(device).to(memory_format=LAYOUT), run.lr, x, settings, listener)
    if "KD" in faults:
        raise UsageError(f"--student {settings.student}: a step of plain KD fails already: {faults['KD']}")
    steps = run.epochs * (len(images) // len(x))
    return Bench(
        device=device_name(device),
        batch_size=len(x),
        repeats=settings.repeats,
        teacher=teacher.record.arch,
        student=record.arch,
        teacher_params=parameter_count(teacher.model),
        student_params=parameter_count(student),
        r=r,
        epochs=run.epochs,
        train_images=len(images),
        rows=tuple(
            Row(method=name, floor=cost / (r + 3), fault=faults[name])
            if name in faults
            else Row(
                method=name,
                milliseconds=times[name],
                images_per_second=1000 * len(x) / times[name],
                peak_memory=peaks.get(name),
                ratio=times[name] / times["KD"],
                floor=cost / (r + 3),
                tflops=2 * cost * student_macs * len(x) / times[name] / 1e9,
                hours=times[name] * steps / 3_600_000,
            )
            for name, (_, cost) in ways.items()
        ),
        settings=settings.model_dump(mode="json"),
        versions=versions(),
    )


def _ways(f_t: nn.Module, x: Tensor, y: Tensor, r: float, K: int, settings: BenchSettings) -> Ways:
    """By name: the step of a student, and its passes."""
    run, threat = settings.run, settings.threat.threat

    def distil(align: Alignment, iga_weight: float, known: Callable[[], Lesson] = tuple) -> Step:
        recipe = distillation(f_t, LossSettings(), threat, iga_weight=iga_weight, seed=run.seed, align=align, classes=K)
        kept: list[Lesson] = []

        def step(student: nn.Module) -> Terms:
            if not kept:
                kept.append(known())
            return recipe.terms(student, recipe.weights(1, 1), x, y, *kept[0])

        return step

    def asked_once() -> Lesson:
        return lesson(f_t, x, y, "ce", generator(run.seed, "directions"), K)

    def pgd_10(student: nn.Module) -> Terms:
        student.eval()
        x_adv = perturb(student, x, y, threat, steps=10, generator=generator(0, "inner attack"))
        student.train()
        with torch.no_grad():
            logits = f_t(x)
        return {"kl": distillation_kl(student(x_adv), logits, 1.0)}

    ways: Ways = {
        "KD": (lambda _: distil(exact(2), 0.0), r + 3),
        "KDIGA exact": (lambda _: distil(exact(2), 1.0), 2 * r + 6),
        "KDIGA exact, cached teacher": (lambda _: distil(exact(2), 1.0, asked_once), 6),
        "KDIGA finite-difference": (lambda _: distil(finite_difference(), 1.0), 2 * r + 10),
        "PGD-10 distillation": (lambda _: pgd_10, r + 23),
        "published style": (lambda network: _published(network, f_t, x, y), 3 * r + 9),
    }
    if settings.compiled:
        ways["KDIGA compiled"] = (lambda network: distil(compiled(network, 2), 1.0), 2 * r + 6)
    return ways


def _published(student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor) -> Step:
    """As published code has it: separate forwards for logits and for gradients, by PyTorch's own derivatives.

    In the contiguous layout, which is what such code runs in, and in which those derivatives cost half as much.
    """
    student.to(memory_format=torch.contiguous_format)
    teacher = copy.deepcopy(teacher).to(memory_format=torch.contiguous_format)
    x = x.contiguous()

    def step(student: nn.Module) -> Terms:
        with torch.no_grad():
            f_t = teacher(x)
        x_t, x_s = (x.clone().requires_grad_() for _ in range(2))
        g_t = input_gradient(teacher(x_t), x_t, y, create_graph=False)
        f_s = student(x)
        with double_backward():
            again = student(x_s)
        g_s = input_gradient(again, x_s, y, create_graph=True)
        return {"kl": distillation_kl(f_s, f_t, 1.0), "iga": gradient_distance(g_s, g_t)}

    return step


def _timed(
    ways: Ways,
    student: nn.Module,
    lr: float,
    x: Tensor,
    settings: BenchSettings,
    listener: Listener,
) -> tuple[dict[str, float], dict[str, int], dict[str, str]]:
    """Median milliseconds, peak memory and faults, by method. Each has a student and an optimizer of its own."""
    steps: dict[str, Callable[[], None]] = {}
    faults: dict[str, str] = {}
    peaks: dict[str, int] = {}
    for name, (way, _) in ways.items():
        listener.note(f"trying {name}" + (": compiling takes minutes" if "compiled" in name else ""))
        network = copy.deepcopy(student).train()
        step = _step(network, way(network), lr, x.device.type, settings.run.precision)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                step()
                step()
        except (RuntimeError, NotImplementedError, AssertionError) as error:  # the last: compiled code checks itself
            faults[name] = " ".join(str(error).split())[:200]
            continue
        if x.is_cuda:
            torch.cuda.reset_peak_memory_stats(x.device)
            before = torch.cuda.memory_allocated(x.device)
            step()
            peaks[name] = torch.cuda.max_memory_allocated(x.device) - before
        steps[name] = step
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    total = settings.repeats * len(steps)
    for done, (name, step) in enumerate(islice(cycle(steps.items()), total)):
        listener.count("timing", done, total, name)
        _wait(x)
        start = time.perf_counter()
        step()
        _wait(x)
        seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(found) for name, found in seconds.items()}, peaks, faults


def _step(network: nn.Module, step: Step, lr: float, device: str, precision: str) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            terms = step(network)
        loss = torch.stack([terms[name].mean() for name in terms if name != "ce"]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
