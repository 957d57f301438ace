import math
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from kdcompress.maths.intervals import (
    clopper_pearson,
    clopper_pearson_lower,
    mcnemar,
    paired_difference,
    unpaired_difference,
)

Z95 = 1.959963984540054


@pytest.mark.parametrize("n", [1, 5, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_clopper_pearson_covers_the_true_rate_with_at_least_the_stated_probability(n: int, confidence: float) -> None:
    """Exactly, by summing over all counts: no simulation error to allow for."""
    intervals = [clopper_pearson(k, n, confidence) for k in range(n + 1)]
    for rate in np.linspace(0.0, 1.0, 201):
        covered = sum(binom.pmf(k, n, rate) for k, (low, high) in enumerate(intervals) if low <= rate <= high)
        assert covered >= confidence - 1e-12


def test_clopper_pearson_is_the_narrowest_with_equal_tails() -> None:
    low, high = clopper_pearson(3, 20)
    assert binom.sf(2, 20, low) == pytest.approx(0.025, rel=1e-9)
    assert binom.cdf(3, 20, high) == pytest.approx(0.025, rel=1e-9)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_the_interval_starts_at_zero_without_successes_and_ends_at_one_without_failures(n: int) -> None:
    none, every = clopper_pearson(0, n), clopper_pearson(n, n)
    assert none[0] == 0.0
    assert every[1] == 1.0
    assert none[1] == pytest.approx(1 - 0.025 ** (1 / n))
    assert every[0] == pytest.approx(0.025 ** (1 / n))


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_cannot_be_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        clopper_pearson(successes, n)


@pytest.mark.parametrize("alpha", [0.001, 0.1])
def test_the_one_sided_bound_exceeds_the_true_rate_no_more_often_than_alpha(alpha: float) -> None:
    n = 40
    bounds = [clopper_pearson_lower(k, n, alpha) for k in range(n + 1)]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0.0
    for rate in np.linspace(0.0, 1.0, 201):
        missed = sum(binom.pmf(k, n, rate) for k, bound in enumerate(bounds) if bound > rate)
        assert missed <= alpha + 1e-12


def score(b: int, c: int, n: int, D: float) -> float:
    """The score statistic at difference D, its nuisance rate found by search: likelihood alone, no algebra."""

    def log_likelihood(q: float) -> float:
        parts = ((b, q + D), (c, q), (n - b - c, 1 - 2 * q - D))
        return sum(k * math.log(p) if p > 0 else (-math.inf if k else 0.0) for k, p in parts)

    low, high = max(0.0, -D), (1 - D) / 2
    for _ in range(200):  # golden section: the log likelihood is concave
        left, right = high - 0.618 * (high - low), low + 0.618 * (high - low)
        low, high = (low, right) if log_likelihood(left) > log_likelihood(right) else (left, high)
    q = (low + high) / 2
    return (b - c - n * D) / math.sqrt(n * (2 * q + D - D * D))


def searched(b: int, c: int, n: int) -> tuple[float, float]:
    """Both ends by halving: the score falls as D grows."""

    def crossing(target: float) -> float:
        low, high = -1 + 1e-9, 1 - 1e-9
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if score(b, c, n, middle) > target else (low, middle)
        return (low + high) / 2

    return crossing(Z95), crossing(-Z95)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (1, 0, 30), (3, 3, 30), (0, 9, 40), (20, 1, 25), (29, 0, 30)])
def test_the_paired_interval_is_where_the_score_reaches_the_quantile(b: int, c: int, n: int) -> None:
    # The search settles the nuisance rate to about the root of float64's rounding.
    assert paired_difference(b, c, n) == pytest.approx(searched(b, c, n), abs=1e-6)


def test_the_paired_interval_contains_the_difference_and_mirrors_when_swapped() -> None:
    for n in (1, 2, 7, 24):
        for b, c in product(range(n + 1), repeat=2):
            if b + c <= n:
                low, high = paired_difference(b, c, n)
                assert -1 <= low <= (b - c) / n <= high <= 1
                # The root finder stops at 2e-12; the score's slope at the corners makes it some 1e-8.
                assert paired_difference(c, b, n) == pytest.approx((-high, -low), abs=1e-7)


