"""How much of the teacher's margin the student keeps in the ball: what does hold where Proposition 1 assumes too much.

B batch, P points of each image's ball, M rival classes, D entries of an image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdcompress.maths.linearity import remainder
from kdcompress.maths.norms import dual_exponent, flat_norm
from kdcompress.threat import ThreatModel


def margins(logits: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    """m_k = f_y - f_k for each rival k of each image: (B, M) of logits (B, K), (B, P, M) of logits (B, P, K).

    Args:
        labels: y, (B,). rivals: (B, M).
    """
    y, k = labels[:, None], rivals
    if logits.dim() == 3:
        y, k = (index[:, None].expand(-1, logits.shape[1], -1) for index in (y, k))
    return logits.gather(-1, y) - logits.gather(-1, k)


def margin_gradients(jacobian: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    """grad m_k = J_y - J_k, (B, M, D), of a Jacobian (B, K, D)."""
    y, k = (index[:, :, None].expand(-1, -1, jacobian.shape[2]) for index in (labels[:, None], rivals))
    return jacobian.gather(1, y) - jacobian.gather(1, k)


@dataclass(frozen=True)
class Network:
    """One network around x.

    Attributes:
        margin: m_k(x), (B, M).
        gradient: grad m_k(x), (B, M, D).
        at_points: m_k(x + d), (B, P, M).
    """

    margin: Tensor
    gradient: Tensor
    at_points: Tensor

    def remainders(self, delta: Tensor) -> Tensor:
        """|m_k(x + d) - m_k(x) - d . grad m_k(x)|, (B, P, M), for the points' d (B, P, D)."""
        return remainder(self.at_points, self.margin, self.gradient, delta)


@dataclass(frozen=True)
class KeptMargin:
    """m_k^s(x + d) >= m_k^t(x + d) - logits - gradients - remainder_s - remainder_t, for every d in the ball; (B, M).

    Attributes:
        logits: |Delta m_k(x)|, Delta standing for student minus teacher.
        gradients: delta ||Delta grad m_k(x)||_q, delta the radius.
        remainder_s, remainder_t: R_k, the largest remainder of each network's own linear expansion over the ball: over
            the points found, and so estimates from below.
    """

    logits: Tensor
    gradients: Tensor
    remainder_s: Tensor
    remainder_t: Tensor

    @property
    def lost(self) -> Tensor:
        """The most of the teacher's margin that the student may lack, (B, M): an estimate, as the remainders are."""
        return self.logits + self.gradients + self.remainder_s + self.remainder_t


def kept_margin(student: Network, teacher: Network, delta: Tensor, ball: ThreatModel) -> KeptMargin:
    """The terms of the margin inequality, with the remainders' largest values over the points.

    Source: written for this project (`m^s = m^t + Delta m(x) + d . Delta grad m(x) + r^s - r^t`, and Hoelder's
    inequality); it needs neither premise of Proposition 1.

    Guarantees:
        Holds at every one of the points (to rounding), whatever they are, if they lie in the ball.
        Tight for linear networks: equality at the d that Hoelder's inequality turns into one.

    Args:
        delta: the points' d, (B, P, D).
    """
    return KeptMargin(
        *terms_at_image(student, teacher, ball),
        remainder_s=student.remainders(delta).amax(1),
        remainder_t=teacher.remainders(delta).amax(1),
    )


def terms_at_image(student: Network, teacher: Network, ball: ThreatModel) -> tuple[Tensor, Tensor]:
    """The two terms that no search is needed for: |Delta m_k(x)| and delta ||Delta grad m_k(x)||_q, (B, M) each."""
    step = student.gradient - teacher.gradient
    gradients = ball.eps * flat_norm(step.flatten(0, 1), dual_exponent(ball.norm)).view(step.shape[:2])
    return (student.margin - teacher.margin).abs(), gradients


def slack(student: Network, teacher: Network, kept: KeptMargin) -> Tensor:
    """Left side minus right side of the inequality at every point, (B, P, M): never negative for the points' own R."""
    return student.at_points - (teacher.at_points - kept.lost[:, None])


def nonlinearity(largest_remainder: Tensor, gradient: Tensor, ball: ThreatModel) -> Tensor:
    """R_k / (delta ||grad m_k(x)||_q), (B, M): the remainder over the most that the linear part can change in the ball.

    0 where the network is linear, also where it is constant; inf where only the linear part is.
    """
    linear = ball.eps * flat_norm(gradient.flatten(0, 1), dual_exponent(ball.norm)).view(gradient.shape[:2])
    return torch.where(largest_remainder == 0, 0.0, largest_remainder / linear)
