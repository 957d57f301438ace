"""A linear function of a value, traced back through lines to the image: coefficients A of each value that it meets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdcompress.bounds.interval import Box
from kdcompress.bounds.steps import Relu
from kdcompress.bounds.tangents import Factors, Tangents, flat, in_layout

TINY = 1e-9
"""The share of float64 sums, of ten thousands of entries, that is taken off for their own rounding."""


@dataclass(eq=False)
class _Rows:
    """Rows on their way back: constants of the lower line, the slack, what rounding may have lost; (R,), float64."""

    low: Tensor
    slack: Tensor
    lost: Tensor

    def at(self, keep: Tensor) -> "_Rows":
        return _Rows(self.low[keep], self.slack[keep], self.lost[keep])


def linear_bounds(known: Tangents, target: int, A: Tensor, enough: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Bounds of A d over the region, d the deviation of value `target`: (low, high), (R,) each, float64.

    `low` is CROWN's. `high` follows from the same lines at hardly any cost, and is the weaker of the two: what A d may
    lie above its linear lower bound is at most what each ReLU may lie above the line that was taken for it.

    Guarantees:
        low <= A d <= high at every point of the region, rounding included.

    Args:
        A: (R, *shape), float64, or of the type of `known.fast`.
        enough: (R,): a row goes no further back once its lower bound, by the boxes of the first ReLUs, exceeds this.
    """
    network = known.network if A.dtype == torch.float64 else known.fast
    low = torch.empty(len(A), dtype=torch.float64, device=A.device)
    high, left = low.clone(), torch.arange(len(A), device=A.device)
    rows = _Rows(*torch.zeros(3, len(A), dtype=torch.float64, device=A.device))
    coefficients, charged = {target: A}, set[int]()
    for number in range(target, 0, -1):
        if number not in coefficients:
            continue
        A, step = in_layout(coefficients.pop(number)), network.steps[number - 1]
        if isinstance(step, Relu):
            parts: tuple[Tensor, ...] = (_through_lines(A, known.factors(number, A.dtype), rows),)
            charged |= {before} if (before := known.charges_for(number)) else set()
        else:
            if number not in charged:
                rows.lost += (flat(A).abs() @ flat(known.rounding(number, A.dtype).to(A.dtype))[0]).double()
            if enough is not None and number in known.first and not coefficients:
                reach = _reach(flat(A), known.boxes[number], rows)
                settled = reach[0] > enough[left]
                done, keep = left[settled], (~settled).nonzero().squeeze(1)
                low[done], high[done] = reach[0][settled], reach[1][settled]
                A, left, rows = A[keep], left[keep], rows.at(keep)
                if not len(left):
                    return low, high
            parts = step.transposed(A)
        for i, part in zip(step.inputs, parts, strict=True):
            coefficients[i] = coefficients[i] + part if i in coefficients else part
    if 0 in coefficients:
        a = coefficients[0].flatten(1).double()
        low[left], high[left] = known.region.extent(a)
        rows.lost += TINY * (a.abs() @ known.boxes[0].radius.flatten())
    else:  # no way leads to the image
        low[left] = high[left] = 0.0
    widest = max((vector.numel() for vector in known.carried.values()), default=0)
    rows.lost = rows.lost * (1 + widest * torch.finfo(A.dtype).eps) + TINY * rows.slack
    low[left] += rows.low - rows.lost
    high[left] += rows.low + rows.slack + rows.lost
    return low, high


def _reach(A: Tensor, box: Box, rows: _Rows) -> tuple[Tensor, Tensor]:
    """Bounds by a box on the way: A c -+ |A| r, widened by what these two sums may lose."""
    centre, radius = (flat(side.to(A.dtype))[0] for side in ((box.high + box.low) / 2, (box.high - box.low) / 2))
    loss = _sum_loss(A)
    # |c| <= r, since the box holds 0.
    middle, wide = (A @ centre).double(), (A.abs() @ radius).double() * (1 + loss)
    lost = rows.lost * (1 + loss) + TINY * rows.slack
    return rows.low + middle - wide - lost, rows.low + middle + wide + rows.slack + lost


def _through_lines(A: Tensor, factors: Factors, rows: _Rows) -> Tensor:
    """A times the slopes; constants go to `rows`."""
    size = A.abs()
    constants = (flat(A) @ factors.signed + flat(size) @ factors.sized).double()
    loss = _sum_loss(flat(A))
    rows.low += constants[:, 0]
    rows.slack += constants[:, 1] * (1 + 2 * loss)
    rows.lost += constants[:, 2] * (1 + 2 * loss) + constants[:, 1] * (
        2 * loss
    )  # no constant exceeds its gap twice over
    return (A * factors.mean).addcmul_(size, factors.half)


def _sum_loss(A: Tensor) -> float:
    """The relative error of a sum over a row of A, twice over."""
    return 2 * (A.shape[1] + 4) * torch.finfo(A.dtype).eps
