"""Interval bounds: each step's value lies in a box if its inputs do.

Everything is told as a deviation d = v(x') - v(x) from the value at the image, which is known: small where eps is
small, and so is what rounding does to it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdcompress.bounds.graph import Network
from kdcompress.bounds.region import Region
from kdcompress.bounds.steps import Affine, Relu

OUTWARD = 1e-11
"""The share of all that a float64 sum adds up by which it may be off: some 40,000 roundings, no layer has so many."""


@dataclass(frozen=True, eq=False)
class Box:
    """low <= d <= high, each (1, *shape), float64, with low <= 0 <= high: d = 0 at the image itself."""

    low: Tensor
    high: Tensor

    @property
    def radius(self) -> Tensor:
        """The most that |d| can be."""
        return torch.maximum(-self.low, self.high)

    def within(self, low: Tensor, high: Tensor) -> "Box":
        """What of this box lies in another that holds d too."""
        return Box(torch.maximum(self.low, low.clamp(max=0)), torch.minimum(self.high, high.clamp(min=0)))


def added_up(step: Affine, inputs: list[Tensor], value: Tensor) -> Tensor:
    """At least |L| |v| + |b|, (1, *shape): what `value`, the step's own at the image, was summed from."""
    return 2 * step.absolute(*(v.abs() for v in inputs)) + value.abs()


def through_affine(step: Affine, boxes: list[Box], summed: Tensor) -> Box:
    """The box of L d: centre L c, radius |L| r.

    Args:
        summed: as `added_up` gives it: the value that d is told from has rounding of its own.
    """
    centre = step.linear(*((box.high + box.low) / 2 for box in boxes))
    radius = step.absolute(*((box.high - box.low) / 2 for box in boxes))
    slack = OUTWARD * (2 * radius + summed)  # |c| <= r, since a box holds 0
    return Box((centre - radius - slack).clamp(max=0), (centre + radius + slack).clamp(min=0))


def through_relu(box: Box, before: Tensor) -> Box:
    """The box of relu(p + d) - relu(p), with p the value before."""
    now = before.clamp(min=0)
    return Box((before + box.low).clamp(min=0) - now, (before + box.high).clamp(min=0) - now)


def intervals(network: Network, region: Region) -> list[Box]:
    """Boxes of all values over the region, by intervals alone.

    Source: Gowal et al. (2018), arXiv:1810.12715, Eq. 6, in centre and radius.

    Guarantees:
        Every value at every point of the region lies in its box.

    Args:
        network: weights in float64.
    """
    values = network.values(region.x)
    boxes = [Box(region.low, region.high)]
    for number, step in enumerate(network.steps, start=1):
        boxes.append(
            through_relu(boxes[step.inputs[0]], values[step.inputs[0]])
            if isinstance(step, Relu)
            else through_affine(
                step,
                [boxes[i] for i in step.inputs],
                added_up(step, [values[i] for i in step.inputs], values[number]),
            )
        )
    return boxes


def interval_margins(network: Network, region: Region, label: int) -> Tensor:
    """Lower bounds of f_y - f_k by intervals alone, for all other classes k, ascending: (K - 1,), float64."""
    logits, box = network.values(region.x)[-1][0], intervals(network, region)[-1]
    low, high = logits + box.low[0], logits + box.high[0]
    others = torch.arange(len(logits), device=logits.device) != label
    return low[label] - high[others]
