"""Points that searches found, judged in float64. B batch, P points of each image, K classes, D entries of an image."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcompress.attacks.pgd import into_ball
from kdcompress.threat import ThreatModel


@dataclass(frozen=True)
class Pair:
    """Student and teacher, in eval mode and frozen: as they are, for searching, and in float64, for judging."""

    student: nn.Module
    teacher: nn.Module
    exact_student: nn.Module
    exact_teacher: nn.Module
    batch_size: int

    @classmethod
    def of(cls, student: nn.Module, teacher: nn.Module, batch_size: int) -> "Pair":
        """Both with copies in float64, of the same weights."""
        return cls(student, teacher, deepcopy(student).double(), deepcopy(teacher).double(), batch_size)


@dataclass(frozen=True)
class Points:
    """P points of each image's ball: d (B, P, D), and both networks' logits at x + d, (B, P, K); float64."""

    delta: Tensor
    student: Tensor
    teacher: Tensor


def judged(pair: Pair, inputs: Tensor, found: Sequence[Tensor], threat: ThreatModel) -> Points:
    """The points, brought into the ball in float64, where what float32 left outside would count as a violation.

    Args:
        found: P tensors (B, C, H, W), one point of each image in each.
    """
    x = inputs.double()
    moved = torch.stack([into_ball(x, point.double() - x, threat) for point in found], 1)
    flat = moved.flatten(0, 1)
    student, teacher = (
        _logits(model, flat, pair.batch_size).view(*moved.shape[:2], -1)
        for model in (pair.exact_student, pair.exact_teacher)
    )
    return Points((moved - x[:, None]).flatten(2), student, teacher)


def rounding(pair: Pair, found: Tensor, points: Points, place: int) -> Tensor:
    """Twice the largest difference of a logit between a network as it is and in float64, at one point an image, (B,).

    Neither a margin nor a loss can differ by more.

    Args:
        found: the points, (B, C, H, W); in `points` they are number `place`.
    """
    apart = [
        (_logits(model, found, pair.batch_size).double() - exact[:, place]).abs().amax(1)
        for model, exact in ((pair.student, points.student), (pair.teacher, points.teacher))
    ]
    return 2 * torch.maximum(*apart)


def _logits(model: nn.Module, inputs: Tensor, batch_size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.split(inputs, batch_size)])
