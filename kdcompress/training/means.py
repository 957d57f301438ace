"""Running means over an epoch, kept on the device: reading them costs a synchronisation."""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Means:
    """Of the loss and its terms, and of the terms' weights.

    Attributes:
        sums: of each term, a float64 or float32 scalar on the device.
        counts: steps that took the term: it is averaged over those.
        weights: the sum of each term's weight over all steps.
        skipped: steps that were not finite; they are in none of the others.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    weights: Counter[str] = field(default_factory=Counter)
    skipped: int = 0

    def add(self, values: dict[str, Tensor], weights: dict[str, float]) -> None:
        """What one step saw."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
            self.counts[name] += 1
        self.weights.update(weights)

    def read(self) -> dict[str, float]:
        """The means so far."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}
