"""The lowest value of a linear function over the ball, cut to [0,1]."""

import pytest
import torch
from scipy.optimize import minimize

from kdcompress.bounds.region import Region, region
from kdcompress.errors import UsageError
from tests.bounded import points


def linear(count: int = 6, size: int = 12) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def image(at_the_edge: bool) -> torch.Tensor:
    x = 0.2 + 0.6 * torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(1))
    if at_the_edge:
        x.view(-1)[:5] = torch.tensor([0.0, 1.0, 0.0, 0.02, 0.99])
    return x


def solved(ball: Region, a: torch.Tensor) -> float:
    """By a solver of constrained problems."""
    sides = list(zip(ball.low.flatten().tolist(), ball.high.flatten().tolist(), strict=True))
    inside = {"type": "ineq", "fun": lambda d: ball.eps**2 - d @ d, "jac": lambda d: -2 * d}
    answer = minimize(
        lambda d: float(a.numpy() @ d), [0.0] * len(a), jac=lambda d: a.numpy(), bounds=sides, constraints=inside
    )
    return float(answer.fun)


def test_linf_is_exact_at_a_corner_of_the_box() -> None:
    ball, a = region(image(True), "Linf", 0.1), linear()
    low, high = ball.extent(a)
    corner = torch.where(a > 0, ball.low.flatten(), ball.high.flatten())
    torch.testing.assert_close(low, (a * corner).sum(1))
    torch.testing.assert_close(high, -ball.extent(-a)[0])


def test_l2_away_from_the_borders_is_the_dual_norm() -> None:
    ball, a = region(image(False), "L2", 0.15), linear()
    torch.testing.assert_close(ball.extent(a)[0], -0.15 * a.norm(dim=1))


@pytest.mark.parametrize("eps", [0.05, 0.3, 1.0, 3.0])
def test_l2_at_the_borders_is_never_above_the_minimum_and_within_a_hundredth_of_it(eps: float) -> None:
    ball, a = region(image(True), "L2", eps), linear()
    for row, found in zip(a, ball.extent(a)[0].tolist(), strict=True):
        truth = solved(ball, row)
        assert found <= truth + 1e-6  # the solver's own tolerance
        assert found >= truth * 1.01


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_no_point_of_the_region_lies_outside_the_extent(norm: str) -> None:
    ball, a = region(image(True), norm, 0.2), linear()  # type: ignore[arg-type]
    values = (points(ball, 400) - ball.x).flatten(1) @ a.t()
    low, high = ball.extent(a)
    assert (values >= low - 1e-12).all() and (values <= high + 1e-12).all()  # float64


def test_at_eps_zero_nothing_moves() -> None:
    for norm in ("Linf", "L2"):
        low, high = region(image(True), norm, 0.0).extent(linear())  # type: ignore[arg-type]
        assert low.abs().max() == high.abs().max() == 0


def test_what_bounds_are_not_made_for_is_refused() -> None:
    with pytest.raises(UsageError, match="--norm Linf or L2"):
        region(image(False), "L1", 0.1)
    with pytest.raises(ValueError, match=r"expected x in \[0, 1\]"):
        region(image(False) + 1, "Linf", 0.1)
