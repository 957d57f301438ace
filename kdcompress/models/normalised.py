"""Normalisation as the first layer, so that every network takes pixels in [0,1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NormalisedModel(nn.Module):
    """x in [0,1]^(B,C,H,W) -> network((x - mean) / std), logits of shape (B, K).

    Gradients with respect to x are then in one space whatever statistics each network was trained with, and eps has
    one meaning.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        super().__init__()
        self.network = network
        # Not persistent: the record holds them, so that the saved keys are those of the network alone.
        for name, values in (("mean", mean), ("std", std)):
            shaped = None if values is None else torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, shaped, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of `inputs` (B, C, H, W) in [0,1]."""
        if self.mean is not None and self.std is not None:
            inputs = (inputs - self.mean) / self.std
        logits: Tensor = self.network(inputs)
        return logits
