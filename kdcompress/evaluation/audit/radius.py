"""The student's radius beside the teacher's: from above by attack, from below by certificates that the caller has."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcompress.attacks.ascent import ascend
from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.audit.chunks import over_chunks
from kdcompress.evaluation.audit.numbers import finite, finite_median, rounded
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.norms import full_precision, norm_of, steepest, uniform_in_ball
from kdcompress.maths.randomness import generator
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
    model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel, settings: AuditSettings, *, purpose: str
) -> tuple[Tensor, Tensor]:
    """The point of largest rival margin that was found, (B, C, H, W), and whether it is misclassified, (B,).

    From the end of the ball along the gradient of CE, and from random starts.
    """
    rng = generator(settings.seed, f"{purpose} {threat}")
    _, gradient = logits_and_input_gradient(model, inputs, labels, create_graph=False)
    starts = [inputs + threat.eps * steepest(gradient, threat.norm)]
    starts += [inputs + uniform_in_ball(inputs, threat, rng) for _ in range(settings.restarts)]
    best, best_value = inputs, _rival(model, inputs, labels)
    for start in starts:
        found = ascend(lambda x: rival_margin(model(x), labels), inputs, start, threat, steps=settings.steps)
        value = _rival(model, found, labels)
        best = torch.where((value > best_value).view(-1, 1, 1, 1), found, best)
        best_value = torch.maximum(value, best_value)
    return best, best_value > 0


def ascent_name(settings: AuditSettings) -> str:
    """What `broken_points` tries."""
    return f"margin ascent, {settings.steps} steps, {1 + settings.restarts} start{'s' if settings.restarts else ''}"


def attacked_radius(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    norm: Norm,
    eps: Sequence[float],
    settings: AuditSettings,
    *,
    purpose: str,
) -> Tensor:
    """The distance of the nearest misclassified point found, (B,), inf where none was: an upper bound on the radius.

    The ball grows through `eps`; where it holds a misclassified point, the way there is halved for one that is nearer.

    Guarantees:
        There is a misclassified point in [0,1]^D at that distance (to rounding of float32).
        Exact for a linear network of two classes whose boundary is within the largest eps (to a thousandth; Linf, L2;
        where the ball lies in [0,1]^D).

    | case          | value |
    |---------------|-------|
    | misclassified | 0     |

    Args:
        eps: ascending.
    """
    wrong = _rival(model, inputs, labels) > 0
    radius = torch.where(wrong, 0.0, torch.inf)
    for one in eps:
        left = radius.isinf().nonzero()[:, 0]
        if len(left) == 0:
            break
        x, y = inputs[left], labels[left]
        found, broken = broken_points(model, x, y, ThreatModel(norm, one), settings, purpose=purpose)
        nearer = norm_of(_halved(model, x, found, y) - x, norm)
        radius[left] = torch.where(broken, nearer, radius[left])
    return radius


def _rival(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return rival_margin(model(inputs), labels)


def _halved(model: nn.Module, inputs: Tensor, found: Tensor, labels: Tensor) -> Tensor:
    """The nearest misclassified point on the way from x to the one found, by halving; the one found at worst."""
    low, high = torch.zeros_like(inputs[:, :1, :1, :1]), torch.ones_like(inputs[:, :1, :1, :1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        wrong = (_rival(model, inputs + middle * (found - inputs), labels) > 0).view_as(middle)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return inputs + high * (found - inputs)


def compared_radii(
    student: nn.Module,
    teacher: nn.Module,
    images: Split,
    norm: Norm,
    eps: Sequence[float],
    settings: AuditSettings,
    *,
    device: torch.device,
    student_certified: Tensor | None = None,
    teacher_certified: Tensor | None = None,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RadiusCompared:
    """Proposition 1's conclusion looked at: is the student's radius at least the teacher's?

    Guarantees:
        An upper bound by attack below a sound lower bound is an error in one of them, and raises.

    Args:
        eps: ascending; the largest is the end of the search.
        student_certified, teacher_certified: (N,), sound lower bounds of the same norm, around the label's class.
        folder: see `over_chunks`.

    Raises:
        ValueError: if an attack breaks an image inside its own certified radius.
    """
    found = over_chunks(
        lambda x, y, number: {
            name: attacked_radius(model, x, y, norm, eps, settings, purpose=f"radius of the {name}, {number}")
            for name, model in (("student", student), ("teacher", teacher))
        },
        images,
        size=settings.batch_size,
        device=device,
        folder=folder,
        on_progress=on_progress,
    )
    for name, certified in (("student", student_certified), ("teacher", teacher_certified)):
        _refuse_contradiction(name, found[name], certified)
    of_student, of_teacher = found["student"], found["teacher"]
    return RadiusCompared(
        norm=norm,
        n=len(images),
        attack=f"{ascent_name(settings)}, at {len(eps)} radii, then halving",
        largest=max(eps),
        student_at_most=finite(of_student),
        teacher_at_most=finite(of_teacher),
        student_at_least=None if student_certified is None else rounded(student_certified),
        teacher_at_least=None if teacher_certified is None else rounded(teacher_certified),
        median_student=finite_median(of_student),
        median_teacher=finite_median(of_teacher),
        below=rate(of_student < of_teacher),
        proved_smaller=None if teacher_certified is None else rate(of_student < teacher_certified.cpu()),
    )


def _refuse_contradiction(name: str, found: Tensor, certified: Tensor | None) -> None:
    # A thousandth: points and distances are float32, bounds may be float64.
    if certified is not None and bool((found < 0.999 * certified.cpu()).any()):
        worst = int((certified.cpu() - found).argmax())
        raise ValueError(
            f"the {name}'s image {worst} is certified to {certified[worst]:g} and broken at {found[worst]:g}: the "
            "certificates are not sound, or are of other images or another norm"
        )
