from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """Gives every weight and statistic a value of its own, so that no layer acts as the identity or as another."""

    def randomise(network: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for key, value in network.state_dict().items():
            if key.endswith(("running_var", "bn1.weight")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
        return network.eval()

    return randomise
