"""Proposition 2, eq. 26: the gap of the losses in the ball, and what bounds it, image by image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcompress.attacks.ascent import extremes
from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.audit.chunks import Found, over_chunks
from kdcompress.evaluation.audit.memory import DOUBLE, bytes_of_pass, memory_limit, room
from kdcompress.evaluation.audit.numbers import median, rounded
from kdcompress.evaluation.audit.points import Pair, Points, judged, rounding
from kdcompress.evaluation.audit.starts import random_starts
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.loss_gap import Loss, LossBound, gaps, loss_bound
from kdcompress.maths.losses import cross_entropy
from kdcompress.report import Proposition2
from kdcompress.settings import AuditSettings
from kdcompress.threat import ThreatModel

TERMS = ("remainder_student", "remainder_teacher", "losses", "gradients")
SEARCHES = ("loss gap", "student's remainder", "teacher's remainder")
"""The attack on the left side of (26), and the ascents on its right side."""
ARITHMETIC = 1e-9
"""Of the bound, or of 1 where that is smaller: what float64 may get wrong, with a thousandfold to spare."""


def proposition2(
    student: nn.Module,
    teacher: nn.Module,
    images: Split,
    threat: ThreatModel,
    settings: AuditSettings,
    *,
    device: torch.device,
    memory: int | None = None,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proposition2:
    """The left side of (26) by an attack on it, both right sides by ascent, and every point used by all.

    Three searches an image: r = CE_s - CE_t, the remainder of CE_s, the remainder of CE_t, with seeds of their own.

    Guarantees:
        After merging, the inequality holds at every point that any search found.
        The same seed gives the same record, whatever the batch and the memory (to rounding of float32).

    Args:
        student, teacher: eval mode, frozen, (B, C, H, W) in [0,1] -> logits (B, K).
        memory: bytes that may be taken; None for a share of what is free.
        folder: see `over_chunks`.

    Raises:
        TooLargeError: if one image does not fit in memory.
    """
    pair = Pair.of(student, teacher, settings.batch_size)
    one = next(images.batches(1, device=device))[0].double()
    at_work = bytes_of_pass(pair.exact_student, one) + bytes_of_pass(pair.exact_teacher, one)
    entries = one.numel()
    fits = room(
        memory_limit(memory, device),
        image=8 * DOUBLE * entries,  # both gradients, their difference, and what they are made of
        row=at_work + (16 + 2 * settings.restarts) * DOUBLE * entries,  # a search's points, and copies of one
        rows_an_image=1,
        most=settings.batch_size,
    )
    found = over_chunks(
        "Proposition 2",
        lambda x, y, names: examined(pair, x, y, names, threat, settings),
        images,
        networks=(student, teacher),
        size=fits.images,
        device=device,
        folder=folder,
        on_progress=on_progress,
    )
    return _record(found, threat, settings)


@dataclass(frozen=True)
class Centre:
    """One network at x, in float64: CE(f(x), y), (B,), and its gradient g, (B, D)."""

    value: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class AtPoints:
    """What is known of P points of each image: |CE_s - CE_t| and both remainders, (B, P)."""

    gap: Tensor
    remainder_s: Tensor
    remainder_t: Tensor


def examined(
    pair: Pair, x: Tensor, y: Tensor, names: Sequence[str], threat: ThreatModel, settings: AuditSettings
) -> Found:
    """Some images' answers: every term of (26), (B,) each."""
    s, t = _centre(pair.exact_student, x, y), _centre(pair.exact_teacher, x, y)
    bounds: list[LossBound] = []

    def at(points: Points) -> AtPoints:
        student, teacher = _loss(s, points.student, y), _loss(t, points.teacher, y)
        bounds.append(loss_bound(student, teacher, points.delta, threat))
        return AtPoints(gaps(student, teacher), *(loss.remainders(points.delta) for loss in (student, teacher)))

    at_x = at(judged(pair, x, [x], threat))
    by_search, apart = [], torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for search in SEARCHES:
        runs = []
        for number, run in enumerate(searched(search, pair, x, y, names, (s, t), threat, settings)):
            points = judged(pair, x, [run], threat)
            runs.append(at(points))
            if (search, number) == (SEARCHES[0], 0):
                apart = rounding(pair, run, points, 0)
        by_search.append(_together(runs))
    attack, alone_s, alone_t = by_search
    everywhere = _together([at_x, *by_search])
    llm_s, llm_t = alone_s.remainder_s.amax(1), alone_t.remainder_t.amax(1)
    bound = replace(
        bounds[0],
        remainder_s=everywhere.remainder_s.amax(1),
        remainder_t=everywhere.remainder_t.amax(1),
    )
    return {
        "gap": everywhere.gap.amax(1),
        "bound": bound.tight,
        "bound_of_paper": bound.of_paper,
        "remainder_student": bound.remainder_s,
        "remainder_teacher": bound.remainder_t,
        "losses": bound.losses,
        "losses_of_paper": bound.losses_of_paper,
        "gradients": bound.gradients,
        "exceeded": attack.gap.amax(1) > llm_s + llm_t + bound.losses + bound.gradients,
        "raised": (bound.remainder_s > 1.01 * llm_s + ARITHMETIC) | (bound.remainder_t > 1.01 * llm_t + ARITHMETIC),
        "violated": (everywhere.gap > (bound.tight + ARITHMETIC * bound.tight.clamp_min(1))[:, None]).any(1),
        "rounding": apart,
    }


