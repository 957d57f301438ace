"""The first-order estimate in a report."""

import pytest
import torch
from torch import nn

from kdcompress.data import Split
from kdcompress.evaluation.certificates import first_order

CPU = torch.device("cpu")


def test_the_first_order_estimate_of_a_linear_network_is_its_median_distance(bright: nn.Module, greys: Split) -> None:
    for norm, factor in (("Linf", 1.0), ("L2", 3.0)):
        found = first_order(bright, greys, norm, batch_size=7, device=CPU)  # type: ignore[arg-type]
        levels = torch.arange(91, 166, 3).double()
        distance = (levels / 255 - 0.5).abs() * factor
        distance[-1] = 0  # misclassified
        assert found.kind == "estimate" and found.n == 25 and found.norm == norm
        assert found.median == pytest.approx(float(distance.median()), rel=1e-4)  # float32 pixels


def test_a_network_without_gradients_has_no_estimate(greys: Split) -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], 1)

    zeros = greys.subset([0, 1, 2])
    assert first_order(Constant().eval(), zeros, "Linf", batch_size=5, device=CPU) is None
