"""Numbers of a record: short enough to be kept for every image."""

import math

from torch import Tensor

DIGITS = 6


def rounded(values: Tensor) -> tuple[float, ...]:
    """To six significant digits.

    >>> import torch
    >>> rounded(torch.tensor([1.23456789, 1e-9 / 3], dtype=torch.float64))
    (1.23457, 3.33333e-10)
    """
    return tuple(float(f"{value:.{DIGITS}g}") for value in values.tolist())


def finite(values: Tensor) -> tuple[float | None, ...]:
    """The same, None where JSON has no number for it."""
    return tuple(value if math.isfinite(value) else None for value in rounded(values))


def median(values: Tensor) -> float:
    """The lower middle value: one that was measured."""
    return float(values.double().quantile(0.5, interpolation="lower"))


def finite_median(values: Tensor) -> float | None:
    """The same, None where it is infinite or undefined."""
    found = median(values)
    return found if math.isfinite(found) else None
