"""Proposition 2: how far the student's loss may be from the teacher's in the ball.

B batch, P points of each image's ball, D entries of an image.
"""

from dataclasses import dataclass

from torch import Tensor

from kdcompress.maths.linearity import remainder
from kdcompress.maths.norms import dual_exponent, flat_norm
from kdcompress.threat import ThreatModel


@dataclass(frozen=True)
class Loss:
    """One network's CE around x.

    Attributes:
        value: CE(f(x), y), (B,).
        gradient: grad_x CE(f(x), y), (B, D).
        at_points: CE(f(x + d), y), (B, P).
    """

    value: Tensor
    gradient: Tensor
    at_points: Tensor

    def remainders(self, delta: Tensor) -> Tensor:
        """|CE(f(x + d)) - CE(f(x)) - d . g|, (B, P), for the points' d (B, P, D)."""
        return remainder(self.at_points[:, :, None], self.value[:, None], self.gradient[:, None], delta)[:, :, 0]


@dataclass(frozen=True)
class LossBound:
    """The terms of the right side of (26), (B,) each, for every d in the ball of radius delta.

    Attributes:
        remainder_s, remainder_t: LLM, the largest remainder of each network's CE: over the points found, and so
            estimates from below.
        losses: |CE_s(x) - CE_t(x)|.
        losses_of_paper: CE_s(x) + CE_t(x), which (26) has in its place.
        gradients: delta ||g_s - g_t||_q, q the dual exponent: 2 for L2, 1 for Linf.
    """

    remainder_s: Tensor
    remainder_t: Tensor
    losses: Tensor
    losses_of_paper: Tensor
    gradients: Tensor

    @property
    def tight(self) -> Tensor:
        """LLM_s + LLM_t + |CE_s - CE_t| + delta ||g_s - g_t||_q, (B,)."""
        return self.remainder_s + self.remainder_t + self.losses + self.gradients

    @property
    def of_paper(self) -> Tensor:
        """(26) as printed: the same with CE_s + CE_t, (B,)."""
        return self.remainder_s + self.remainder_t + self.losses_of_paper + self.gradients


def loss_bound(student: Loss, teacher: Loss, delta: Tensor, ball: ThreatModel) -> LossBound:
    """Both right sides of (26), with LLM's largest values over the points.

    Source: eq. 26, appendix of arXiv:2110.12072. It adds the two losses where their difference does.

    Guarantees:
        |CE_s(x + d) - CE_t(x + d)| <= tight <= of_paper at every one of the points, if they lie in the ball (to
        rounding).
        Tight for losses that are linear: equality at the d that Hoelder's inequality turns into one.

    Args:
        delta: the points' d, (B, P, D).
    """
    return LossBound(
        remainder_s=student.remainders(delta).amax(1),
        remainder_t=teacher.remainders(delta).amax(1),
        losses=(student.value - teacher.value).abs(),
        losses_of_paper=student.value + teacher.value,
        gradients=ball.eps * flat_norm(student.gradient - teacher.gradient, dual_exponent(ball.norm)),
    )


def gaps(student: Loss, teacher: Loss) -> Tensor:
    """The left side of (26) at every point: |CE_s(x + d) - CE_t(x + d)|, (B, P)."""
    return (student.at_points - teacher.at_points).abs()
