"""A recipe: what the loop needs to know of a loss, and no more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Generator, Tensor

Terms = dict[str, Tensor]
"""Per-example losses by name, each (B,), unweighted."""

Weights = Mapping[str, float]


@dataclass(frozen=True)
class Recipe:
    """L = sum over names of weights(step, steps)[name] * mean(terms[name]).

    Composing the two keeps the loop ignorant of losses and the losses ignorant of training.

    Attributes:
        terms: (network in train mode, weights, inputs (B, C, H, W) in [0,1], labels (B,)) -> per-example terms. A batch
            from a teacher cache has the teacher's lesson behind the labels; see `kdcompress.training.lessons`. A term
            that costs passes of its own and weighs nothing is left out.
        weights: (step from 0, steps in all) -> the weight of each term.
        chance: what the terms draw from, by purpose.
    """

    terms: Callable[..., Terms]
    weights: Callable[[int, int], dict[str, float]]
    chance: Mapping[str, Generator] = field(default_factory=dict)
