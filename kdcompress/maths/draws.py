"""How many draws a smoothed classifier's image is worth, and how many a verdict would take."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from scipy.stats import norm as gaussian

from kdcompress.maths.intervals import clopper_pearson_lower
from kdcompress.maths.sequential import log_evidence_above
from kdcompress.maths.sequential_radius import Method

PILOT = 1000
"""Draws that choose an image's class and its number of draws."""

PRICE = 1e-6
"""Radius, in units of sigma, that a further draw must gain to be made.

Over 5,000 simulated images whose true radius is distributed as the row says (units of sigma, below 0: nothing to
certify; alpha .001): mean draws an image, and the average certified radius less that of 100,000 draws each, in sigma.
`tests/benchmark/smoothing.py price`, 2026-11-23.

| true radius | price 5e-7     | price 1e-6     | price 2e-6     | 33,333 draws each |
|-------------|----------------|----------------|----------------|-------------------|
| U(-1, 2)    | 20,443  -.0090 | 13,184  -.0143 |  8,604  -.0205 | -.0076            |
| U(-1, 3)    | 30,263  -.0102 | 19,507  -.0175 | 12,548  -.0276 | -.0143            |
| U(-1, 4)    | 43,956  -.0089 | 29,628  -.0215 | 17,975  -.0419 | -.0339            |
| N(1, 1)     | 30,492  -.0114 | 19,632  -.0190 | 12,591  -.0288 | -.0139            |
| N(1.5, 1.5) | 42,117  -.0098 | 28,250  -.0235 | 17,250  -.0443 | -.0359            |

At 1e-6 a third of the draws is enough in every row, and costs at most .0235 sigma: under .01 for sigma up to .42.
"""

_STEPS = 40


def worthwhile_draws(agreeing: int, pilot: int, most: int, alpha: float) -> int:
    """How many further draws are worth their price for an image of whose `pilot` draws so many agree; at most `most`.

    The n that maximises R(p, n) - PRICE n, R the radius in units of sigma that n draws certify at the share
    p = (agreeing + 1/2) / (pilot + 1); 0 where all `most` draws would certify nothing. Source of the idea, with another
    rule: Chen et al. (2022), arXiv:2112.12084; the rule is ours.

    The n depends on the pilot alone, so that the bound from n FRESH draws holds as for any n chosen beforehand.

    >>> [worthwhile_draws(agreeing, 1000, 100_000, 0.001) for agreeing in (400, 600, 900, 1000)]
    [0, 15826, 18454, 73546]
    """
    p = (agreeing + 0.5) / (pilot + 1)
    n = np.unique(np.geomspace(min(most, pilot / 4), most, _STEPS).round())
    radius = _radius(p, n, alpha)
    return int(n[(radius - PRICE * n).argmax()]) if radius[-1] > 0 else 0


def _radius(p: float, n: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """CERTIFY's radius in units of sigma where a share p of n draws agrees, whole or not; 0 where it abstains."""
    found: NDArray[np.float64] = np.maximum(gaussian.ppf(beta.ppf(alpha, p * n, (1 - p) * n + 1)), 0.0)
    return found


def draws_for_majority(count: int, n: int, alpha: float, method: Method = "fixed") -> int | None:
    """About how many draws show a majority where the share of agreeing draws stays count / n; None where it is none.

    Found by doubling and halving; a share that is hardly over 1/2 takes more than 2^40, which is None too.

    Args:
        method: `fixed` and `adaptive` bound by Clopper and Pearson, `sequential` by the evidence of `radius_test`.

    >>> draws_for_majority(520, 1000, 0.001), draws_for_majority(500, 1000, 0.001)
    (6050, None)
    >>> draws_for_majority(520, 1000, 0.001, "sequential")
    11799
    """
    if 2 * count <= n:
        return None
    high = 1
    while not _shows(count, n, high, alpha, method):
        high *= 2
        if high > 2**40:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _shows(count, n, middle, alpha, method) else (middle, high)
    return high


def _shows(count: int, n: int, draws: int, alpha: float, method: Method) -> bool:
    agreeing = count * draws // n
    if method == "sequential":
        return bool(log_evidence_above(agreeing, draws, 0.5) >= -math.log(alpha))
    return clopper_pearson_lower(agreeing, draws, alpha) > 0.5
