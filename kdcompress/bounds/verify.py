"""What bounds prove of an image: margins, whether no point of the ball is misclassified, how large the ball may be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdcompress.bounds.crown import crown, margins
from kdcompress.bounds.graph import Network, trace
from kdcompress.bounds.interval import Box, interval_margins
from kdcompress.bounds.memory import SHARE, available_memory, rows_within
from kdcompress.bounds.region import Region, region
from kdcompress.bounds.steps import Shape
from kdcompress.bounds.work import MOST, work
from kdcompress.errors import UnsupportedLayerError, UsageError
from kdcompress.maths.radii import first_order_radius
from kdcompress.threat import Norm

TOLERANCE = 0.02
"""Of the largest certified eps: the next that was tried and not certified is at most so much larger."""
SMALLEST = 1e-5
"""Below this, an eps that is not certified counts as zero."""
NEAR = 0.03
"""Of the way from the margin to its bound: what rounding in float32 may cost at most, from which on float64 is idle."""


@dataclass(frozen=True, eq=False)
class Bounded:
    """A network made ready for bounds.

    Attributes:
        network: its steps, weights in float64.
        fast: in float32 on a CPU; where float32 may be rounded coarsely, the same as `network`.
        rows: coefficients' rows at a time.
    """

    model: nn.Module
    network: Network
    fast: Network
    rows: int


def bounded(model: nn.Module, input_size: Shape, *, memory: int | None = None, most_work: float = MOST) -> Bounded:
    """Trace a network, and see what a bound costs, and how much of it fits in memory.

    Args:
        model: eval mode, (B, C, H, W) in [0,1] -> (B, K).
        memory: bytes that bounds may take; None for a quarter of what is free.
        most_work: multiply-accumulates of one bound of one image beyond which the network is too large.

    Raises:
        UnsupportedLayerError: `not supported: <layer>`, or `too large: ...`: for the work, or for what is free.
        UsageError: if the memory that was named is not enough for one row.
    """
    network = trace(model, input_size)
    if (expected := work(network)) > most_work:
        said = f"one bound of one image takes {expected:.1g} multiply-accumulates, over {most_work:.1g}"
        raise UnsupportedLayerError(f"too large: {said}")
    device = next(model.parameters(), torch.empty(0)).device
    limit = int(SHARE * available_memory(device)) if memory is None else memory
    fast = network.to(torch.float32) if _rounds_to_float32(device) else network
    try:
        return Bounded(model, network, fast, rows_within(network, limit))
    except UsageError as error:
        if memory is not None:
            raise
        raise UnsupportedLayerError(f"too large: {error}") from None


@torch.no_grad()
def margin_bounds(subject: Bounded, inputs: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    """Lower bounds of f_y - f_k over each image's ball, for all k but y, ascending: (B, K - 1), float64.

    By CROWN, or by intervals where these are better.

    Guarantees:
        No point of the ball within [0,1] has a smaller margin; in exact arithmetic of the network's own weights.
        At eps = 0 the margins themselves, to float64.
        Not below the interval bound.

    Args:
        inputs: (B, C, H, W) in [0,1].
        labels: (B,).
        norm: Linf or L2.
        eps: at least 0.
    """
    found = []
    for x, y in zip(inputs, labels.tolist(), strict=True):
        ball = region(x, norm, eps)
        known = crown(subject.network, subject.fast, ball, rows=subject.rows)
        found.append(torch.maximum(margins(known, y), interval_margins(subject.network, ball, y)))
    return torch.stack(found)


@dataclass(frozen=True)
class Certificate:
    """What is proved of one image.

    Attributes:
        verified: for each eps asked for, ascending.
        largest: the largest eps that was certified, to `TOLERANCE`; 0 where none was; None where it was not sought.
    """

    verified: tuple[bool, ...]
    largest: float | None


def certificate(
    subject: Bounded,
    x: Tensor,
    y: int,
    norm: Norm,
    radii: tuple[float, ...],
    *,
    broken_at: float = math.inf,
    largest: bool = True,
) -> Certificate:
    """Certify an image at the radii, and find the largest radius at which it can be certified.

    The radii are tried from the smallest up to the first that is not certified. Then, between the largest eps certified
    and the smallest not certified, the next is where a straight line between their margins crosses zero, kept to the
    middle half; what a bound settled about a larger ball stays settled in a smaller one.

    Guarantees:
        An eps is certified only by a bound at this eps or a larger one.
        Depends on the image alone: not on others, nor on their order.

    Args:
        x: (C, H, W) in [0,1].
        y: its label.
        radii: ascending.
        broken_at: an eps at which an attack is known to succeed: nothing is tried from there on.
    """
    search = _Search(subject, x, y, norm, broken_at)
    for eps in radii:
        if eps >= search.high or not search.certifies(eps, precise=True):
            break
    if largest:
        search.narrow()
    return Certificate(tuple(eps <= search.low for eps in radii), search.low if largest else None)


class _Search:
    """Between `low`, the largest eps that is certified, and `high`, the smallest that is not."""

    def __init__(self, subject: Bounded, x: Tensor, y: int, norm: Norm, broken_at: float) -> None:
        self.subject, self.x, self.y, self.norm = subject, x, y, norm
        self.outer: Mapping[int, Box] | None = None
        with torch.no_grad():
            logits = subject.network.values(x[None].double())[-1][0]
        others = torch.arange(len(logits), device=logits.device) != y
        self.clean = float((logits[y] - logits[others]).amin())
        self.low, self.high = 0.0, broken_at if self.clean > 0 else 0.0
        self.at_low, self.at_high = self.clean, -math.inf

    def certifies(self, eps: float, *, precise: bool = False) -> bool:
        """Whether eps is certified; remembered as `low` or `high`."""
        margin = self._margin(eps, precise)
        if margin > 0:
            self.low, self.at_low = eps, margin
        else:
            self.high, self.at_high = eps, margin
        return margin > 0

    @torch.no_grad()
    def _margin(self, eps: float, precise: bool) -> float:
        """A lower bound of the smallest margin: by intervals; by CROWN in the fast type; in float64 if that is near."""
        subject, ball = self.subject, region(self.x, self.norm, eps)
        margin = float(interval_margins(subject.network, ball, self.y).amin())
        before = self.outer
        for exactly in (False, True):
            if margin > 0 or (exactly and not (precise and margin > -NEAR * (self.clean - margin))):
                break
            margin, self.outer = self._by_crown(ball, exactly)
        if margin > 0:  # larger balls may follow, which this one's boxes do not hold
            self.outer = before
        return margin

    def _by_crown(self, ball: Region, precise: bool) -> tuple[float, Mapping[int, Box]]:
        """The smallest margin's bound, and the boxes: of all that is known no more is kept, for the memory's sake."""
        subject = self.subject
        known = crown(subject.network, subject.fast, ball, rows=subject.rows, precise=precise, outer=self.outer)
        return float(margins(known, self.y).amin()), known.boxes

    def narrow(self) -> None:
        """Close in to the tolerance."""
        whole = 1.0 if self.norm == "Linf" else math.sqrt(self.x.numel())  # the ball that holds all of [0,1]^D
        if self.high > whole:
            label = torch.tensor([self.y], device=self.x.device)
            guess = float(first_order_radius(self.subject.model, self.x[None], label, self.norm)) / 4
            eps = max(2 * self.low, guess, SMALLEST)
            while eps < whole and self.certifies(eps):
                eps *= 2
            if self.high > whole:
                self.certifies(whole)
        while self.high > max(self.low * (1 + TOLERANCE), SMALLEST) and self.low < whole:
            share = 0.5 if math.isinf(self.at_high) else self.at_low / (self.at_low - self.at_high)
            self.certifies(self.low + min(max(share, 0.25), 0.75) * (self.high - self.low))


def _rounds_to_float32(device: torch.device) -> bool:
    """Whether products of float32 are made and summed as such: not in TF32 or bfloat16, as some settings allow."""
    onednn: Any = torch.backends.mkldnn
    kinds = {onednn.conv.fp32_precision, onednn.matmul.fp32_precision}
    return device.type == "cpu" and torch.get_float32_matmul_precision() == "highest" and kinds <= {"none", "ieee"}