@pytest.mark.parametrize("n", [10, 1000, 100_000])
def test_the_paired_interval_is_found_at_the_corners_where_every_pair_differs(n: int) -> None:
    assert paired_difference(n, 0, n)[1] == 1.0
    assert paired_difference(0, n, n)[0] == -1.0
    assert paired_difference(0, 0, n)[1] == pytest.approx(Z95**2 / (n + Z95**2), rel=1e-6)  # n D^2 = z^2 D (1 - D)


@pytest.mark.parametrize(
    ("first_only", "second_only"), [(0.10, 0.10), (0.20, 0.05), (0.02, 0.01), (0.40, 0.30), (0.03, 0.15)]
)
def test_the_paired_interval_covers_the_true_difference(first_only: float, second_only: float) -> None:
    runs, n = 4000, 60
    interval = cache(paired_difference)
    rates = [first_only, second_only, 1 - first_only - second_only]
    draws = np.random.default_rng(0).multinomial(n, rates, size=runs).tolist()
    difference = first_only - second_only
    covered = np.mean([low <= difference <= high for low, high in (interval(b, c, n) for b, c, _ in draws)])
    # A score interval keeps .95 in the mean, not at every rate: whole numbers make it wander by .007 here, and cover
    # more where hardly a pair differs. The simulation adds four of its standard errors.
    error = 0.007 + 4 * math.sqrt(0.95 * 0.05 / runs)
    assert covered >= 0.95 - error
    assert covered <= 0.95 + error or n * min(first_only, second_only) < 1


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_paired_counts_that_cannot_be_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected counts that add up"):
        paired_difference(b, c, n)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe (1998), Table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_unpaired_interval_is_the_published_one(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    assert unpaired_difference(*first, *second) == pytest.approx((low, high), abs=5.1e-5)  # printed to four digits


def test_the_unpaired_interval_contains_the_difference_and_mirrors_when_exchanged() -> None:
    for m, n in ((1, 1), (3, 8), (20, 7)):
        for a, b in product(range(m + 1), range(n + 1)):
            low, high = unpaired_difference(a, m, b, n)
            assert -1 <= low <= a / m - b / n <= high <= 1
            assert unpaired_difference(b, n, a, m) == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0.8, 0.75), (0.5, 0.5), (0.97, 0.9)])
def test_the_unpaired_interval_covers_the_true_difference(first: float, second: float) -> None:
    m, n = 60, 90
    chances = np.outer(binom.pmf(range(m + 1), m, first), binom.pmf(range(n + 1), n, second))
    intervals = np.array([[unpaired_difference(a, m, b, n) for b in range(n + 1)] for a in range(m + 1)])
    covers = (intervals[..., 0] <= first - second) & (first - second <= intervals[..., 1])
    # Exactly, by summing over all counts. Newcombe finds .95 in the mean and hardly a rate below .94.
    assert 0.94 <= float(chances[covers].sum()) <= 0.975


@pytest.mark.parametrize(("a", "m", "b", "n"), [(-1, 5, 0, 5), (0, 0, 0, 5), (6, 5, 0, 5), (0, 5, 6, 5)])
def test_unpaired_counts_that_cannot_be_are_refused(a: int, m: int, b: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes"):
        unpaired_difference(a, m, b, n)


def test_mcnemar_is_the_exact_binomial_test_of_the_images_that_differ() -> None:
    for b, c in product(range(15), repeat=2):
        if b + c:
            assert mcnemar(b, c) == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-12)
    assert mcnemar(300, 401) == pytest.approx(binomtest(300, 701).pvalue, rel=1e-9)


def test_mcnemar_of_networks_that_never_differ_is_1() -> None:
    assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize("differing", [1, 5, 40])
def test_mcnemar_rejects_equal_rates_no_more_often_than_its_level(differing: int) -> None:
    p_values = np.array([mcnemar(b, differing - b) for b in range(differing + 1)])
    chances = binom.pmf(range(differing + 1), differing, 0.5)
    for level in (0.001, 0.01, 0.05, 0.3):
        assert chances[p_values <= level].sum() <= level + 1e-12


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="expected counts, got -1 and 2"):
        mcnemar(-1, 2)
