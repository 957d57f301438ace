import pytest
import torch

from kdcompress.maths.linearity import first_order_remainder, remainder

G = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DELTA = 0.1 * torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LOSS = torch.linspace(0, 2, 5, dtype=torch.float64)
RISE = (G * DELTA).flatten(1).sum(1)


def test_the_remainder_is_zero_where_the_loss_is_linear_on_the_ball() -> None:
    assert first_order_remainder(LOSS, LOSS + RISE, G, DELTA) < 1e-14


def test_the_remainder_is_zero_where_loss_is_constant_and_gradient_zero() -> None:
    assert first_order_remainder(LOSS, LOSS, torch.zeros_like(G), DELTA) == 0


def test_the_remainder_is_infinite_where_loss_is_constant_and_gradient_is_not_zero() -> None:
    assert first_order_remainder(LOSS, LOSS, G, DELTA) == torch.inf


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_the_remainder_is_the_share_of_the_change_that_the_gradient_misses(share: float) -> None:
    found = first_order_remainder(LOSS, LOSS + RISE / (1 - share), G, DELTA)
    assert found.item() == pytest.approx(share, rel=1e-9)


def test_the_remainder_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    change = torch.tensor([1.0, 3.0])
    missed = torch.tensor([1.0, 0.0])
    g = (change - missed).view(2, 1, 1, 1)
    found = first_order_remainder(torch.zeros(2), change, g, torch.ones(2, 1, 1, 1))
    assert found.item() == pytest.approx(1 / 4)


def test_the_remainder_of_each_function_at_each_point_is_what_its_gradient_misses() -> None:
    gradient = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    delta = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    value = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    bend = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    values = torch.zeros(2, 5, 3, dtype=torch.float64)
    for i in range(2):
        for p in range(5):
            for k in range(3):
                values[i, p, k] = value[i, k] + delta[i, p] @ gradient[i, k] + bend[i, p, k]
    torch.testing.assert_close(remainder(values, value, gradient, delta), bend.abs(), rtol=1e-12, atol=1e-14)
