"""The set that a bound must hold on: the ball around one image, cut to [0,1]."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdcompress.errors import UsageError
from kdcompress.threat import Norm

TRIES = 4
"""Values of the multiplier that are tried for an L2 ball cut by the box; the best counts."""


@dataclass(frozen=True, eq=False)
class Region:
    """All d with ||d|| <= eps and x + d in [0,1]^D, float64.

    Attributes:
        x: (1, C, H, W).
        low, high: (1, C, H, W): the smallest box around the set, low <= 0 <= high.
    """

    x: Tensor
    norm: Norm
    eps: float
    low: Tensor
    high: Tensor

    def extent(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """(a lower bound of min a.d, an upper bound of max a.d) over the set, (R, D) -> (R,) each: exact for Linf."""
        low, high = self.low.flatten(), self.high.flatten()
        middle, wide = a @ ((high + low) / 2), a.abs() @ ((high - low) / 2)
        if self.norm != "L2":
            return middle - wide, middle + wide
        least, most = self._least(a, low, high), -self._least(-a, low, high)
        return torch.maximum(least, middle - wide), torch.minimum(most, middle + wide)

    def _least(self, a: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """max over m > 0 of sum_i min over d_i in [low_i, high_i] of (a_i d_i + m d_i^2 / 2) - m eps^2 / 2.

        Each m gives a lower bound (weak duality), and the best m the minimum. m starts where the ball alone would have
        it, with the entries that can move towards their sign; then follows m <- ||a on the entries inside|| / what
        those at the edge leave of the radius.
        """
        inside = torch.where(a > 0, low, high) != 0
        left = torch.full((len(a),), max(self.eps**2, 1e-300), dtype=a.dtype, device=a.device)  # eps may be 0
        best = torch.full_like(left, -torch.inf)
        for _ in range(TRIES):
            m = ((a * inside).square().sum(1) / left).sqrt().clamp(min=1e-30)[:, None]
            d = torch.minimum(torch.maximum(-a / m, low), high)
            best = torch.maximum(best, (a * d + m * d.square() / 2).sum(1) - m[:, 0] * self.eps**2 / 2)
            inside = (d > low) & (d < high)
            left = (self.eps**2 - (d * ~inside).square().sum(1)).clamp(min=max(1e-6 * self.eps**2, 1e-300))
        return best


def region(x: Tensor, norm: Norm, eps: float) -> Region:
    """The ball of radius eps >= 0 around x (C, H, W) in [0,1], cut to [0,1].

    Raises:
        UsageError: if the norm is L1: bounds are for Linf and L2.
    """
    if norm == "L1":
        raise UsageError("sound bounds need --norm Linf or L2, got L1")
    x = x.double()[None]
    if not bool(((x >= 0) & (x <= 1)).all()) or eps < 0:
        raise ValueError(f"expected x in [0, 1] and eps >= 0, got {float(x.amin())} to {float(x.amax())}, eps {eps}")
    return Region(x, norm, eps, (-x).clamp(min=-eps), (1 - x).clamp(max=eps))
