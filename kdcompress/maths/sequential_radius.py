"""Which of the given radii a count of agreeing draws certifies, asked while the draws are being made.

X_j = Phi(r_j / sigma), r_1 < ... < r_m: the top class has a radius over r_j where its probability p is over X_j. Each
"p <= X_j" is tested by the mixture likelihood ratio of `kdcompress.maths.sequential` at level alpha, however often it
is looked at, and always in this order: r_j is certified only after r_1, ..., r_(j-1) were.

The error over ALL radii is at most alpha, with no union bound. Let j be the first radius with p <= X_j (none: nothing
can be wrong). A false certificate is one at some i >= j; by the order, r_j was certified too; and that has probability
at most alpha by Ville's inequality for the one supermartingale at X_j. (Tests in a fixed order: Maurer, Hothorn and
Lehmacher (1995), in Biometrie in der chemisch-pharmazeutischen Industrie 6, 3-18.) Nothing is used of how the evidences
at different X move together.

Source of the question, with another test (Clopper-Pearson at a few n, a share of alpha each): Horvath et al. (2022),
arXiv:2106.06946. Confidence sequences for it: Voracek (2024), arXiv:2406.17830. This test and its way to give up are
ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from scipy.special import bdtr
from scipy.stats import norm as gaussian

from kdcompress.maths.sequential import log_evidence_above
from kdcompress.maths.smoothed_radius import radius_cap

HOPELESS = 0.05
"""How improbable a count must be, at the smallest rate that all n draws could still certify, to give up.

3,000 simulated images with a true radius uniform in [-1, 4] sigma, p = Phi(radius / sigma); alpha .001, n = 100,000,
the grid 0, 1/2, ..., 3 sigma: mean draws an image, and certified accuracy less that of CERTIFY with n = 100,000
(expected: .789, .592, .387 and .187), in points. `tests/benchmark/smoothing.py looks`, 2026-11-23.

| prior, in images | hopeless under | draws  | at 0  | at sigma | at 2 sigma | at 3 sigma |
|------------------|----------------|--------|-------|----------|------------|------------|
| 1                | .05            |  8,553 | -0.10 | -0.19    | -0.50      | -1.15      |
| 5                | .05            |  8,744 | -0.13 | -0.22    | -0.43      | -0.92      |
| 20               | .05            |  8,946 | -0.13 | -0.26    | -0.40      | -0.85      |
| 200              | .05            |  9,489 | -0.20 | -0.16    | -0.46      | -0.88      |
| 2,000            | .05            |  9,566 | -0.23 | -0.16    | -0.26      | -0.72      |
| 20               | .001           | 13,309 | -0.03 | -0.16    | -0.23      | -0.75      |
| 20               | .01            | 11,080 | -0.10 | -0.16    | -0.13      | -0.62      |
| 20               | .02            | 10,251 | -0.06 | -0.12    | -0.36      | -0.58      |
| 20               | .1             |  7,833 | -0.30 | -0.49    | -0.36      | -1.28      |
| 20, n = 150,000  | .01            | 13,528 | -0.06 | -0.12    | -0.10      | -0.12      |
| 20, n = 150,000  | .05            | 10,795 | -0.10 | -0.16    | -0.26      | -0.45      |

The prior hardly matters, so that of `sequential` serves. What a larger n costs, an easier give-up saves.
"""


Method = Literal["fixed", "sequential", "adaptive"]


@dataclass(frozen=True)
class RadiusTest:
    """The tests of one grid of radii.

    Attributes:
        radii: ascending, L2 in pixel units.
        X: Phi(r / sigma), what the top class's probability must exceed.
        least: the smallest share of n draws that certifies; over 1 where no share does.
        n: the most draws.
        alpha: the probability of any false certificate for an image.
    """

    radii: tuple[float, ...]
    X: tuple[float, ...]
    least: tuple[float, ...]
    n: int
    alpha: float


def radius_test(radii: Sequence[float], *, sigma: float, n: int, alpha: float) -> RadiusTest:
    """The tests at `radii` with at most n draws.

    Raises:
        ValueError: if the radii are none, negative or not ascending.
    """
    if not radii or radii[0] < 0 or any(a >= b for a, b in pairwise(radii)):
        raise ValueError(f"expected radii that ascend from 0 or more, got {list(radii)}")
    X = tuple(float(gaussian.cdf(radius / sigma)) for radius in radii)
    return RadiusTest(tuple(radii), X, tuple(_least(x, n, alpha) / n for x in X), n, alpha)


def look(test: RadiusTest, passed: int, successes: int, n: int) -> tuple[int, bool]:
    """One look at the draws so far: how many radii are certified now, and whether there is nothing left to decide.

    It gives up on a radius, and so on all larger ones, where a count as low has probability under `HOPELESS` at the
    smallest rate that all draws together could still certify. Giving up certifies nothing: it costs no soundness.

    Guarantees:
        If p <= X_j, the probability that any radius from r_j on is EVER certified is at most alpha.

    Args:
        passed: the answer of the look before; 0 at the first.
        successes: of the n draws so far, those of the top class.

    >>> test = radius_test([0, 0.125, 0.25], sigma=0.25, n=1000, alpha=0.001)
    >>> look(test, 0, 50, 50), look(test, 0, 35, 50), look(test, 0, 20, 50)
    ((2, False), (0, False), (0, True))
    """
    while passed < len(test.X) and log_evidence_above(successes, n, test.X[passed]) >= -math.log(test.alpha):
        passed += 1
    if passed == len(test.X) or n >= test.n:
        return passed, True
    least = test.least[passed]
    return passed, least > 1 or float(bdtr(successes, n, least)) < HOPELESS


def sequential_cap(n: int, *, sigma: float, alpha: float) -> float:
    """The largest radius that n draws can certify in this way, when all of them agree; 0 where none.

    >>> round(sequential_cap(1000, sigma=0.25, alpha=0.001), 3)
    0.588
    """
    low, high = 0.5, 1.0
    if log_evidence_above(n, n, low) < -math.log(alpha):
        return 0.0
    for _ in range(60):
        X = (low + high) / 2
        low, high = (X, high) if log_evidence_above(n, n, X) >= -math.log(alpha) else (low, X)
    return float(sigma * gaussian.ppf(low))


def cap_of(method: Method, *, sigma: float, n: int, alpha: float) -> float:
    """The largest radius that n draws can certify by a method, when all agree; 0 where they are too few for any."""
    return max(0.0, (sequential_cap if method == "sequential" else radius_cap)(n, sigma=sigma, alpha=alpha))


def _least(X: float, n: int, alpha: float) -> int:
    """The least successes of n that certify p > X; n + 1 where none do. By halving: evidence rises with successes."""
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        enough = middle <= n and log_evidence_above(middle, n, X) >= -math.log(alpha)
        low, high = (low, middle) if enough or middle > n else (middle + 1, high)
    return low
