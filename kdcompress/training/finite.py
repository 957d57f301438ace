"""A step whose loss or gradient is not finite is taken back: weights, averages and statistics are as if it never was.

One such batch would end a run: an average or a BatchNorm that has seen NaN never forgets it.
"""

import torch
from torch import Tensor, nn

PATIENCE = 10
"""Steps in a row that may be taken back. A batch that overflows comes alone; a network that has diverged does not come
back."""


class Finite:
    """Whether steps of `model` are finite, and its buffers from before the step in work."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = list(model.parameters())
        self.buffers = list(model.buffers())
        self.before = [buffer.clone() for buffer in self.buffers]

    def keep(self) -> None:
        """Called before the step's forward."""
        for before, buffer in zip(self.before, self.buffers, strict=True):
            before.copy_(buffer)

    def holds(self, loss: Tensor) -> bool:
        """Whether the loss and every weight's gradient are finite; 1e19 is taken for infinite. Waits for the device.

        Milliseconds on ResNet-18's 11M weights, whose step without any second derivative takes 112 (one thread of a
        shared two-core Xeon, torch 2.15, 2026-11-24): 2 by this norm, 32 by the largest entry, 16 by the sum of sizes.
        """
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        return bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)) & torch.isfinite(loss))

    def take_back(self) -> None:
        """Buffers as they were at `keep`; the weights have not moved yet."""
        for before, buffer in zip(self.before, self.buffers, strict=True):
            buffer.copy_(before)
