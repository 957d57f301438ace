"""Proposition 1 audited: its premises, and the margin inequality that needs none of them, image by image.

B batch, M rival classes, K classes, P points of each image's ball, D entries of an image.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcompress.attacks.ascent import Objective, ascend, extremes
from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.audit.chunks import Found, over_chunks
from kdcompress.evaluation.audit.numbers import finite, finite_median, median, rounded
from kdcompress.evaluation.audit.points import Centre, Pair, Points, centre, judged, rounding
from kdcompress.maths.jacobian import cosine, directions, loss_gradient, relative_residual
from kdcompress.maths.margins import Network, kept_margin, margin_gradients, margins, nonlinearity, slack
from kdcompress.maths.norms import steepest, uniform_in_ball
from kdcompress.maths.randomness import generator
from kdcompress.report import FreeDirections, HeldAt, MarginTerms, Premise, Proposition1
from kdcompress.settings import AuditSettings
from kdcompress.threat import ThreatModel

ARITHMETIC = 1e-9
"""Of the largest term, or of 1 where that is smaller: what float64 may get wrong, with a thousandfold to spare."""


def proposition1(
    student: nn.Module,
    teacher: nn.Module,
    images: Split,
    threat: ThreatModel,
    settings: AuditSettings,
    *,
    classes: int,
    device: torch.device,
    teacher_certified: Tensor | None = None,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proposition1:
    """Every premise and every term of the inequality, and how many images each holds for.

    Four searches an image and rival: either network's remainder, and either network's least margin.

    Guarantees:
        After merging, the inequality holds at every point that any search found.
        The same seed and chunk give the same record.

    Args:
        student, teacher: eval mode, frozen, (B, C, H, W) in [0,1] -> logits (B, K).
        classes: K.
        teacher_certified: (N,), radii of the threat's norm within which the teacher's class is proved constant, by
            sound bounds; without them premise (12) can only be falsified.
        folder: see `over_chunks`.

    Raises:
        ValueError: if a search finds the teacher's class changed inside its certified radius.
    """
    pair = Pair.of(student, teacher, settings.batch_size)
    M = min(settings.rivals, classes - 1)
    found = over_chunks(
        lambda x, y, number: examined(pair, x, y, threat, settings, M, number),
        images,
        size=max(1, settings.batch_size // M),  # an image has a row for each rival
        device=device,
        folder=folder,
        on_progress=on_progress,
    )
    return _record(found, threat, settings, M, teacher_certified)


def examined(
    pair: Pair, x: Tensor, y: Tensor, threat: ThreatModel, settings: AuditSettings, M: int, number: int
) -> Found:
    """One chunk's answers, (B, ...) each."""
    s, t = centre(pair.exact_student, x), centre(pair.exact_teacher, x)
    own = torch.zeros_like(t.logits).scatter_(1, y[:, None], 1.0).bool()
    rivals = t.logits.masked_fill(own, -torch.inf).topk(M, 1).indices
    by_search = _searched(pair, x, y, rivals, (s, t), threat, settings, number)
    points = judged(pair, x, [x, *(point for found in by_search for point in found)], threat)
    student, teacher = _network(s, points.student, y, rivals), _network(t, points.teacher, y, rivals)
    kept = kept_margin(student, teacher, points.delta, threat)
    least_t, least_s = teacher.at_points.amin(1), student.at_points.amin(1)
    guaranteed = least_t - kept.lost
    tolerated = ARITHMETIC * kept.lost.clamp_min(1)

    alone_s, alone_t = (
        _alone(network, points.delta, by_search, place) for place, network in enumerate((student, teacher))
    )
    missed = (kept.remainder_s - alone_s).clamp_min(0) + (kept.remainder_t - alone_t).clamp_min(0)
    left = slack(student, teacher, kept)
    parts = directions(s.jacobian - t.jacobian, t.logits, y)
    g_s, g_t = (loss_gradient(at.logits, at.jacobian, y) for at in (s, t))
    centred_s, centred_t = (at.logits - at.logits.mean(1, keepdim=True) for at in (s, t))
    binding = guaranteed.argmin(1, keepdim=True)
    chosen = {
        "rival": rivals,
        "teacher_margin": least_t,
        "logits": kept.logits,
        "gradients": kept.gradients,
        "remainder_student": kept.remainder_s,
        "remainder_teacher": kept.remainder_t,
        "guaranteed": guaranteed,
    }
    return {
        "right": (s.logits.argmax(1) == y) & (t.logits.argmax(1) == y),
        "falsified": (points.teacher.argmax(2) != t.logits.argmax(1)[:, None]).any(1),
        "stood": (points.student.argmax(2) == y[:, None]).all(1),
        "residual": relative_residual(g_s, g_t),
        "cosine": cosine(g_s, g_t),
        "difference": relative_residual(centred_s, centred_t),
        "nonlinear_s": nonlinearity(kept.remainder_s, student.gradient, threat).amax(1),
        "nonlinear_t": nonlinearity(kept.remainder_t, teacher.gradient, threat).amax(1),
        **{name: values.gather(1, binding)[:, 0] for name, values in chosen.items()},
        "student_margin": least_s.amin(1),
        "exceeded": (left < missed[:, None] - tolerated[:, None]).flatten(1).any(1),
        "violated": (left < -tolerated[:, None]).flatten(1).any(1),
        "constrained": parts.constrained,
        "common": parts.common,
        "free": parts.free,
        "weight": parts.weight,
        "apart": relative_residual(_without_shift(s), _without_shift(t)),
        "rounding": _rounding(pair, by_search[0][0], points),
    }


