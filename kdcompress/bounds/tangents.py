"""What is known about one image's region, and what coefficients are multiplied with on their way back through it.

Rounding. Coefficients are float32 or float64, all else float64. Where A L is computed, each product and sum rounds:
|fl(A L) - A L| <= g |A| |L|, with g = n u / (1 - n u), n roundings one after the other, u half the machine's epsilon
(Higham 2002, Accuracy and Stability of Numerical Algorithms, Lemma 3.1 and Eq. 3.5). Times a deviation of at most D
this is at most |A| . g |L| D, which every step takes off the bound. It holds for any order of summation, so for what
oneDNN does with a convolution on a CPU; not for TF32 or bfloat16, so that elsewhere float64 is used.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdcompress.bounds.graph import Network
from kdcompress.bounds.interval import OUTWARD, Box
from kdcompress.bounds.lines import Lines
from kdcompress.bounds.region import Region
from kdcompress.bounds.steps import Relu

MORE_ROUNDINGS = 8
"""Beside the products of a step: of the weight, of a ReLU's slope, of sums over branches; and to spare."""


@dataclass(frozen=True, eq=False)
class Factors:
    """What a ReLU's coefficients A are multiplied with.

    With A+ = (A + |A|) / 2 and A- = (A - |A|) / 2, so that A times the slopes, the lower line's where A is positive,
    else the upper line's, is A mean + |A| half, and all constants are two products with narrow matrices. Slopes come
    out to relative rounding: 0 where alpha is, since both factors are s / 2 there; where alpha is 1, s is over a half.

    Attributes:
        mean, half: (1, *shape).
        signed, sized: (N, 3): columns for the lower line's constant, the slack, the rounding of the step before.
    """

    mean: Tensor
    half: Tensor
    signed: Tensor
    sized: Tensor


@dataclass(frozen=True, eq=False)
class Tangents:
    """What is known about one image's region, by number of value; filled from the first step on.

    Attributes:
        network: weights in float64.
        fast: weights in the type of coefficients where that is enough.
        values: at the image, (1, *shape) each.
        boxes: of the deviations.
        lines: of ReLUs.
        carried: of affine steps, |L| D, (1, *shape).
        summed: of affine steps, what the value at the image was summed from, (1, *shape).
        uses: by how many steps each value is taken.
        first: the values that go into a ReLU with no ReLU before them. Their boxes are as good as the image's region:
            where a row's sign is not settled there, it is hardly ever settled sooner.
    """

    network: Network
    fast: Network
    region: Region
    values: list[Tensor]
    boxes: dict[int, Box]
    uses: Mapping[int, int]
    first: frozenset[int]
    lines: dict[int, Lines] = field(default_factory=dict)
    carried: dict[int, Tensor] = field(default_factory=dict)
    summed: dict[int, Tensor] = field(default_factory=dict)
    _factors: dict[tuple[int, torch.dtype], Factors] = field(default_factory=dict)

    def rounding(self, number: int, dtype: torch.dtype) -> Tensor:
        """g |L| D of affine step `number`, and what its value at the image may be off by: (1, *shape), float64."""
        step = self.network.steps[number - 1]
        assert not isinstance(step, Relu)
        return _g(step.terms, dtype) * self.carried[number] + OUTWARD * self.summed[number]

    def charges_for(self, number: int) -> int | None:
        """The affine step before ReLU `number`, if its rounding is taken off by the ReLU's factors.

        So it is where coefficients come back from the ReLU alone, and their absolute values are at hand there.
        """
        (before,) = self.network.steps[number - 1].inputs
        return before if before and self.uses[before] == 1 else None

    def factors(self, number: int, dtype: torch.dtype) -> Factors:
        """Of ReLU `number`, made once."""
        if (number, dtype) not in self._factors:
            self._factors[number, dtype] = self._made(number, dtype)
        return self._factors[number, dtype]

    def _made(self, number: int, dtype: torch.dtype) -> Factors:
        lines, charged = self.lines[number], self.charges_for(number)
        mean, half = (lines.alpha + lines.s) / 2, (lines.alpha - lines.s) / 2
        if charged is None:  # the product's own rounding alone: in a sum of branches it may outlast what it was part of
            e = _g(0, dtype) * self.boxes[self.network.steps[number - 1].inputs[0]].radius
        else:
            e = self.rounding(charged, dtype)
        signed = ((lines.t_low + lines.t_high) / 2, (lines.gap_low - lines.gap_high) / 2, half * e)
        sized = ((lines.t_low - lines.t_high) / 2, (lines.gap_low + lines.gap_high) / 2, mean * e)
        columns = [torch.cat([flat(c.to(dtype)) for c in side]).t().contiguous() for side in (signed, sized)]
        return Factors(in_layout(mean.to(dtype)), in_layout(half.to(dtype)), *columns)


def begin(network: Network, fast: Network, region: Region) -> Tangents:
    """The region, and the values at the image."""
    after, uses = set[int](), Counter(i for step in network.steps for i in step.inputs)
    for number, step in enumerate(network.steps, start=1):
        if isinstance(step, Relu) or after & set(step.inputs):
            after.add(number)
    first = frozenset(step.inputs[0] for step in network.steps if isinstance(step, Relu)) - after
    boxes = {0: Box(region.low, region.high)}
    return Tangents(network, fast, region, network.values(region.x), boxes, uses, first)


def _g(terms: int, dtype: torch.dtype) -> float:
    n = (terms + MORE_ROUNDINGS) * torch.finfo(dtype).eps / 2
    return n / (1 - n)


def in_layout(A: Tensor) -> Tensor:
    """A as convolutions like it in memory: channels last in float32, first in float64."""
    return A.contiguous(memory_format=torch.channels_last) if _channels_last(A) else A.contiguous()


def flat(A: Tensor) -> Tensor:
    """(R, N), the entries in the order in which `in_layout` has them."""
    return (A.permute(0, 2, 3, 1) if _channels_last(A) else A).flatten(1)


def _channels_last(A: Tensor) -> bool:
    return A.dim() == 4 and A.dtype == torch.float32
