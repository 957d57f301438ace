"""Proposition 2, eq. 26: the gap of the losses in the ball, and what bounds it, image by image."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcompress.attacks.ascent import Objective, extremes
from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.audit.chunks import Found, over_chunks
from kdcompress.evaluation.audit.numbers import median, rounded
from kdcompress.evaluation.audit.points import Centre, Pair, Points, centre, judged, rounding
from kdcompress.maths.jacobian import loss_gradient
from kdcompress.maths.loss_gap import Loss, gaps, loss_bound
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.randomness import generator
from kdcompress.report import Proposition2
from kdcompress.settings import AuditSettings
from kdcompress.threat import ThreatModel

TERMS = ("remainder_student", "remainder_teacher", "losses", "gradients")
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
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proposition2:
    """The left side of (26) by an attack on it, both right sides by ascent, and every point used by all.

    Three searches an image: r = CE_s - CE_t, the remainder of CE_s, the remainder of CE_t, with seeds of their own.

    Guarantees:
        After merging, the inequality holds at every point that any search found.
        The same seed and chunk give the same record.

    Args:
        student, teacher: eval mode, frozen, (B, C, H, W) in [0,1] -> logits (B, K).
        folder: see `over_chunks`.
    """
    pair = Pair.of(student, teacher, settings.batch_size)
    found = over_chunks(
        lambda x, y, number: examined(pair, x, y, threat, settings, number),
        images,
        size=settings.batch_size,
        device=device,
        folder=folder,
        on_progress=on_progress,
    )
    return _record(found, threat, settings)


def examined(pair: Pair, x: Tensor, y: Tensor, threat: ThreatModel, settings: AuditSettings, number: int) -> Found:
    """One chunk's answers: every term of (26), (B,) each."""
    s, t = centre(pair.exact_student, x), centre(pair.exact_teacher, x)
    g_s, g_t = (loss_gradient(at.logits, at.jacobian, y) for at in (s, t))

    def search(purpose: str, r: Objective, gradient: Tensor) -> list[Tensor]:
        return extremes(
            r,
            x,
            gradient.to(x.dtype).view_as(x),
            threat,
            steps=settings.steps,
            restarts=settings.restarts,
            generator=generator(settings.seed, f"{purpose} {threat} {number}"),
        )

    attack = search(
        "loss gap", lambda at: cross_entropy(pair.student(at), y) - cross_entropy(pair.teacher(at), y), g_s - g_t
    )
    ascent_s = search("student's remainder", _remainder(pair.student, x, y, s, g_s), g_s)
    ascent_t = search("teacher's remainder", _remainder(pair.teacher, x, y, t, g_t), g_t)

    points = judged(pair, x, [x, *attack, *ascent_s, *ascent_t], threat)
    student, teacher = _loss(s, points.student, g_s, y), _loss(t, points.teacher, g_t, y)
    bound = loss_bound(student, teacher, points.delta, threat)
    gap = gaps(student, teacher)
    # Point 0 is x itself; then each search's own.
    n = len(attack)
    own = [slice(1 + n * place, 1 + n * (place + 1)) for place in range(3)]
    llm_s, llm_t = (
        loss.remainders(points.delta)[:, part].amax(1) for loss, part in ((student, own[1]), (teacher, own[2]))
    )
    return {
        "gap": gap.amax(1),
        "bound": bound.tight,
        "bound_of_paper": bound.of_paper,
        "remainder_student": bound.remainder_s,
        "remainder_teacher": bound.remainder_t,
        "losses": bound.losses,
        "losses_of_paper": bound.losses_of_paper,
        "gradients": bound.gradients,
        "exceeded": gap[:, own[0]].amax(1) > llm_s + llm_t + bound.losses + bound.gradients,
        "raised": (bound.remainder_s > 1.01 * llm_s + ARITHMETIC) | (bound.remainder_t > 1.01 * llm_t + ARITHMETIC),
        "violated": (gap > (bound.tight + ARITHMETIC * bound.tight.clamp_min(1))[:, None]).any(1),
        "rounding": _rounding(pair, x, attack[0], y, points, own[0].start),
    }


def _remainder(model: nn.Module, x: Tensor, y: Tensor, at_x: Centre, gradient: Tensor) -> Objective:
    """CE(f(x + d)) - CE(f(x)) - d . g, for searching."""
    value = cross_entropy(at_x.logits, y).to(x.dtype)
    slope = gradient.to(x.dtype)
    return lambda at: cross_entropy(model(at), y) - value - ((at - x).flatten(1) * slope).sum(1)


def _loss(at_x: Centre, logits: Tensor, gradient: Tensor, y: Tensor) -> Loss:
    at_points = cross_entropy(logits.flatten(0, 1), y.repeat_interleave(logits.shape[1])).view(logits.shape[:2])
    return Loss(cross_entropy(at_x.logits, y), gradient, at_points)


def _rounding(pair: Pair, x: Tensor, found: Tensor, y: Tensor, points: Points, place: int) -> Tensor:
    """Twice the largest difference of a logit, which no loss can exceed, at one attack's points, (B,)."""
    s = rounding(pair.student, found, points.student[:, place], pair.batch_size)
    t = rounding(pair.teacher, found, points.teacher[:, place], pair.batch_size)
    return 2 * torch.maximum(s, t)


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
