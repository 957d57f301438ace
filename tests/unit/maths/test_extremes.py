"""The end of a distribution: known where it is simulated, and never less likely than SciPy's own fit."""

import numpy as np
import pytest
from scipy.stats import weibull_min

from kdcompress.maths.extremes import SHAPE_PENALTY, upper_end


def draws(c: float, n: int, seed: int, a: float = 5.0, b: float = 2.0) -> np.ndarray:
    """n values that end at a."""
    return a - b * np.random.default_rng(seed).weibull(c, n)


@pytest.mark.parametrize("c", [1.5, 3.0])
def test_the_end_of_a_simulated_distribution_is_found(c: float) -> None:
    # Median over 15 samples of 300: each strays by some tenths of b at c = 3, by less below.
    found = [upper_end(draws(c, 300, seed)) for seed in range(15)]
    assert [how for _, how in found].count("fitted") >= 14  # one in fifteen samples may be crowded against its end
    assert np.median([a for a, _ in found]) == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize("c", [1.5, 4.0, 30.0, 300.0])
def test_the_end_is_never_below_the_largest_value(c: float) -> None:
    for seed in range(5):
        s = draws(c, 40, seed)
        assert upper_end(s)[0] >= s.max()


@pytest.mark.parametrize("c", [2.5, 5.0])
def test_the_fit_is_at_least_as_likely_as_the_best_that_scipy_finds(c: float) -> None:
    for seed in range(4):
        s = draws(c, 100, seed)
        a, how = upper_end(s)
        tried = [weibull_min.fit(-s, start) for start in (1.0, 5.0, 20.0)]
        possible = [(shape, loc, scale) for shape, loc, scale in tried if -loc > s.max() and shape >= 1]
        assert how == "fitted" and possible  # else nothing would be compared
        shape, _, scale = weibull_min.fit(-s, c, floc=-a)  # the likelihood of a is that of the best b and c beside it
        own = weibull_min.logpdf(-s, shape, -a, scale).sum() - SHAPE_PENALTY * shape**2
        best = max(weibull_min.logpdf(-s, *p).sum() - SHAPE_PENALTY * p[0] ** 2 for p in possible)
        assert own >= best - 0.02  # SciPy's simplex stops within some thousandths of a nat


@pytest.mark.parametrize(("shift", "scale"), [(100.0, 1.0), (0.0, 1e-3), (-7.0, 1e4)])
def test_the_end_moves_and_scales_with_the_sample(shift: float, scale: float) -> None:
    s = draws(4.0, 50, 0)
    assert upper_end(shift + scale * s)[0] == pytest.approx(shift + scale * upper_end(s)[0], rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.25, 1e-9])
def test_values_that_are_all_the_same_are_the_end_themselves(value: float) -> None:
    assert upper_end(np.full(20, value)) == (value, "constant")
    assert upper_end(np.array([value])) == (value, "constant")


def test_rounding_of_float32_is_no_spread() -> None:
    s = np.float32(7.7) * (1 + np.linspace(-3, 3, 20) * np.finfo(np.float32).eps)
    assert upper_end(s) == (pytest.approx(7.7, rel=1e-5), "constant")


def test_a_likelihood_that_is_largest_at_the_largest_value_gives_that_value() -> None:
    # Crowded against its end as no shape from 1 on is.
    s = 5 - np.random.default_rng(0).weibull(0.3, 60)
    assert upper_end(s) == (s.max(), "largest")


def test_two_heaps_are_no_reverse_weibull_distribution_and_give_their_largest_value() -> None:
    rng = np.random.default_rng(0)
    s = np.concatenate([rng.normal(0, 0.01, 100), rng.normal(1, 0.01, 100)])
    assert upper_end(s) == (s.max(), "largest")


def test_a_gumbel_distribution_whose_likelihood_has_no_maximum_gets_a_finite_end() -> None:
    for seed in range(10):
        a, _ = upper_end(np.random.default_rng(seed).gumbel(size=50))
        assert np.isfinite(a) and a < 60  # some ten times the spread


@pytest.mark.parametrize("strange", [np.inf, np.nan])
def test_a_value_that_is_not_finite_is_handed_on(strange: float) -> None:
    a, how = upper_end(np.array([1.0, strange, 2.0]))
    assert how == "largest" and not np.isfinite(a)
