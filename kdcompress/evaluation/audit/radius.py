"""The student's radius beside the teacher's: from above by attack, from below by certificates that the caller has."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcompress.attacks.ascent import ascend
from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.audit.chunks import Found, over_chunks
from kdcompress.evaluation.audit.memory import DOUBLE, bytes_of_pass, memory_limit
from kdcompress.evaluation.audit.numbers import finite_median, finite_up, rounded_down
from kdcompress.evaluation.audit.points import Pair
from kdcompress.evaluation.audit.starts import random_starts
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.norms import full_precision, norm_of, steepest
from kdcompress.report import RadiusCompared
from kdcompress.settings import AuditSettings
from kdcompress.threat import Norm, ThreatModel

HALVINGS = 12
"""Of the way to a misclassified point: a four-thousandth of it is left in doubt."""


def rival_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} f_k - f_y, (B,): positive where misclassified; it does not saturate as CE does."""
    f = full_precision(logits)
    own = torch.zeros_like(f).scatter_(1, labels[:, None], 1.0).bool()
    return f.masked_fill(own, -torch.inf).amax(1) - f.gather(1, labels[:, None])[:, 0]


def broken_points(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    names: Sequence[str],
    threat: ThreatModel,
    settings: AuditSettings,
    *,
    purpose: str,
) -> tuple[Tensor, Tensor]:
    """The point of largest rival margin that was found, (B, C, H, W), and whether it is misclassified, (B,).

    From the end of the ball along the gradient of CE, and from random starts.

    Args:
        names: of the images, which the starts are drawn by: the same for every network.
    """
    _, gradient = logits_and_input_gradient(model, inputs, labels, create_graph=False)
    starts = [inputs + threat.eps * steepest(gradient, threat.norm)]
    starts += random_starts(inputs, names, threat, seed=settings.seed, purpose=purpose, count=settings.restarts)
    best, best_value = inputs, _rival(model, inputs, labels)
    for start in starts:
        found = ascend(lambda x: rival_margin(model(x), labels), inputs, start, threat, steps=settings.steps)
        value = _rival(model, found, labels)
        best = torch.where((value > best_value).view(-1, 1, 1, 1), found, best)
        best_value = torch.maximum(value, best_value)
    return best, _wrong(model, best, labels)


def ascent_name(settings: AuditSettings) -> str:
    """What `broken_points` tries."""
    return f"margin ascent, {settings.steps} steps, {1 + settings.restarts} start{'s' if settings.restarts else ''}"


def attacked_radius(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    names: Sequence[str],
    norm: Norm,
    eps: Sequence[float],
    settings: AuditSettings,
) -> tuple[Tensor, Tensor]:
    """The nearest misclassified point found, (B, C, H, W), and its distance, (B,), in float64: no radius is larger.

    The ball grows through `eps`; where it holds a misclassified point, the way there is halved for one that is nearer.

    Guarantees:
        The point is in [0,1]^D, and the network as it is misclassifies it.
        Exact for a linear network of two classes whose boundary is within the largest eps (to a thousandth; Linf, L2;
        where the ball lies in [0,1]^D).

    | case                       | distance |
    |----------------------------|----------|
    | misclassified              | 0        |
    | no misclassified point met | inf      |

    Args:
        names: of the images: see `broken_points`.
        eps: ascending.
    """
    nearest = inputs.clone()
    standing = ~_wrong(model, inputs, labels)
    for one in eps:
        left = standing.nonzero()[:, 0]
        if len(left) == 0:
            break
        x, y, of_left = inputs[left], labels[left], [names[i] for i in left.tolist()]
        found, broken = broken_points(model, x, y, of_left, ThreatModel(norm, one), settings, purpose="radius")
        nearest[left[broken]] = _halved(model, x, found, y)[broken]
        standing[left[broken]] = False
    distance = norm_of(nearest.double() - inputs.double(), norm)
    return nearest, torch.where(standing, torch.inf, distance)


