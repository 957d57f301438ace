"""Confidence intervals for rates and for their differences, and the exact test of a paired difference."""

import math

from scipy.optimize import brentq
from scipy.stats import beta, binom
from scipy.stats import norm as gaussian


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval for a binomial rate, (low, high) in [0, 1].

    Source: Clopper and Pearson (1934), Biometrika 26.

    Guarantees:
        Covers the true rate with probability at least `confidence`, for every rate and n.

    | case          | interval                 |
    |---------------|--------------------------|
    | successes = 0 | low = 0                  |
    | successes = n | high = 1                 |

    >>> tuple(round(end, 4) for end in clopper_pearson(8, 10))
    (0.4439, 0.9748)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """The exact one-sided lower bound for a binomial rate, holding with probability at least 1 - alpha.

    >>> clopper_pearson_lower(1000, 1000, 0.001) == 0.001 ** (1 / 1000)
    True
    """
    if successes == 0:
        return 0.0
    return float(beta.ppf(alpha, successes, n - successes + 1)) if successes < n else float(alpha ** (1 / n))


def paired_difference(first_only: int, second_only: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval for p1 - p2 where both rates were measured on the same n images, (low, high) in [-1, 1].

    With b images right for the first alone and c for the second alone, all D with
    |b - c - n D| <= z sqrt(n (2 q + D (1 - D))), q the likeliest share of second-only images at difference D:
    2 n q^2 + (-b - c + (2 n - b + c) D) q - c D (1 - D) = 0. Source: Tango (1998), Statistics in Medicine 17, 891-908.

    Guarantees:
        Contains (b - c) / n; swapping the two mirrors the interval at zero.

    >>> tuple(round(end, 4) for end in paired_difference(0, 0, 100))
    (-0.037, 0.037)
    """
    b, c = first_only, second_only
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"expected counts that add up to at most n >= 1, got {b} and {c} of {n}")
    z = float(gaussian.ppf((1 + confidence) / 2))

    def excess(D: float) -> float:
        """Signed distance of the score from z: monotone in D on each side of the estimate."""
        B, C = -b - c + (2 * n - b + c) * D, -c * D * (1 - D)
        q = max(0.0, (math.sqrt(max(0.0, B * B - 8 * n * C)) - B) / (4 * n))
        return abs(b - c - n * D) - z * math.sqrt(max(0.0, n * (2 * q + D * (1 - D))))

    centre = (b - c) / n
    nudge = 1e-9  # at the estimate itself both sides of the inequality can be zero
    low = -1.0 if centre == -1 else float(brentq(excess, -1.0, centre - nudge))
    high = 1.0 if centre == 1 else float(brentq(excess, centre + nudge, 1.0))
    return low, high


def unpaired_difference(
    first: int, first_n: int, second: int, second_n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Hybrid score interval for p1 - p2 of rates measured on different images, (low, high) in [-1, 1].

    With Wilson's interval (l_i, u_i) around each rate, and d the difference of the two:
    d - sqrt((p1 - l1)^2 + (u2 - p2)^2) to d + sqrt((u1 - p1)^2 + (p2 - l2)^2).
    Source: Newcombe (1998), Statistics in Medicine 17, 873-890, method 10.

    Guarantees:
        Contains the difference of the two rates; exchanging the two mirrors the interval at zero.

    >>> tuple(round(end, 4) for end in unpaired_difference(56, 70, 48, 80))
    (0.0524, 0.3339)
    """
    (p1, l1, u1), (p2, l2, u2) = _wilson(first, first_n, confidence), _wilson(second, second_n, confidence)
    d = p1 - p2
    return max(-1.0, d - math.hypot(p1 - l1, u2 - p2)), min(1.0, d + math.hypot(u1 - p1, p2 - l2))


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided test that two rates on the same images are equal: the p-value.

    Of the images right for one alone, either is as likely: Binomial(first_only + second_only, 1/2), both tails.
    Source: McNemar (1947), Psychometrika 12, 153-157, exact form.

    Guarantees:
        If the rates are equal, the probability of a p-value of at most a is at most a.

    | case               | p-value |
    |--------------------|---------|
    | no image differs   | 1       |

    >>> mcnemar(0, 6)
    0.03125
    """
    if first_only < 0 or second_only < 0:
        raise ValueError(f"expected counts, got {first_only} and {second_only}")
    differing = first_only + second_only
    return min(1.0, 2 * float(binom.cdf(min(first_only, second_only), differing, 0.5))) if differing else 1.0


def _wilson(successes: int, n: int, confidence: float) -> tuple[float, float, float]:
    """The rate with its score interval (Wilson 1927)."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z, p = float(gaussian.ppf((1 + confidence) / 2)), successes / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return p, min(low, p), max(high, p)  # at 0 and n rounding would leave the rate outside
