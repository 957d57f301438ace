"""Two lines about each ReLU, between which it stays as long as its input stays in its interval."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdcompress.bounds.interval import Box


@dataclass(frozen=True, eq=False)
class Lines:
    """alpha d + t_low <= relu(p + d) - relu(p) <= s d + t_high, entry by entry; float64.

    Attributes:
        alpha, s: (1, *shape), numbers that float32 can hold: 1 where the ReLU is always on, 0 where it is always off.
        t_low, t_high: (1, *shape), zero at both of these.
        gap_low, gap_high: by how much at most the function lies above the lower line, below the upper line.
    """

    alpha: Tensor
    s: Tensor
    t_low: Tensor
    t_high: Tensor
    gap_low: Tensor
    gap_high: Tensor


def adaptive_lines(before: Tensor, box: Box) -> Lines:
    """With l <= p + d <= u: the chord s = u / (u - l) above; below, alpha = 1 where u > -l, else 0.

    Source: Zhang et al. (2018), arXiv:1811.00866, Table 2 and section 3.3, in deviations. Slopes are rounded to float32
    first, and the constants made for the rounded slopes.

    Guarantees:
        The function lies between the lines on the whole interval, and no further from them than the gaps.

    Args:
        before: p, the values at the image, (1, *shape).
        box: of d.
    """
    p, dl, du = before, box.low, box.high
    least, most, now = p + dl, p + du, p.clamp(min=0)
    stable, on = (least >= 0) | (most <= 0), (least >= 0).to(p.dtype)
    alpha = torch.where(stable, on, (most > -least).to(p.dtype))
    s = torch.where(stable, on, (most / (most - least)).float().to(p.dtype))
    # The function is convex: it lies furthest above a line at an end, furthest below it at its kink, d = -p.
    ends = least.clamp(min=0) - now, most.clamp(min=0) - now
    t_high = torch.maximum(ends[0] - s * dl, ends[1] - s * du)
    t_low = torch.where(alpha == 1, -(-p).clamp(min=0), -now)
    gap_low = torch.maximum(ends[0] - alpha * dl, ends[1] - alpha * du) - t_low
    gap_high = t_high + now - s * p
    constants = (c.masked_fill(stable, 0) for c in (t_low, t_high, gap_low, gap_high))
    return Lines(alpha, s, *constants)