def _searched(
    pair: Pair,
    x: Tensor,
    y: Tensor,
    rivals: Tensor,
    centres: tuple[Centre, Centre],
    threat: ThreatModel,
    settings: AuditSettings,
    number: int,
) -> list[list[Tensor]]:
    """Points (B, C, H, W) by search: the remainders of student and teacher, the least margins of student and teacher.

    The points of one run for all rivals stand one after the other: run r, rival k is number r M + k.
    """
    B, M = rivals.shape
    rows_x, rows_y = x.repeat_interleave(M, 0), y.repeat_interleave(M)
    rows_k = rivals.flatten()[:, None]

    def margin(model: nn.Module, at: Tensor) -> Tensor:
        f = model(at)
        of_rows: Tensor = (f.gather(1, rows_y[:, None]) - f.gather(1, rows_k))[:, 0]
        return of_rows

    def unstacked(runs: Sequence[Tensor]) -> list[Tensor]:
        return [point for run in runs for point in run.view(B, M, *x.shape[1:]).unbind(1)]

    remainders, least = [], []
    for name, model, at_x in (("student", pair.student, centres[0]), ("teacher", pair.teacher, centres[1])):
        value = margins(at_x.logits, y, rivals).to(x.dtype).flatten()
        gradient = margin_gradients(at_x.jacobian, y, rivals).to(x.dtype).view(B * M, *x.shape[1:])
        r = _remainder(partial(margin, model), rows_x, value, gradient)
        rng = generator(settings.seed, f"{name}'s margin remainder {threat} {number}")
        limits = {"steps": settings.steps, "restarts": settings.restarts}
        remainders.append(unstacked(extremes(r, rows_x, gradient, threat, **limits, generator=rng)))
        rng = generator(settings.seed, f"{name}'s least margin {threat} {number}")
        starts = [rows_x - threat.eps * steepest(gradient, threat.norm)]
        starts += [rows_x + uniform_in_ball(rows_x, threat, rng) for _ in range(settings.restarts)]
        fall = partial(_negative, partial(margin, model))
        least.append(unstacked([ascend(fall, rows_x, start, threat, steps=settings.steps) for start in starts]))
    return [*remainders, *least]


def _remainder(h: Objective, x: Tensor, value: Tensor, gradient: Tensor) -> Objective:
    """h(x + d) - h(x) - d . grad h(x), for searching."""
    return lambda at: h(at) - value - ((at - x) * gradient).flatten(1).sum(1)


def _negative(h: Objective, at: Tensor) -> Tensor:
    return -h(at)


def _network(at_x: Centre, logits: Tensor, y: Tensor, rivals: Tensor) -> Network:
    return Network(
        margin=margins(at_x.logits, y, rivals),
        gradient=margin_gradients(at_x.jacobian, y, rivals),
        at_points=margins(logits, y, rivals),
    )


def _without_shift(at_x: Centre) -> Tensor:
    """The Jacobian without what is common to all logits, (B, K, D): softmax ignores it."""
    return at_x.jacobian - at_x.jacobian.mean(1, keepdim=True)


