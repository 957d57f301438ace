"""CROWN against exact minima, against a naive matrix version of itself, and against what descent finds."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcompress.bounds import crown as crown_module
from kdcompress.bounds.backward import linear_bounds
from kdcompress.bounds.crown import crown, margins
from kdcompress.bounds.graph import Network, trace
from kdcompress.bounds.interval import interval_margins, intervals
from kdcompress.bounds.lines import Lines
from kdcompress.bounds.region import Region, region
from kdcompress.bounds.steps import Relu
from kdcompress.bounds.tangents import flat
from kdcompress.threat import Norm
from tests.bounded import exact_minimum, lowest_found, perceptron, points, ready, tangents

NORMS: tuple[Norm, ...] = ("Linf", "L2")
ROUNDING = 1e-9
"""Of float64 sums over networks of a few hundred entries, with room."""


def image(*shape: int) -> Tensor:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(2))
    x.view(-1)[0] = 0.0
    return x


def differences(label: int, classes: int) -> Tensor:
    """e_y - e_k for the other classes, (K - 1, K)."""
    rows = [k for k in range(classes) if k != label]
    return torch.eye(classes).double()[label] - torch.eye(classes).double()[rows]


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.2])
def test_a_linear_network_is_bounded_exactly(eps: float) -> None:
    torch.manual_seed(0)
    model = ready(nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(18, 3)))
    network, x = trace(model, (1, 4, 4)), image(1, 4, 4)
    ball = region(x, "Linf", eps)
    rows = differences(1, 3)
    grid = torch.eye(16).double().view(-1, 1, 4, 4)
    W = (network.values(grid)[-1] - network.values(torch.zeros(1, 1, 4, 4).double())[-1]).t()
    a = rows @ W
    exact = rows @ network.values(ball.x)[-1][0] + torch.where(
        a > 0, a * ball.low.flatten(), a * ball.high.flatten()
    ).sum(1)
    for single in (False, True):
        torch.testing.assert_close(margins(tangents(network, ball, single=single), 1), exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bounds_stay_below_the_exact_minimum_which_enumeration_finds(seed: int, eps: float) -> None:
    model = perceptron((3, 3, 3, 3), seed)
    network, ball = trace(model, (1, 1, 3)), region(image(1, 1, 3), "Linf", eps)
    exact = torch.tensor([exact_minimum(model, ball, row) for row in differences(0, 3)])
    found = margins(tangents(network, ball), 0)
    assert (found <= exact + 1e-7).all()  # the linear program's tolerance
    # CROWN with a handful of unstable units is not far off: a bound that gives up would not pass.
    spread = (differences(0, 3) @ network.values(ball.x)[-1][0] - exact).abs()
    assert (found >= exact - 1.5 * spread - ROUNDING).all()


def naive(model: nn.Sequential, ball: Region, rows: np.ndarray) -> np.ndarray:
    """CROWN of a perceptron as the paper has it: matrices, absolute values, every neuron bounded both ways."""
    layers = [(m.weight.double().numpy(), m.bias.double().numpy()) for m in model if isinstance(m, nn.Linear)]
    low, high = (ball.x + ball.low).flatten().numpy(), (ball.x + ball.high).flatten().numpy()
    bounds: list[tuple[np.ndarray, np.ndarray]] = []

    def lower(A: np.ndarray, depth: int) -> np.ndarray:
        """Of A (W_depth h + b_depth), h the ReLUs before."""
        constant = np.zeros(len(A))
        for layer in range(depth, -1, -1):
            W, b = layers[layer]
            constant += A @ b
            A = A @ W
            if layer:
                least, most = bounds[layer - 1]
                with np.errstate(invalid="ignore", divide="ignore"):
                    s = np.where(least >= 0, 1.0, np.where(most <= 0, 0.0, most / (most - least)))
                alpha = np.where(least >= 0, 1.0, np.where(most <= 0, 0.0, most > -least))
                shift = np.where((least < 0) & (most > 0), -s * least, 0.0)
                constant += np.minimum(A, 0) @ shift
                A = np.maximum(A, 0) * alpha + np.minimum(A, 0) * s
        return constant + np.maximum(A, 0) @ low + np.minimum(A, 0) @ high

    for depth in range(len(layers) - 1):
        unit = np.eye(len(layers[depth][1]))
        bounds.append((lower(unit, depth), -lower(-unit, depth)))
    return lower(rows, len(layers) - 1)


@pytest.mark.parametrize("eps", [0.01, 0.05, 0.15])
@pytest.mark.parametrize("seed", [0, 1])
def test_margins_equal_those_of_a_naive_version_with_matrices(seed: int, eps: float) -> None:
    model = perceptron((6, 12, 10, 8, 4), seed)
    network, ball = trace(model, (1, 1, 6)), region(image(1, 1, 6), "Linf", eps)
    expected = torch.from_numpy(naive(model, ball, differences(2, 4).numpy()))
    # Slopes are rounded to float32 here, and not there.
    for single in (False, True):
        torch.testing.assert_close(margins(tangents(network, ball, single=single), 2), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("single", [False, True])
def test_every_value_at_every_sampled_point_lies_in_its_box(
    residual: Network, norm: Norm, eps: float, single: bool
) -> None:
    ball = region(image(1, 6, 6), norm, eps)
    known = tangents(residual, ball, single=single, precise=not single)
    plain = intervals(residual, ball)
    for number, value in enumerate(residual.values(points(ball, 200))):
        d = value - known.values[number]
        for box in (known.boxes[number], plain[number]):
            assert (d >= box.low - ROUNDING).all() and (d <= box.high + ROUNDING).all()
        assert (known.boxes[number].low >= plain[number].low - ROUNDING).all()
        assert (known.boxes[number].high <= plain[number].high + ROUNDING).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.01, 0.05, 0.2])
def test_margins_are_below_all_that_descent_finds_and_above_the_intervals(
    residual: Network, norm: Norm, eps: float
) -> None:
    ball = region(image(1, 6, 6), norm, eps)
    found = margins(tangents(residual, ball), 0)
    assert (found <= lowest_found(residual, ball, differences(0, 3)) + ROUNDING).all()
    assert (found >= interval_margins(residual, ball, 0)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_at_eps_zero_margins_are_the_networks_own(residual: Network, norm: Norm) -> None:
    ball = region(image(1, 6, 6), norm, 0.0)
    own = differences(2, 3) @ residual.values(ball.x)[-1][0]
    torch.testing.assert_close(margins(tangents(residual, ball), 2), own, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("norm", NORMS)
def test_margins_fall_as_eps_rises(residual: Network, norm: Norm) -> None:
    found = [margins(tangents(residual, region(image(1, 6, 6), norm, eps)), 1) for eps in (0.0, 0.01, 0.03, 0.1, 0.3)]
    assert all((small >= large).all() for small, large in itertools.pairwise(found))


def test_how_many_rows_go_back_at_a_time_changes_nothing(residual: Network) -> None:
    ball = region(image(1, 6, 6), "Linf", 0.05)
    found = [margins(tangents(residual, ball, rows=rows), 0) for rows in (1, 5, 128)]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("eps", [0.02, 0.08])
def test_float32_loses_little_and_never_the_right_side(residual: Network, eps: float) -> None:
    ball = region(image(1, 6, 6), "Linf", eps)
    exact, fast = tangents(residual, ball), tangents(residual, ball, single=True, precise=False)
    clean = differences(0, 3) @ residual.values(ball.x)[-1][0]
    loss = margins(exact, 0) - margins(fast, 0)
    assert (loss >= -ROUNDING).all()
    assert (loss <= 0.01 * (clean - margins(exact, 0))).all()  # NEAR in bounds/verify.py is three times that


@pytest.mark.parametrize("norm", NORMS)
def test_a_float32_bound_is_below_the_float64_bound_of_the_same_lines(residual: Network, norm: Norm) -> None:
    """So the rounding that is taken off covers the rounding that there is; without it, the test fails."""
    ball = region(image(1, 6, 6), norm, 0.05)
    known = tangents(residual, ball, single=True, precise=False)
    uncharged = replace(known, carried={number: 0 * r for number, r in known.carried.items()}, _factors={})
    crossed = 0
    for target in {step.inputs[0] for step in residual.steps if type(step).__name__ == "Relu"} - {0}:
        A = torch.randn(64, *residual.shape_of(target), generator=torch.Generator().manual_seed(target))
        low, high = linear_bounds(known, target, A)
        exact = linear_bounds(known, target, A.double())
        assert (low <= exact[0]).all() and (high >= exact[1]).all()
        crossed += int((linear_bounds(uncharged, target, A)[0] > exact[0]).sum())
    assert crossed > 0


def test_a_relu_takes_off_the_rounding_of_the_step_before_it_along_the_slope_in_use(residual: Network) -> None:
    known = tangents(residual, region(image(1, 6, 6), "Linf", 0.05), single=True, precise=False)
    charged = 0
    for number, step in enumerate(residual.steps, start=1):
        if not isinstance(step, Relu) or (before := known.charges_for(number)) is None:
            continue
        factors, lines, e = (
            known.factors(number, torch.float32),
            known.lines[number],
            known.rounding(before, torch.float32),
        )
        for above, slope in ((factors.signed + factors.sized, lines.alpha), (factors.sized - factors.signed, lines.s)):
            expected = flat((slope * e).float())[0]
            torch.testing.assert_close(above[:, 2], expected, rtol=1e-5, atol=0)
            charged += int((expected > 0).sum())
    assert charged > 0


def test_the_high_side_that_comes_with_a_lower_bound_holds(residual: Network) -> None:
    ball = region(image(1, 6, 6), "Linf", 0.05)
    known = tangents(residual, ball)
    last = len(residual.steps)
    rows = differences(0, 3)
    low, high = linear_bounds(known, last, rows)
    values = (residual.values(points(ball, 300))[-1] - known.values[-1]) @ rows.t()
    assert (values >= low - ROUNDING).all() and (values <= high + ROUNDING).all()
    assert (high <= 3 * -low + 1).all()  # not a bound that gives up


def test_what_is_settled_in_a_larger_ball_is_settled_in_a_smaller_one(residual: Network) -> None:
    large = tangents(residual, region(image(1, 6, 6), "Linf", 0.06))
    ball = region(image(1, 6, 6), "Linf", 0.05)
    alone = tangents(residual, ball)
    helped = crown(residual, residual, ball, rows=16, outer=large.boxes)
    torch.testing.assert_close(margins(helped, 0), margins(alone, 0), rtol=0, atol=1e-6)


FAULTS: dict[str, Callable[[Lines], Lines]] = {
    "upper slope": lambda lines: replace(lines, s=lines.s.masked_fill(lines.gap_high > 0, 0)),
    "lower slope": lambda lines: replace(lines, alpha=torch.where(lines.gap_low > 0, 1 - lines.alpha, lines.alpha)),
    "upper constant": lambda lines: replace(lines, t_high=0 * lines.t_high),
    "lower constant": lambda lines: replace(lines, t_low=lines.t_low + lines.gap_low),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_wrong_line_is_found_out_by_descent(
    residual: Network, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Lines], Lines]
) -> None:
    ball = region(image(1, 6, 6), "Linf", 0.01)  # where few ReLUs are unstable, CROWN is 1e-5 from the truth
    attacked = lowest_found(residual, ball, differences(0, 3))
    assert (margins(tangents(residual, ball), 0) <= attacked).all()
    honest = crown_module.adaptive_lines
    monkeypatch.setattr(crown_module, "adaptive_lines", lambda before, box: fault(honest(before, box)))
    assert (margins(tangents(residual, ball), 0) > attacked + ROUNDING).any()
