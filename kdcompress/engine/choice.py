"""Which way the gradient term goes, found out on one batch before the first step. The student is left as it was."""

import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kdcompress.engine.compiled import compiled
from kdcompress.engine.exact import Alignment, exact
from kdcompress.engine.finite_difference import buffers_held, finite_difference, kinks
from kdcompress.errors import UsageError

Mode = Literal["exact", "compiled", "finite-difference"]

WORTH_COMPILING = 1800.0
"""Seconds that a run must take in eager mode before `auto` tries the compiler, which alone takes one to ten minutes."""
SAME = 0.999
"""Cosine of the weights' gradient between compiled and eager under which the compiler is not trusted."""
REPEATS = 3


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what was seen on the way.

    Attributes:
        line: the same for people, one sentence.
        milliseconds: mode -> median of the gradient term forward and backward on the batch.
        cosine: of the weights' gradient to the exact one; None where it was not measured.
    """

    mode: Mode
    line: str
    milliseconds: dict[str, float]
    cosine: float | None = None


@dataclass(frozen=True)
class _Seen:
    """By the weights, of the gradient term in one mode; or why there is none."""

    gradient: Tensor | None
    fault: str = ""


def choose(
    asked: Mode | Literal["auto"],
    student: nn.Module,
    x: Tensor,
    target: Tensor,
    g_t: Tensor,
    *,
    p: float,
    steps: int,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Alignment, Choice]:
    """The alignment that was asked for, or with `auto` the fastest exact one for this student, device and run.

    Args:
        x, target, g_t: one training batch with the teacher's gradient.
        p: of the norm.
        steps: how many the run will take.
        note: told what takes long.

    Raises:
        UsageError: if the mode asked for does not work for this student, or `auto` finds none that is exact.
    """
    ours = exact(p)
    found = _weights_gradient(ours, student, x, target, g_t)
    if asked == "finite-difference" or (asked == "auto" and found.gradient is None):
        return _differences(asked, student, x, target, g_t, found, p)
    if found.gradient is None:
        raise UsageError(f"--iga-mode {asked} does not work for this student: {found.fault}; use --iga-mode auto")
    times = {"exact": _milliseconds(ours, student, x, target, g_t)}
    run = times["exact"] * steps / 1000
    if asked == "exact" or (asked == "auto" and run < WORTH_COMPILING):
        length = f"{run:.0f} s" if run < 60 else f"{run / 60:.0f} min"
        why = "" if asked == "exact" else f"; {length} of it in all, too little for the compiler to pay"
        return ours, Choice("exact", f"gradient term: exact, {times['exact']:.0f} ms a step{why}", times)
    note("compiling the gradient term, which takes minutes")
    theirs = compiled(student, p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, about its inner affairs
        seen = _weights_gradient(theirs, student, x, target, g_t)
    cosine = None if seen.gradient is None else _cosine(seen.gradient, found.gradient)
    if cosine is None or not cosine >= SAME:
        fault = seen.fault or f"its gradient has a cosine of {cosine:.4f} to the exact one"
        return ours, Choice("exact", f"gradient term: exact, since compiling failed the check ({fault})", times, cosine)
    times["compiled"] = _milliseconds(theirs, student, x, target, g_t)
    faster = asked == "compiled" or times["compiled"] < times["exact"]
    mode: Mode = "compiled" if faster else "exact"
    line = f"gradient term: {mode}; exact {times['exact']:.0f} ms, compiled {times['compiled']:.0f} ms a step"
    return (theirs if faster else ours), Choice(mode, line, times, cosine)


def _differences(
    asked: str, student: nn.Module, x: Tensor, target: Tensor, g_t: Tensor, found: _Seen, p: float
) -> tuple[Alignment, Choice]:
    if p != 2:
        raise UsageError(f"--iga-mode finite-difference is for --iga-norm l2, got l{p:g}")
    jumps = kinks(student, x)
    if asked == "auto" and jumps:
        raise UsageError(
            f"this student has no exact gradient term: {found.fault}; --iga-mode finite-difference trains on another "
            f"objective, since it has kinks ({', '.join(jumps)}); choose another --student, or name that mode"
        )
    align = finite_difference()
    seen = _weights_gradient(align, student, x, target, g_t)
    if seen.gradient is None:
        raise UsageError(f"--iga-mode finite-difference does not work for this student: {seen.fault}")
    cosine = None if found.gradient is None else _cosine(seen.gradient, found.gradient)
    beside = f"cosine to the exact gradient {cosine:.4f} on one batch" if cosine is not None else found.fault
    kinked = f"; kinks ({', '.join(jumps)}) make it another objective" if jumps else ""
    times = {"finite-difference": _milliseconds(align, student, x, target, g_t)}
    return align, Choice("finite-difference", f"gradient term: finite differences, {beside}{kinked}", times, cosine)


def _weights_gradient(align: Alignment, student: nn.Module, x: Tensor, target: Tensor, g_t: Tensor) -> _Seen:
    """One gradient term by the weights; the student's statistics, its gradients and the generators are left alone."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    try:
        with _left_alone(student, x):
            f, distance = align(student, x, target, g_t)
            distance.mean().backward()  # type: ignore[no-untyped-call]
            slopes = [weight.grad for weight in weights]
    except torch.OutOfMemoryError:  # says nothing of the student
        raise
    except (RuntimeError, NotImplementedError, AssertionError) as error:  # the last: compiled code checks itself
        return _Seen(None, _fault(error))
    gradient = torch.cat(
        [
            (torch.zeros_like(weight) if slope is None else slope).double().flatten()
            for weight, slope in zip(weights, slopes, strict=True)
        ]
    )
    with torch.no_grad(), _left_alone(student, x):
        plain = student(x)
    if not torch.allclose(f.float(), plain.float(), rtol=1e-2, atol=1e-2 * float(plain.abs().max())):
        return _Seen(None, "its logits change where operations are replaced by ones that can be differentiated twice")
    if not bool(gradient.isfinite().all()):
        return _Seen(None, "its gradient is not finite on the first batch")
    if not bool(gradient.any()):
        return _Seen(None, "its gradient is zero on the first batch: the input gradient does not depend on its weights")
    return _Seen(gradient)


@contextmanager
def _left_alone(student: nn.Module, x: Tensor) -> Iterator[None]:
    """Its statistics, its gradients and the generators are afterwards what they were before.

    Inside, gradients come by `backward`, as in training: `autograd.grad` would not notice a layer that refuses a second
    derivative.
    """
    weights = list(student.parameters())
    before = [weight.grad for weight in weights]
    try:
        with buffers_held(student), torch.random.fork_rng([x.device] if x.is_cuda else []):
            for weight in weights:
                weight.grad = None
            yield
    finally:
        for weight, slope in zip(weights, before, strict=True):
            weight.grad = slope


def _fault(error: Exception) -> str:
    """What lacks a second derivative, by name, where PyTorch says so."""
    said = " ".join(str(error).split())
    if match := re.search(r"derivative for ['\"]?(?:aten::)?(\w+?)['\"]? is not implemented", said):
        return f"its operation {match[1]} has no second derivative in PyTorch"
    return said[:200]


def _milliseconds(align: Alignment, student: nn.Module, x: Tensor, target: Tensor, g_t: Tensor) -> float:
    times = []
    for _ in range(REPEATS):
        with _left_alone(student, x):
            _wait(x)
            start = time.perf_counter()
            align(student, x, target, g_t)[1].mean().backward()  # type: ignore[no-untyped-call]
            _wait(x)
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))