def _alone(network: Network, delta: Tensor, by_search: Sequence[Sequence[Tensor]], place: int) -> Tensor:
    """R_k over the points of its own ascent alone: search `place`, every run's point for rival k; (B, M)."""
    first = 1 + sum(len(found) for found in by_search[:place])  # point 0 is x itself
    r = network.remainders(delta)[:, first : first + len(by_search[place])]
    M = r.shape[2]
    runs = r.view(len(r), -1, M, M)  # (image, run, the rival searched for, the rival looked at)
    return runs.diagonal(dim1=2, dim2=3).amax(1)


def _rounding(pair: Pair, found: Tensor, points: Points) -> Tensor:
    """Twice the largest difference of a logit, which no margin can exceed, at one search's points, (B,)."""
    s = rounding(pair.student, found, points.student[:, 1], pair.batch_size)
    t = rounding(pair.teacher, found, points.teacher[:, 1], pair.batch_size)
    return 2 * torch.maximum(s, t)


def _record(
    found: Found, threat: ThreatModel, settings: AuditSettings, M: int, certified: Tensor | None
) -> Proposition1:
    n = len(found["right"])
    proved = torch.zeros(n, dtype=torch.bool) if certified is None else certified.cpu() >= threat.eps
    if bool((proved & found["falsified"]).any()):
        raise ValueError(
            f"the teacher's class is certified within {threat} on images where a point of another class was found: "
            "the certificates are not sound, or are of other images or another norm"
        )
    constant = ~found["falsified"]
    premises = (
        _premise("the gradients of CE agree", "(15)", "exact", found["residual"], settings),
        _premise("the logits agree, up to a common shift", "(16)", "exact", found["difference"], settings),
        _premise("the student's margins are linear", "before (22)", "estimate", found["nonlinear_s"], settings),
        _premise("the teacher's margins are linear", "before (22)", "estimate", found["nonlinear_t"], settings),
    )
    values = torch.stack([found[name] for name in ("residual", "difference", "nonlinear_s", "nonlinear_t")])
    base = constant & found["right"]
    total = found["constrained"] + found["common"] + found["free"]
    return Proposition1(
        norm=threat.norm,
        eps=threat.eps,
        n=n,
        steps=settings.steps,
        restarts=settings.restarts,
        rivals=M,
        seed=settings.seed,
        attack=attack_name(settings, M),
        teacher_constant="".join(
            "c" if sure else "x" if lost else "."
            for sure, lost in zip(proved.tolist(), found["falsified"].tolist(), strict=True)
        ),
        constant=rate(constant),
        certified=None if certified is None else rate(proved),
        right=rate(found["right"]),
        premises=premises,
        gradient_cosine=rounded(found["cosine"]),
        all_hold=tuple(_held(base & (values <= limit).all(0), limit) for limit in settings.tolerances),
        terms=MarginTerms(
            rival=tuple(found["rival"].tolist()),
            teacher_margin=rounded(found["teacher_margin"]),
            logits=rounded(found["logits"]),
            gradients=rounded(found["gradients"]),
            remainder_student=rounded(found["remainder_student"]),
            remainder_teacher=rounded(found["remainder_teacher"]),
            guaranteed=rounded(found["guaranteed"]),
            student_margin=rounded(found["student_margin"]),
        ),
        kept=rate(found["guaranteed"] > 0),
        stood=rate(found["stood"]),
        exceeded=rate(found["exceeded"]),
        violated=int(found["violated"].sum()),
        rounding=float(found["rounding"].max()),
        directions=FreeDirections(
            constrained=finite(found["constrained"] / total),
            common=finite(found["common"] / total),
            free=finite(found["free"] / total),
            weight=rounded(found["weight"]),
            difference=finite(found["apart"]),
            median_free=finite_median(found["free"] / total),
            median_difference=finite_median(found["apart"]),
            median_weight=median(found["weight"]),
        ),
    )


def attack_name(settings: AuditSettings, M: int) -> str:
    """What constancy was tried with."""
    starts = f"{1 + settings.restarts} starts" if settings.restarts else "1 start"
    return f"margin ascent, {settings.steps} steps, {M} targets, {starts}, and the points of all searches"


def _premise(name: str, equation: str, kind: str, values: Tensor, settings: AuditSettings) -> Premise:
    return Premise(
        name=name,
        equation=equation,
        kind=kind,  # type: ignore[arg-type]
        values=finite(values),
        held=tuple(_held(values <= limit, limit) for limit in settings.tolerances),
    )


def _held(holds: Tensor, limit: float) -> HeldAt:
    return HeldAt(**rate(holds).model_dump(), tolerance=limit)
