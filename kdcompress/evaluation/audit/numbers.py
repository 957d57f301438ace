"""Numbers of a record: short enough to be kept for every image."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

from torch import Tensor

DIGITS = 6


def rounded(values: Tensor) -> tuple[float, ...]:
    """To six significant digits.

    >>> import torch
    >>> rounded(torch.tensor([1.23456789, 1e-9 / 3], dtype=torch.float64))
    (1.23457, 3.33333e-10)
    """
    return _rounded(values, ROUND_HALF_EVEN)


def rounded_down(values: Tensor) -> tuple[float, ...]:
    """The same, never above the value: for lower bounds.

    >>> import torch
    >>> rounded_down(torch.tensor([1.23456789, 0.5], dtype=torch.float64))
    (1.23456, 0.5)
    """
    return _rounded(values, ROUND_FLOOR)


def finite(values: Tensor) -> tuple[float | None, ...]:
    """To six significant digits, None where JSON has no number for it."""
    return _or_none(rounded(values))


def finite_up(values: Tensor) -> tuple[float | None, ...]:
    """The same, never below the value: for upper bounds."""
    return _or_none(_rounded(values, ROUND_CEILING))


def median(values: Tensor) -> float:
    """The middle value, of an even number the mean of the two in the middle.

    >>> import torch
    >>> median(torch.tensor([3.0, 1.0])), median(torch.tensor([1.0, torch.inf, torch.inf]))
    (2.0, inf)
    """
    ordered, n = values.double().sort().values, len(values)
    return float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)


def finite_median(values: Tensor) -> float | None:
    """The same, None where it is infinite or undefined."""
    found = median(values)
    return found if math.isfinite(found) else None


def _rounded(values: Tensor, how: str) -> tuple[float, ...]:
    context = Context(prec=DIGITS, rounding=how)
    found = []
    for value in values.tolist():
        near = float(f"{value:.{DIGITS}g}")
        found.append(near if near == value else float(context.create_decimal(Decimal(value))))
    return tuple(found)


def _or_none(values: tuple[float, ...]) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in values)
