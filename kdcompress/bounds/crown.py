"""CROWN: the bounds that go into each ReLU, first to last, and then those of the margins.

Source: Zhang et al. (2018), arXiv:1811.00866, Thm. 3.2, with the adaptive lower slope of its section 3.3; over any
graph as in Xu et al. (2020), arXiv:2002.12920. Ours: all is told in deviations d = v(x') - v(x) from the image, so that
constants vanish but at unstable ReLUs and rounding is in proportion to the deviations; a row stops where its sign is
settled.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdcompress.bounds.backward import linear_bounds
from kdcompress.bounds.graph import Network
from kdcompress.bounds.interval import Box, added_up, through_affine, through_relu
from kdcompress.bounds.lines import Lines, adaptive_lines
from kdcompress.bounds.region import Region
from kdcompress.bounds.steps import Relu
from kdcompress.bounds.tangents import Tangents, begin


def crown(
    network: Network,
    fast: Network,
    region: Region,
    *,
    rows: int,
    precise: bool = True,
    outer: Mapping[int, Box] | None = None,
) -> Tangents:
    """All boxes and lines: intervals everywhere, and CROWN for what goes into a ReLU and may have either sign.

    Guarantees:
        Every value at every point of the region lies in its box.
        No box is wider than the interval's.

    Args:
        network: weights in float64.
        fast: weights in float32 on a CPU, else `network`.
        rows: coefficients' rows at a time.
        precise: float64 wherever a sign stays open; else rounding widens the boxes by a percent or so.
        outer: boxes of a larger region around the same image: a sign that is settled there is settled here.
    """
    known = begin(network, fast, region)
    lines: dict[int, Lines] = {}
    for number, step in enumerate(network.steps, start=1):
        if isinstance(step, Relu):
            before = step.inputs[0]
            if before not in lines:
                if outer is not None:
                    wider = outer[before]
                    known.boxes[before] = known.boxes[before].within(wider.low, wider.high)
                known.boxes[before], sides = _refined(known, before, rows, precise)
                lines[before] = adaptive_lines(known.values[before], sides)
            known.lines[number] = lines[before]
            known.boxes[number] = through_relu(known.boxes[before], known.values[before])
        else:
            inputs = [known.boxes[i] for i in step.inputs]
            known.summed[number] = added_up(step, [known.values[i] for i in step.inputs], known.values[number])
            known.boxes[number] = through_affine(step, inputs, known.summed[number])
            known.carried[number] = step.absolute(*(box.radius for box in inputs))
    return known


def margins(known: Tangents, label: int) -> Tensor:
    """Lower bounds of f_y - f_k over the region for all other classes k, ascending: (K - 1,), float64.

    Args:
        label: y.
    """
    logits = known.values[-1][0]
    others = [k for k in range(len(logits)) if k != label]
    C = torch.zeros(len(others), len(logits), dtype=torch.float64, device=logits.device)
    C[:, label] = 1
    C[torch.arange(len(others)), others] = -1
    return C @ logits + linear_bounds(known, len(known.network.steps), C)[0]


def _refined(known: Tangents, target: int, rows: int, precise: bool) -> tuple[Box, Box]:
    """(the box of value `target`, the box that its ReLU's lines are made for).

    First, in the fast type, the side that decides: what is positive at the image stays so if its lower bound says it.
    What is open after that gets the other side too; where `precise`, both in float64. Lines are made for CROWN's own
    bounds, where these leave the sign open: an interval that is a little tighter on one side turns a slope now and
    then, and the margins are those of no published method, and no better.
    """
    box, p = known.boxes[target], known.values[target].flatten()
    fast = torch.float64 if known.fast is known.network else torch.float32
    own_low, own_high = box.low.flatten().clone(), box.high.flatten().clone()
    low, high = own_low.clone(), own_high.clone()

    def bound(entries: Tensor, sign: Tensor, dtype: torch.dtype, enough: Tensor | None = None) -> None:
        A = torch.zeros(len(entries), len(p), dtype=dtype, device=p.device)
        A[torch.arange(len(entries)), entries] = sign.to(dtype)
        least, most = linear_bounds(known, target, A.view(-1, *box.low.shape[1:]), enough)
        up = sign > 0
        own_low[entries] = torch.where(up, least, own_low[entries])
        own_high[entries] = torch.where(up, own_high[entries], -least)
        low[entries] = torch.maximum(low[entries], torch.where(up, least, -most))
        high[entries] = torch.minimum(high[entries], torch.where(up, most, -least))

    sign = torch.where(p > 0, 1.0, -1.0).to(p.dtype)
    for entries in torch.split(_open(p, low, high), rows):
        bound(entries, sign[entries], fast, -p[entries].abs())
    for entries in torch.split(_open(p, low, high), rows):
        if precise and fast is not torch.float64:
            bound(entries, sign[entries], torch.float64)
        bound(entries, -sign[entries], torch.float64 if precise else fast)
    still = torch.zeros_like(p, dtype=torch.bool)
    still[_open(p, low, high)] = True
    return _box(low, high, box), _box(torch.where(still, own_low, low), torch.where(still, own_high, high), box)


def _box(low: Tensor, high: Tensor, like: Box) -> Box:
    return Box(low.clamp(max=0).view_as(like.low), high.clamp(min=0).view_as(like.high))


def _open(p: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The entries whose sign is not known."""
    return ((p + low < 0) & (p + high > 0)).nonzero().squeeze(1)