def searched(
    search: str,
    pair: Pair,
    x: Tensor,
    y: Tensor,
    names: Sequence[str],
    centres: tuple[Centre, Centre],
    threat: ThreatModel,
    settings: AuditSettings,
) -> list[Tensor]:
    """Points (B, C, H, W) that one of `SEARCHES` found."""
    s, t = centres
    if search == "loss gap":
        gradient = s.gradient - t.gradient

        def r(at: Tensor) -> Tensor:
            return cross_entropy(pair.student(at), y) - cross_entropy(pair.teacher(at), y)
    else:
        model, centre = (pair.student, s) if search == "student's remainder" else (pair.teacher, t)
        gradient, value, slope = centre.gradient, centre.value.to(x.dtype), centre.gradient.to(x.dtype)

        def r(at: Tensor) -> Tensor:
            return cross_entropy(model(at), y) - value - ((at - x).flatten(1) * slope).sum(1)

    starts = random_starts(x, names, threat, seed=settings.seed, purpose=search, count=2 * settings.restarts)
    return extremes(r, x, gradient.to(x.dtype).view_as(x), threat, steps=settings.steps, starts=starts)


def _together(parts: Sequence[AtPoints]) -> AtPoints:
    return AtPoints(*(torch.cat([getattr(part, of.name) for part in parts], 1) for of in fields(AtPoints)))


def _centre(exact: nn.Module, x: Tensor, y: Tensor) -> Centre:
    f, gradient = logits_and_input_gradient(exact, x.double(), y, create_graph=False)
    return Centre(cross_entropy(f, y), gradient.flatten(1))


def _loss(at_x: Centre, logits: Tensor, y: Tensor) -> Loss:
    at_points = cross_entropy(logits.flatten(0, 1), y.repeat_interleave(logits.shape[1])).view(logits.shape[:2])
    return Loss(at_x.value, at_x.gradient, at_points)


def _record(found: Found, threat: ThreatModel, settings: AuditSettings) -> Proposition2:
    largest = torch.stack([found[term] for term in TERMS]).argmax(0)
    return Proposition2(
        norm=threat.norm,
        eps=threat.eps,
        n=len(found["gap"]),
        steps=settings.steps,
        restarts=settings.restarts,
        seed=settings.seed,
        attack=f"ascent on CE_s - CE_t and CE_t - CE_s, {settings.steps} steps, {1 + settings.restarts} starts each",
        gap=rounded(found["gap"]),
        bound=rounded(found["bound"]),
        bound_of_paper=rounded(found["bound_of_paper"]),
        remainder_student=rounded(found["remainder_student"]),
        remainder_teacher=rounded(found["remainder_teacher"]),
        losses=rounded(found["losses"]),
        losses_of_paper=rounded(found["losses_of_paper"]),
        gradients=rounded(found["gradients"]),
        median_gap=median(found["gap"]),
        median_bound=median(found["bound"]),
        median_bound_of_paper=median(found["bound_of_paper"]),
        dominant={term: int((largest == place).sum()) for place, term in enumerate(TERMS)},  # type: ignore[misc]
        exceeded=rate(found["exceeded"]),
        raised=rate(found["raised"]),
        violated=int(found["violated"].sum()),
        rounding=float(found["rounding"].max()),
    )
