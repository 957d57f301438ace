"""Proposition 1 audited: its premises, and the margin inequality that needs none of them, image by image.

B batch, M rival classes, K classes, P points of each image's ball, D entries of an image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcompress.attacks.ascent import ascend, extremes
from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.audit.chunks import Found, over_chunks
from kdcompress.evaluation.audit.memory import DOUBLE, bytes_of_pass, memory_limit, room
from kdcompress.evaluation.audit.numbers import finite, finite_median, median, rounded
from kdcompress.evaluation.audit.points import Pair, Points, judged, rounding
from kdcompress.evaluation.audit.radius import rival_margin
from kdcompress.evaluation.audit.starts import random_starts
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.jacobian import cosine, directions, logits_and_rows, relative_residual
from kdcompress.maths.margins import KeptMargin, Network, margins, nonlinearity, slack, terms_at_image
from kdcompress.maths.norms import steepest
from kdcompress.report import FreeDirections, HeldAt, MarginTerms, Premise, Proposition1
from kdcompress.settings import AuditSettings
from kdcompress.threat import ThreatModel

ARITHMETIC = 1e-9
"""Of the largest term, or of 1 where that is smaller: what float64 may get wrong, with a thousandfold to spare."""
SEARCHES = (
    "student's margin remainder",
    "teacher's margin remainder",
    "student's least margin",
    "teacher's least margin",
)


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
    memory: int | None = None,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proposition1:
    """Every premise and every term of the inequality, and how many images each holds for.

    Four searches an image and rival: either network's remainder, and either network's least margin.

    Guarantees:
        After merging, the inequality holds at every point that any search found.
        The same seed gives the same record, whatever the batch and the memory (to rounding of float32).

    Args:
        student, teacher: eval mode, frozen, (B, C, H, W) in [0,1] -> logits (B, K).
        classes: K.
        teacher_certified: (N,), radii of the threat's norm within which the teacher's class is proved to be the label,
            by sound bounds; without them premise (12) can only be falsified.
        memory: bytes that may be taken; None for a share of what is free.
        folder: see `over_chunks`.

    Raises:
        TooLargeError: if one rival of one image does not fit in memory.
        ValueError: if a search finds the teacher's class changed inside its certified radius.
    """
    pair = Pair.of(student, teacher, settings.batch_size)
    M = min(2 * settings.rivals, classes - 1)
    one = next(images.batches(1, device=device))[0].double()
    passes = [bytes_of_pass(exact, one) for exact in (pair.exact_student, pair.exact_teacher)]
    entries = one.numel()
    fits = room(
        memory_limit(memory, device),
        # Both networks' margin gradients, twice; the sums over the Jacobians' rows, and what these are made from.
        image=sum(passes) + DOUBLE * entries * (4 * M + 16),
        row=max(passes) + DOUBLE * entries * (16 + 2 * settings.restarts),  # a search's points, and copies of one
        rows_an_image=M,
        most=settings.batch_size,
    )
    found = over_chunks(
        "Proposition 1",
        lambda x, y, names: examined(pair, x, y, names, threat, settings, M, rows=fits.rows),
        images,
        networks=(student, teacher),
        size=fits.images,
        device=device,
        folder=folder,
        on_progress=on_progress,
    )
    return _record(found, threat, settings, (M, classes), teacher_certified)


@dataclass(frozen=True)
class Centre:
    """One network at x, in float64: logits (B, K), m_k (B, M) and grad m_k (B, M, D) of the rivals, grad CE (B, D)."""

    logits: Tensor
    margin: Tensor
    gradient: Tensor
    loss_gradient: Tensor


@dataclass(frozen=True)
class AtPoints:
    """What is known of P points of each image.

    Attributes:
        margin_s, margin_t: m_k(x + d), (B, P, M). remainder_s, remainder_t: of their linear expansions, (B, P, M).
        stood: whether the student sees the label, (B, P). same: whether the teacher sees what it sees in x, (B, P).
        least: the student's least margin over all classes, (B, P).
    """

    margin_s: Tensor
    margin_t: Tensor
    remainder_s: Tensor
    remainder_t: Tensor
    stood: Tensor
    same: Tensor
    least: Tensor


def nearest_rivals(student: Tensor, teacher: Tensor, y: Tensor, M: int) -> Tensor:
    """The M classes nearest by either network's logits (B, K), but y, (B, M): each one's nearest M / 2 are among them.

    >>> student, teacher = torch.tensor([[9.0, 1, 2, 3, 4]]), torch.tensor([[9.0, 4, 3, 2, 1]])
    >>> sorted(nearest_rivals(student, teacher, torch.tensor([0]), 2)[0].tolist())
    [1, 4]
    """
    own = torch.zeros_like(teacher).scatter_(1, y[:, None], 1.0).bool()
    by_teacher, by_student = (_ranks(f.masked_fill(own, -torch.inf)) for f in (teacher, student))
    nearest: Tensor = (
        torch.minimum(by_teacher, by_student).masked_fill(own, own.shape[1]).sort(stable=True, dim=1).indices
    )
    return nearest[:, :M]


def _ranks(f: Tensor) -> Tensor:
    """Of every class, 0 for the largest logit, (B, K)."""
    return f.sort(stable=True, dim=1, descending=True).indices.argsort(1)


def examined(
    pair: Pair,
    x: Tensor,
    y: Tensor,
    names: Sequence[str],
    threat: ThreatModel,
    settings: AuditSettings,
    M: int,
    *,
    rows: int,
) -> Found:
    """Some images' answers, (B, ...) each; `rows` of their rivals are searched at once, at least one of each image."""
    s, t, rivals, jacobians = _centres(pair, x, y, M)

    def at(points: Points) -> AtPoints:
        student, teacher = _network(s, points.student, y, rivals), _network(t, points.teacher, y, rivals)
        P = points.delta.shape[1]
        return AtPoints(
            margin_s=student.at_points,
            margin_t=teacher.at_points,
            remainder_s=student.remainders(points.delta),
            remainder_t=teacher.remainders(points.delta),
            stood=points.student.argmax(2) == y[:, None],
            same=points.teacher.argmax(2) == t.logits.argmax(1)[:, None],
            least=-rival_margin(points.student.flatten(0, 1), y.repeat_interleave(P)).view(-1, P),
        )

    at_x = at(judged(pair, x, [x], threat))
    apart = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    alone: dict[str, Tensor] = {}
    parts = [at_x]
    for search, slots in product(SEARCHES, torch.split(torch.arange(M), max(1, rows // len(x)))):
        for number, run in enumerate(
            searched(search, pair, x, y, names, rivals[:, slots], slots, (s, t), threat, settings)
        ):
            points = judged(pair, x, run.unbind(1), threat)
            part = at(points)
            parts.append(part)
            if (search, number, int(slots[0])) == (SEARCHES[0], 0, 0):
                apart = rounding(pair, run[:, 0], points, 0)
            if search in SEARCHES[:2]:
                r = part.remainder_s if search == SEARCHES[0] else part.remainder_t
                own = torch.zeros_like(at_x.remainder_s[:, 0]).index_copy(
                    1, slots.to(x.device), r[:, range(len(slots)), slots]
                )
                alone[search] = torch.maximum(alone.get(search, own), own)
    everywhere = _together(parts)
    student, teacher = (
        Network(centre.margin, centre.gradient, margin)
        for centre, margin in ((s, everywhere.margin_s), (t, everywhere.margin_t))
    )
    kept = KeptMargin(
        *terms_at_image(student, teacher, threat),
        remainder_s=everywhere.remainder_s.amax(1),
        remainder_t=everywhere.remainder_t.amax(1),
    )
    alone_s, alone_t = (alone[search] for search in SEARCHES[:2])
    missed = (kept.remainder_s - alone_s).clamp_min(0) + (kept.remainder_t - alone_t).clamp_min(0)
    left = slack(student, teacher, kept)
    least_t = teacher.at_points.amin(1)
    guaranteed = least_t - kept.lost
    tolerated = ARITHMETIC * kept.lost.clamp_min(1)
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
    centred_s, centred_t = (at.logits - at.logits.mean(1, keepdim=True) for at in (s, t))
    return {
        "right": (s.logits.argmax(1) == y) & (t.logits.argmax(1) == y),
        "teacher_right": t.logits.argmax(1) == y,
        "falsified": ~everywhere.same.all(1),
        "stood": everywhere.stood.all(1),
        "residual": relative_residual(s.loss_gradient, t.loss_gradient),
        "cosine": cosine(s.loss_gradient, t.loss_gradient),
        "difference": relative_residual(centred_s, centred_t),
        "nonlinear_s": nonlinearity(kept.remainder_s, s.gradient, threat).amax(1),
        "nonlinear_t": nonlinearity(kept.remainder_t, t.gradient, threat).amax(1),
        **{name: values.gather(1, binding)[:, 0] for name, values in chosen.items()},
        "student_margin": everywhere.least.amin(1),
        "exceeded": (left < missed[:, None] - tolerated[:, None]).flatten(1).any(1),
        "violated": (left < -tolerated[:, None]).flatten(1).any(1),
        **jacobians,
        "rounding": apart,
    }


def searched(
    search: str,
    pair: Pair,
    x: Tensor,
    y: Tensor,
    names: Sequence[str],
    rivals: Tensor,
    slots: Tensor,
    centres: tuple[Centre, Centre],
    threat: ThreatModel,
    settings: AuditSettings,
) -> list[Tensor]:
    """What one of `SEARCHES` found for some rivals, (B, m), run by run: points (B, m, C, H, W).

    Args:
        slots: which of the centres' M rivals these are, (m,).
    """
    whose = 0 if search.startswith("student") else 1
    model, centre = (pair.student, pair.teacher)[whose], centres[whose]
    m = rivals.shape[1]
    rows_x, rows_y, rows_k = x.repeat_interleave(m, 0), y.repeat_interleave(m), rivals.flatten()
    value = centre.margin[:, slots].flatten().to(x.dtype)
    gradient = centre.gradient[:, slots].to(x.dtype).view_as(rows_x)

    def margin(at: Tensor) -> Tensor:
        f = model(at)
        of_rows: Tensor = (f.gather(1, rows_y[:, None]) - f.gather(1, rows_k[:, None]))[:, 0]
        return of_rows

    def remainder(at: Tensor) -> Tensor:
        return margin(at) - value - ((at - rows_x) * gradient).flatten(1).sum(1)

    of_rows = [f"{name} {k}" for name, row in zip(names, rivals.tolist(), strict=True) for k in row]
    starts = partial(random_starts, rows_x, of_rows, threat, seed=settings.seed, purpose=search)
    if search in SEARCHES[:2]:
        drawn = starts(count=2 * settings.restarts)
        found = extremes(remainder, rows_x, gradient, threat, steps=settings.steps, starts=drawn)
    else:
        end = rows_x - threat.eps * steepest(gradient, threat.norm)
        drawn = [end, *starts(count=settings.restarts)]
        found = [ascend(lambda at: -margin(at), rows_x, start, threat, steps=settings.steps) for start in drawn]
    return [run.view(len(x), m, *x.shape[1:]) for run in found]


def _centres(pair: Pair, x: Tensor, y: Tensor, M: int) -> tuple[Centre, Centre, Tensor, Found]:
    """Both networks at x, the rivals (B, M), and what their Jacobians differ by: row by row, K x D being too much."""
    exact = x.double()
    networks = (pair.exact_student, pair.exact_teacher)
    (f_s, rows_s), (f_t, rows_t) = (logits_and_rows(model, exact) for model in networks)
    rivals = nearest_rivals(f_s, f_t, y, M)
    gradients = [exact.new_zeros(len(x), M, exact[0].numel()) for _ in networks]
    sizes = [exact.new_zeros(len(x)) for _ in range(2)]  # of the teacher's rows, and of their sum
    shift = exact.new_zeros(len(x), exact[0].numel())

    def differences() -> Iterator[Tensor]:
        for k, rows in enumerate(zip(rows_s, rows_t, strict=True)):
            image, slot = (rivals == k).nonzero(as_tuple=True)
            for gradient, row in zip(gradients, rows, strict=True):
                gradient[y == k] += row[y == k][:, None]
                gradient[image, slot] -= row[image]
            sizes[0].add_(rows[1].square().sum(1))
            shift.add_(rows[1])
            yield rows[0] - rows[1]

    parts = directions(differences(), f_t, y)
    sizes[1] = shift.square().sum(1) / f_t.shape[1]
    apart = (parts.constrained + parts.free).sqrt()
    of_teacher = (sizes[0] - sizes[1]).clamp_min(0).sqrt()
    centres = [
        Centre(
            f,
            margins(f, y, rivals),
            gradient,
            logits_and_input_gradient(model, exact, y, create_graph=False)[1].flatten(1),
        )
        for f, gradient, model in zip((f_s, f_t), gradients, networks, strict=True)
    ]
    jacobians = {
        "constrained": parts.constrained,
        "common": parts.common,
        "free": parts.free,
        "weight": parts.weight,
        "apart": torch.where(apart == 0, 0.0, apart / of_teacher),
    }
    return centres[0], centres[1], rivals, jacobians


def _network(at_x: Centre, logits: Tensor, y: Tensor, rivals: Tensor) -> Network:
    return Network(at_x.margin, at_x.gradient, margins(logits, y, rivals))


def _together(parts: Sequence[AtPoints]) -> AtPoints:
    return AtPoints(*(torch.cat([getattr(part, of.name) for part in parts], 1) for of in fields(AtPoints)))


def _record(
    found: Found, threat: ThreatModel, settings: AuditSettings, of: tuple[int, int], certified: Tensor | None
) -> Proposition1:
    """Args: of: M rivals, K classes."""
    M, classes = of
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
        classes=classes,
        seed=settings.seed,
        attack=attack_name(settings, M),
        teacher_constant="".join(
            "c" if sure else "x" if lost else "."
            for sure, lost in zip(proved.tolist(), found["falsified"].tolist(), strict=True)
        ),
        constant=rate(constant),
        certified=None if certified is None else rate(proved),
        certified_tried=None if certified is None else int(found["teacher_right"].sum()),
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
