"""How much a bound costs, before any is tried."""

import math

from kdcompress.bounds.graph import Network
from kdcompress.bounds.steps import Convolution, Dense, Relu, Step

MOST = 1e12
"""Multiply-accumulates of one bound of one image beyond which none is tried: about a minute on one thread."""


def work(network: Network) -> float:
    """Multiply-accumulates of tracing back one row for every entry that goes into a ReLU: what CROWN costs at most.

    Half of them and less where many signs are settled by intervals, up to three times as many where few are settled.
    """
    behind: list[set[int]] = [set()]
    for number, step in enumerate(network.steps, start=1):
        behind.append({number}.union(*(behind[i] for i in step.inputs)))
    targets = {step.inputs[0] for step in network.steps if isinstance(step, Relu)}
    return float(
        sum(
            math.prod(network.shape_of(target)) * sum(_macs(network.steps[i - 1]) for i in behind[target])
            for target in targets
        )
    )


def _macs(step: Step) -> int:
    entries = math.prod(step.shape)
    if isinstance(step, Convolution):
        return entries * math.prod(step.weight.shape[1:])
    return entries * step.weight.shape[1] if isinstance(step, Dense) else entries