def _rival(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return rival_margin(model(inputs), labels)


def _wrong(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """As accuracy is counted: of equal logits the first is seen."""
    with torch.no_grad():
        seen: Tensor = model(inputs).argmax(1)
    return seen != labels


def _halved(model: nn.Module, inputs: Tensor, found: Tensor, labels: Tensor) -> Tensor:
    """The nearest misclassified point on the way from x to the one found, by halving; the one found at worst."""
    low, high = torch.zeros_like(inputs[:, :1, :1, :1]), torch.ones_like(inputs[:, :1, :1, :1])
    best = found
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        point = inputs + middle * (found - inputs)
        wrong = _wrong(model, point, labels).view_as(middle)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        best = torch.where(wrong, point, best)
    return best


def compared_radii(
    student: nn.Module,
    teacher: nn.Module,
    images: Split,
    norm: Norm,
    eps: Sequence[float],
    settings: AuditSettings,
    *,
    device: torch.device,
    memory: int | None = None,
    student_certified: Tensor | None = None,
    teacher_certified: Tensor | None = None,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RadiusCompared:
    """Proposition 1's conclusion looked at: is the student's radius at least the teacher's?

    Guarantees:
        A point below a sound lower bound that is misclassified in float64 too is an error in one of them, and raises.
        Where student is teacher, no radius is below the other.
        The same seed gives the same record, whatever the batch and the memory (to rounding of float32).

    Args:
        eps: ascending; the largest is the end of the search.
        student_certified, teacher_certified: (N,), sound lower bounds of the same norm, around the label's class.
        memory: bytes that may be taken; None for a share of what is free.
        folder: see `over_chunks`.

    Raises:
        ValueError: if an attack breaks an image inside its own certified radius.
    """
    pair = Pair.of(student, teacher, settings.batch_size)

    def measured(x: Tensor, y: Tensor, names: Sequence[str]) -> Found:
        found = {}
        for name, model, exact in (
            ("student", pair.student, pair.exact_student),
            ("teacher", pair.teacher, pair.exact_teacher),
        ):
            point, found[name] = attacked_radius(model, x, y, names, norm, eps, settings)
            found[f"{name} in float64"] = _wrong(exact, point.double(), y)
        return found

    found = over_chunks(
        "radii",
        measured,
        images,
        networks=(student, teacher),
        size=searched_at_once(pair, images, settings, memory, device),
        device=device,
        folder=folder,
        on_progress=on_progress,
    )
    of_student, of_teacher = found["student"], found["teacher"]
    student_rounding, teacher_rounding = (
        _rounding(name, found[name], found[f"{name} in float64"], certified)
        for name, certified in (("student", student_certified), ("teacher", teacher_certified))
    )
    return RadiusCompared(
        norm=norm,
        n=len(images),
        attack=f"{ascent_name(settings)}, at {len(eps)} radii, then halving",
        largest=max(eps),
        student_at_most=finite_up(of_student),
        teacher_at_most=finite_up(of_teacher),
        student_at_least=None if student_certified is None else rounded_down(student_certified),
        teacher_at_least=None if teacher_certified is None else rounded_down(teacher_certified),
        rounding_student=student_rounding,
        rounding_teacher=teacher_rounding,
        median_student=finite_median(of_student),
        median_teacher=finite_median(of_teacher),
        below=rate(of_student < of_teacher),
        proved_smaller=None if teacher_certified is None else rate(of_student < teacher_certified.cpu()),
    )


def searched_at_once(
    pair: Pair, images: Split, settings: AuditSettings, memory: int | None, device: torch.device
) -> int:
    """Images that searches for a misclassified point take at once: those that fit in memory, one at least."""
    one = next(images.batches(1, device=device))[0].double()
    row = max(bytes_of_pass(exact, one) for exact in (pair.exact_student, pair.exact_teacher))
    row += DOUBLE * one.numel() * (16 + settings.restarts)
    return max(1, min(memory_limit(memory, device) // row, settings.batch_size))


def _rounding(name: str, found: Tensor, in_float64: Tensor, certified: Tensor | None) -> int:
    """How many images were broken inside their certified radius by the rounding of float32 alone."""
    if certified is None:
        return 0
    inside = found < 0.999 * certified.cpu()  # a thousandth: whoever certified may have counted in float32
    if bool((inside & in_float64).any()):
        worst = int(torch.where(inside & in_float64, certified.cpu() - found, -torch.inf).argmax())
        raise ValueError(
            f"the {name}'s image {worst} is certified to {certified[worst]:g} and broken at {found[worst]:g}: the "
            "certificates are not sound, or are of other images or another norm"
        )
    return int(inside.sum())
