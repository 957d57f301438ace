"""How a measured sign becomes a finding, and who describes the signs."""

from typing import NamedTuple

from kdcompress.maths.intervals import clopper_pearson_lower
from kdcompress.report import MaskingCheck

ATHALYE = "Athalye, Carlini, Wagner (2018), arXiv:1802.00420"
CARLINI_2016 = "Carlini, Wagner (2016), arXiv:1607.04311"
CARLINI_2017 = "Carlini, Wagner (2017), arXiv:1608.04644"
CARLINI_2019 = "Carlini et al. (2019), arXiv:1902.06705"
CROCE = "Croce, Hein (2020), arXiv:2003.01690"
PAPERNOT = "Papernot et al. (2017), arXiv:1602.02697"

FEWEST = 10
"""Images rightly classified: of fewer no share says anything."""

ALPHA = 1e-3
"""Of every one-sided bound, so that seven of them on an honest network together err once in a hundred at most, were
its true share as large as the threshold; it is far below."""


def at_least(hits: int, n: int) -> float:
    """The share of which `hits` of n images are proof, with confidence 1 - ALPHA.

    >>> [round(at_least(hits, 100), 3) for hits in (0, 1, 5, 10, 25, 100)]
    [0.0, 0.0, 0.008, 0.031, 0.131, 0.933]
    """
    return clopper_pearson_lower(hits, n, ALPHA)


class Sign(NamedTuple):
    """What is looked for, the statistic above which the flag goes up, and who describes it."""

    name: str
    threshold: float
    source: str


def found(sign: Sign, statistic: float, *, flagged: str, unflagged: str) -> MaskingCheck:
    """Flagged where the statistic exceeds the threshold; the sentence to match."""
    up = statistic > sign.threshold
    return MaskingCheck(**sign._asdict(), statistic=statistic, flagged=up, finding=flagged if up else unflagged)


def not_measured(sign: Sign, why: str) -> MaskingCheck:
    """A check that does not apply."""
    return MaskingCheck(**sign._asdict(), statistic=None, flagged=False, finding=f"not measured: {why}")
