"""The test at given radii: its errors by simulation, each look a moment to stop; and what it leaves undecided."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta
from scipy.stats import norm as gaussian

from kdcompress.maths.sequential import log_evidence_above
from kdcompress.maths.sequential_radius import RadiusTest, look, radius_test, sequential_cap
from kdcompress.maths.smoothed_radius import radius_cap

SIGMA = 0.5
RADII = tuple(SIGMA / 2 * step for step in range(6))
LOOKS = 50 * np.arange(1, 101)


def grid(n: int, alpha: float = 0.05, radii: tuple[float, ...] = RADII) -> RadiusTest:
    return radius_test(radii, sigma=SIGMA, n=n, alpha=alpha)


def counts(p: float, runs: int, seed: int) -> NDArray[np.int64]:
    """(runs, looks): successes so far."""
    return np.cumsum(np.random.default_rng(seed).binomial(50, p, (runs, len(LOOKS))), axis=1)


def certified(p: float, test: RadiusTest, successes: NDArray[np.int64]) -> tuple[int, int]:
    """One run: how many radii it certifies, and after how many draws."""
    passed = 0
    for n, count in zip(LOOKS, successes, strict=True):
        passed, is_over = look(test, passed, int(count), int(n))
        if is_over:
            break
    return passed, int(n)


def enough(X: float, alpha: float) -> NDArray[np.int64]:
    """The least successes at each look whose evidence for p > X is enough, by halving."""
    low, high = np.zeros_like(LOOKS), LOOKS + 1  # the evidence rises with successes
    while (low < high).any():
        middle = (low + high) // 2
        met = (log_evidence_above(np.minimum(middle, LOOKS), LOOKS, X) >= -math.log(alpha)) & (middle <= LOOKS)
        low, high = np.where(met | (low >= high), low, middle + 1), np.where(met, middle, high)
    return high


def simulation_error(alpha: float, runs: int) -> float:
    """Four standard errors of a share: exceeded by luck once in 30,000 seeds."""
    return 4 * math.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("at", [0, 2, 4])
def test_any_false_radius_is_ever_certified_with_probability_at_most_alpha(at: int) -> None:
    """At p = X_j errors are most likely: r_j and every larger radius would be false."""
    runs, test = 600, grid(int(LOOKS[-1]))
    found = [certified(test.X[at], test, row)[0] for row in counts(test.X[at], runs, seed=at)]
    assert sum(passed > at for passed in found) / runs <= test.alpha + simulation_error(test.alpha, runs)
    assert sum(passed == at for passed in found) / runs > 0.8  # the radii below are certified


def test_the_bound_does_not_come_from_giving_up() -> None:
    """The evidence for p > X at p = X, looked at 100 times and never given up."""
    runs, alpha = 3000, 0.05
    for X in (0.5, 0.9):
        ever = (counts(X, runs, seed=7) >= enough(X, alpha)).any(axis=1)
        assert alpha / 20 < ever.mean() <= alpha + simulation_error(alpha, runs)


def test_the_same_simulation_convicts_clopper_pearson_asked_at_every_look() -> None:
    X, alpha = 0.69, 0.05
    found = counts(X, 600, seed=0)
    low = beta.ppf(alpha, found, LOOKS - found + 1)
    assert (low > X).any(axis=1).mean() > 3 * alpha


def test_the_order_of_the_radii_is_what_spares_a_union_bound() -> None:
    """Tested apart at level alpha each, six nulls err more often than alpha: here p = X_j holds at all of them."""
    runs, alpha = 2000, 0.05
    apart = [(counts(0.5, runs, seed) >= enough(0.5, alpha)).any(axis=1) for seed in range(6)]
    assert np.logical_or.reduce(apart).mean() > alpha + simulation_error(alpha, runs)


@pytest.mark.parametrize("between", [0, 1, 3])
def test_it_certifies_the_radii_below_the_true_one_with_a_few_draws(between: int) -> None:
    test = grid(5000, alpha=0.001)
    p = float(gaussian.cdf((RADII[between] + SIGMA / 4) / SIGMA))  # halfway between two
    found = [certified(p, test, row) for row in counts(p, 100, seed=3)]
    assert sum(passed == between + 1 for passed, _ in found) >= 90  # giving up and the last draw cost some
    assert np.mean([n for _, n in found]) < 2500


def test_a_hopeless_image_costs_a_few_draws_and_certifies_nothing() -> None:
    test = grid(5000, alpha=0.001)
    found = [certified(0.3, test, row) for row in counts(0.3, 100, seed=0)]
    assert max(passed for passed, _ in found) == 0
    assert np.mean([n for _, n in found]) < 100


def test_what_it_gives_up_all_draws_together_would_seldom_have_certified() -> None:
    """At rates over X_j, against the same test that never gives up."""
    runs, test = 400, grid(int(LOOKS[-1]))
    p = test.X[1] + 0.02
    found = counts(p, runs, seed=5)
    patient = (found >= enough(test.X[1], test.alpha)).any(axis=1)
    hasty = np.array([certified(p, test, row)[0] > 1 for row in found])
    assert not (hasty & ~patient).any()
    assert (patient & ~hasty).mean() < 0.15


def test_a_radius_beyond_all_draws_is_given_up_as_soon_as_it_is_reached() -> None:
    test = grid(100, radii=(0.0, 4 * SIGMA))
    assert test.least[1] > 1
    assert look(test, 0, 50, 50) == (1, True)


def test_a_radius_of_many_sigma_which_no_draws_reach_is_no_error() -> None:
    test = grid(1000, radii=(0.0, 50 * SIGMA))
    assert test.X[1] == 1.0
    assert look(test, 0, 1000, 1000) == (1, True)


@pytest.mark.parametrize("n", [1, 20, 1000, 100_000])
def test_the_cap_is_what_all_draws_agreeing_certify_and_less_than_clopper_pearsons(n: int) -> None:
    cap = sequential_cap(n, sigma=SIGMA, alpha=0.001)
    assert 0 <= cap <= max(0.0, radius_cap(n, sigma=SIGMA, alpha=0.001))
    if cap > 0:
        within, beyond = (grid(n, 0.001, (cap * factor,)) for factor in (1 - 1e-6, 1 + 1e-6))
        assert look(within, 0, n, n) == (1, True) and look(beyond, 0, n, n) == (0, True)


def test_the_least_share_is_the_one_that_certifies() -> None:
    test = grid(1000, alpha=0.001)
    for number, least in enumerate(test.least):
        if least <= 1:
            enough = round(least * 1000)
            assert look(test, number, enough, 1000)[0] > number
            assert look(test, number, enough - 1, 1000) == (number, True)


@pytest.mark.parametrize("radii", [(), (-0.1, 0.2), (0.2, 0.1), (0.1, 0.1)])
def test_radii_that_do_not_ascend_are_refused(radii: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected radii that ascend"):
        grid(100, radii=radii)
