"""How many draws an image is worth: the price kept to, and the error of what follows counted by simulation."""

import numpy as np
import pytest
from scipy.stats import beta
from scipy.stats import norm as gaussian

from kdcompress.maths.draws import PILOT, PRICE, draws_for_majority, worthwhile_draws
from kdcompress.maths.intervals import clopper_pearson_lower
from kdcompress.maths.smoothed_radius import certified_radius

MOST, ALPHA = 100_000, 0.001


def gain(p: float, n: float) -> float:
    """Radius in sigma at the share p, less the price of n draws; counts need not be whole."""
    return max(0.0, float(gaussian.ppf(beta.ppf(ALPHA, p * n, (1 - p) * n + 1)))) - PRICE * n


@pytest.mark.parametrize("agreeing", [520, 600, 900, 990, 999, 1000])
def test_no_other_number_of_draws_is_worth_noticeably_more(agreeing: int) -> None:
    chosen = worthwhile_draws(agreeing, PILOT, MOST, ALPHA)
    p = (agreeing + 0.5) / (PILOT + 1)
    best = max(gain(p, n) for n in np.geomspace(250, MOST, 500))
    # A step is 16%, and a half of one beside the best loses less than a thousandth of sigma.
    assert gain(p, chosen) >= best - 1e-3


def test_an_image_that_all_draws_would_not_certify_is_worth_none_and_none_is_worth_more_than_all() -> None:
    assert worthwhile_draws(450, PILOT, MOST, ALPHA) == 0
    assert worthwhile_draws(510, PILOT, 1000, ALPHA) == 0
    for agreeing in (600, 1000):
        for most in (10, 1000, 5000):
            assert worthwhile_draws(agreeing, PILOT, most, ALPHA) <= most


def test_sure_images_are_worth_the_most_draws() -> None:
    found = [worthwhile_draws(agreeing, PILOT, MOST, ALPHA) for agreeing in (700, 900, 990, 1000)]
    assert found == sorted(found)


def test_a_bound_from_fresh_draws_of_the_chosen_number_errs_with_probability_at_most_alpha() -> None:
    runs, alpha, p = 1000, 0.05, 0.99
    random = np.random.default_rng(0)
    wrong, chosen = 0, set()
    for _ in range(runs):
        n = worthwhile_draws(int(random.binomial(PILOT, p)), PILOT, MOST, alpha)
        wrong += certified_radius(int(random.binomial(n, p)), n, sigma=1.0, alpha=alpha) > gaussian.ppf(p)
        chosen.add(n)
    assert len(chosen) > 1  # the pilot does decide
    assert wrong / runs <= alpha + 4 * (alpha * (1 - alpha) / runs) ** 0.5  # once in 30,000 seeds


@pytest.mark.parametrize(("count", "n"), [(6, 10), (520, 1000), (51, 100), (1000, 1000)])
def test_the_draws_for_a_majority_show_it_and_half_of_them_do_not(count: int, n: int) -> None:
    needed = draws_for_majority(count, n, ALPHA)
    assert needed is not None

    def low(draws: int) -> float:
        return clopper_pearson_lower(count * draws // n, draws, ALPHA)

    assert low(needed) > 0.5 >= low(needed // 2)
    assert low(needed - 1) <= 0.5


def test_no_majority_takes_forever() -> None:
    assert draws_for_majority(500, 1000, ALPHA) is None
    assert draws_for_majority(10**7 + 1, 2 * 10**7, ALPHA) is None  # some 10^15
