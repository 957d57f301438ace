"""How large a radius a count of agreeing draws certifies.

Source: Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918.
"""

from scipy.stats import norm as gaussian

from kdcompress.maths.intervals import clopper_pearson_lower


def certified_radius(count: int, n: int, *, sigma: float, alpha: float) -> float:
    """sigma Phi^-1(p) with p the lower bound of the top class's probability; negative or zero means abstain.

    >>> round(certified_radius(1000, 1000, sigma=0.25, alpha=0.001), 3)
    0.616
    >>> certified_radius(500, 1000, sigma=0.25, alpha=0.001) < 0
    True
    """
    return float(sigma * gaussian.ppf(clopper_pearson_lower(count, n, alpha)))


def radius_cap(n: int, *, sigma: float, alpha: float) -> float:
    """The largest radius n draws can certify: sigma Phi^-1(alpha^(1/n)), when all of them agree."""
    return certified_radius(n, n, sigma=sigma, alpha=alpha)
