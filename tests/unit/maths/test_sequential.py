"""Anytime-valid bounds: wrong decisions and missed rates counted by simulation, with every image a moment to stop."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import beta

from kdcompress.maths.intervals import clopper_pearson
from kdcompress.maths.sequential import (
    PRIOR_IMAGES,
    anytime_interval,
    decide,
    log_evidence_above,
    log_evidence_below,
)

IMAGES, RUNS = 5000, 3000
COUNTS = ((0, 1), (1, 1), (1, 2), (3, 10), (10, 10), (50, 100), (999, 1000), (4500, 10_000), (450_321, 1_000_000))


def least_successes_for(log_evidence: float, X: float) -> NDArray[np.int64]:
    """For n = 1, 2, ... IMAGES, the least S whose evidence for p > X is enough (n + 1 where none is), by halving."""
    n = np.arange(1, IMAGES + 1)
    low, high = np.zeros_like(n), n + 1  # the evidence rises with S
    while (low < high).any():
        middle = (low + high) // 2
        enough = (log_evidence_above(np.minimum(middle, n), n, X) >= log_evidence) & (middle <= n)
        low, high = np.where(enough | (low >= high), low, middle + 1), np.where(enough, middle, high)
    return high


def successes(rate: float, seed: int) -> NDArray[np.int32]:
    """(RUNS, IMAGES): how many so far."""
    drawn = np.random.default_rng(seed).random((RUNS, IMAGES), dtype=np.float32) < rate
    return np.cumsum(drawn, axis=1, dtype=np.int32)


def share_ever(happened: NDArray[np.bool_]) -> float:
    return float(happened.any(axis=1).mean())


def simulation_error(alpha: float) -> float:
    """Four standard errors of a share simulated in RUNS runs: exceeded by luck once in 30,000 seeds."""
    return 4 * math.sqrt(alpha * (1 - alpha) / RUNS)


# At p = X the error is largest; rates beyond X on the wrong side err less.
@pytest.mark.parametrize("X", [0.05, 0.45, 0.9])
def test_a_rate_that_does_not_reach_x_is_ever_called_met_with_probability_at_most_alpha(X: float) -> None:
    alpha = 0.05
    decided = successes(X, 1) >= least_successes_for(-math.log(alpha), X)
    assert share_ever(decided) <= alpha + simulation_error(alpha)
    assert share_ever(decided) > alpha / 20  # and it does decide


@pytest.mark.parametrize("X", [0.05, 0.45, 0.9])
def test_a_rate_that_reaches_x_is_ever_called_missed_with_probability_at_most_alpha(X: float) -> None:
    alpha = 0.05
    failures = np.arange(1, IMAGES + 1) - successes(X, 2)
    decided = failures >= least_successes_for(-math.log(alpha), 1 - X)
    assert share_ever(decided) <= alpha + simulation_error(alpha)
    assert share_ever(decided) > alpha / 20


def test_the_same_simulation_convicts_clopper_pearson_asked_after_every_image() -> None:
    """A fixed-n bound of the same level, peeked at, errs far more often: the simulation can tell."""
    alpha, X, n = 0.05, 0.45, np.arange(1, IMAGES + 1)
    found = successes(X, 1)
    low = beta.ppf(alpha, np.maximum(found[:1000], 1), n - np.maximum(found[:1000], 1) + 1)
    naive = float(((low > X) & (found[:1000] > 0)).any(axis=1).mean())
    assert naive > 4 * alpha


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.93])
def test_the_interval_holds_at_all_n_at_once(rate: float) -> None:
    """It leaves the rate outside exactly where a one-sided test of half the level rejects it (tested below)."""
    alpha = 0.1
    found, enough = successes(rate, 3), math.log(2 / alpha)
    above = found >= least_successes_for(enough, rate)
    below = np.arange(1, IMAGES + 1) - found >= least_successes_for(enough, 1 - rate)
    assert share_ever(above | below) <= alpha + simulation_error(alpha)


@pytest.mark.parametrize("chunk", [1, 50, 250])
def test_a_rate_well_above_or_below_is_decided_rightly_whatever_the_peeking(chunk: int) -> None:
    for rate, answer in ((0.6, "met"), (0.3, "missed")):
        for run in successes(rate, 4)[:20]:
            heard = (decide(int(run[n - 1]), n, 0.45, 0.99) for n in range(chunk, IMAGES + 1, chunk))
            assert next(said for said in heard if said) == answer


@pytest.mark.parametrize(("s", "n"), COUNTS[:6])
@pytest.mark.parametrize("X", [0.01, 0.3, 0.8])
def test_the_evidence_is_the_likelihood_ratio_averaged_over_the_alternative(s: int, n: int, X: float) -> None:
    prior = beta(1 + PRIOR_IMAGES * X, 1 + PRIOR_IMAGES * (1 - X))

    def weighted(q: float) -> float:
        ratio = xlogy(s, q) + xlog1py(n - s, -q) - xlogy(s, X) - xlog1py(n - s, -X)
        return float(np.exp(ratio - peak) * prior.pdf(q))

    at = max(X, s / n)  # the ratio's largest value keeps the quadrature in range
    peak = float(xlogy(s, at) + xlog1py(n - s, -at) - xlogy(s, X) - xlog1py(n - s, -X))
    near = [q for q in (at, X + 0.02, X + 0.1) if X < q < 1]
    averaged = quad(weighted, X, 1, points=near, limit=500)[0] / prior.sf(X)
    # quad promises 1.5e-8.
    assert float(log_evidence_above(s, n, X)) == pytest.approx(math.log(averaged) + peak, abs=1e-6)


@pytest.mark.parametrize(("s", "n"), COUNTS)
@pytest.mark.parametrize("X", [1e-6, 0.05, 0.45, 0.5, 1 - 1e-6])
def test_the_two_sides_add_up_to_the_mixture_over_all_rates_up_to_a_million_images(s: int, n: int, X: float) -> None:
    a, b = 1 + PRIOR_IMAGES * X, 1 + PRIOR_IMAGES * (1 - X)
    whole = betaln(a + s, b + n - s) - betaln(a, b) - xlogy(s, X) - xlog1py(n - s, -X)
    mass = beta.sf(X, a, b)
    parts = np.logaddexp(np.log(mass) + log_evidence_above(s, n, X), np.log1p(-mass) + log_evidence_below(s, n, X))
    # Terms of up to 1e7 cancel: float64 leaves some 1e-9 of them.
    assert float(parts) == pytest.approx(float(whole), abs=1e-6, rel=1e-9)


@pytest.mark.parametrize("X", [1e-9, 0.2, 0.5, 0.99])
def test_evidence_rises_with_successes_and_is_none_below_x(X: float) -> None:
    for n in (1, 7, 100, 100_000):
        s = np.unique(np.linspace(0, n, 200).astype(int))
        evidence = log_evidence_above(s, n, X)
        assert not np.isnan(evidence).any()
        assert (np.diff(evidence[np.isfinite(evidence)]) > -1e-6).all()
        assert (evidence[s / n <= X] <= 1e-9).all()


@pytest.mark.parametrize(("s", "n"), [count for count in COUNTS if count[0]])
def test_evidence_falls_as_x_rises_towards_the_observed_rate(s: int, n: int) -> None:
    step = math.sqrt(s / n * (1 - s / n) / n)
    X = np.unique([s / n * np.linspace(1e-6, 1, 300), np.maximum(1e-9, s / n - step * np.linspace(0, 12, 300))])
    evidence = np.array([float(log_evidence_above(s, n, x)) for x in X if x < 1])
    assert (np.diff(evidence) < 1e-9 * np.abs(evidence[1:]) + 1e-9).all()


@pytest.mark.parametrize(("s", "n"), COUNTS)
@pytest.mark.parametrize("confidence", [0.7, 0.95, 0.999])
def test_the_interval_is_what_neither_side_rejects(s: int, n: int, confidence: float) -> None:
    low, high = anytime_interval(s, n, confidence)
    enough = math.log(2 / (1 - confidence))
    if s > 0:
        assert log_evidence_above(s, n, low) >= enough - 1e-6 > log_evidence_above(s, n, low + (s / n - low) / 1e3)
    if s < n:
        assert log_evidence_below(s, n, high) >= enough - 1e-6 > log_evidence_below(s, n, high - (high - s / n) / 1e3)


@pytest.mark.parametrize(("s", "n"), COUNTS)
def test_the_interval_contains_the_observed_rate_and_clopper_pearsons(s: int, n: int) -> None:
    low, high = anytime_interval(s, n)
    inner = clopper_pearson(s, n)
    assert 0 <= low <= inner[0] <= s / n <= inner[1] <= high <= 1
    assert (low == 0) == (s == 0) and (high == 1) == (s == n)
    assert anytime_interval(n - s, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_more_confidence_widens_the_interval_and_more_images_narrow_it() -> None:
    usual, surer, more = anytime_interval(45, 100), anytime_interval(45, 100, 0.99), anytime_interval(450, 1000)
    assert surer[0] < usual[0] < more[0] < more[1] < usual[1] < surer[1]


def test_before_any_image_everything_is_possible() -> None:
    assert anytime_interval(0, 0) == (0.0, 1.0)
    assert decide(0, 0, 0.5, 0.99) is None


def test_a_threshold_of_zero_is_met_at_once_and_one_of_one_is_missed_at_the_first_failure() -> None:
    assert decide(0, 0, 0.0, 0.99) == decide(0, 1000, 0.0, 0.99) == "met"
    assert decide(1_000_000, 1_000_000, 1.0, 0.99) is None
    assert decide(4, 5, 1.0, 0.99) == "missed"


@pytest.mark.parametrize("X", [0.05, 0.5, 0.9])
def test_once_enough_successes_are_met_more_of_them_are(X: float) -> None:
    order = {"missed": 0, None: 1, "met": 2}
    for n in (10, 200):
        answers = [order[decide(s, n, X, 0.95)] for s in range(n + 1)]
        assert answers == sorted(answers)


def test_what_is_decided_with_more_confidence_is_decided_with_less() -> None:
    for s in range(0, 201, 5):
        sure = decide(s, 200, 0.45, 0.999)
        assert sure is None or decide(s, 200, 0.45, 0.9) == sure


@pytest.mark.parametrize(
    ("s", "n", "X", "confidence"), [(-1, 5, 0.5, 0.9), (6, 5, 0.5, 0.9), (1, 5, 1.5, 0.9), (1, 5, 0.5, 1.0)]
)
def test_what_cannot_be_is_refused(s: int, n: int, X: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        decide(s, n, X, confidence)
