"""One batch of eight small images."""

import pytest
import torch

from tests.unit.engine.networks import CLASSES, Batch


@pytest.fixture
def batch() -> Batch:
    """x, y, g_t."""
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(8, 2, 6, 6, generator=rng)
    return x, torch.arange(8) % CLASSES, 0.1 * torch.randn(8, 2, 6, 6, generator=rng)
