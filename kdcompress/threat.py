"""The threat model: which perturbations of an input the adversary may choose."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from kdcompress.errors import UsageError

Norm = Literal["Linf", "L2", "L1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
LARGEST: dict[Norm, float] = {"Linf": 1.0, "L2": 100.0, "L1": 10_000.0}


@dataclass(frozen=True)
class ThreatModel:
    """All x' in [0,1]^D with ||x' - x|| <= eps, in pixel units of [0,1].

    Raises:
        UsageError: if the norm is unknown or eps is outside (0, 1] for Linf, (0, 100] for L2, (0, 10000] for L1.

    >>> ThreatModel("Linf", 8 / 255)
    ThreatModel(norm='Linf', eps=0.03137254901960784)
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UsageError(f"--norm must be one of {', '.join(NORMS)}, got {self.norm}")
        largest = LARGEST[self.norm]
        if not (math.isfinite(self.eps) and 0 < self.eps <= largest):
            hint = f"; did you mean {self.eps:g}/255?" if self.norm == "Linf" and 1 < self.eps <= 255 else ""
            raise UsageError(f"--eps must be in (0, {largest:g}], got {self.eps:g}: inputs are in [0, 1]{hint}")

    def __str__(self) -> str:
        return f"{self.norm} {render_eps(self.eps)}"


def parse_eps(text: str) -> float:
    """Read a radius written as a number or a fraction.

    >>> parse_eps("8/255") == 8 / 255
    True
    >>> parse_eps("0.15")
    0.15

    Raises:
        UsageError: if the text is neither.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--eps must be a number or a fraction such as 8/255, got {text or 'nothing'}") from None


def render_eps(eps: float) -> str:
    """`eps` as people write it: in 255ths where that is a whole number, or a short one under 1.

    >>> render_eps(8 / 255), render_eps(0.15), render_eps(0.25 / 255)
    ('8/255', '0.15', '0.25/255')
    """
    steps = eps * 255
    if steps < 1 and abs(steps - round(steps, 2)) < 1e-6:
        return f"{round(steps, 2):g}/255"
    return f"{round(steps)}/255" if eps < 1 and abs(steps - round(steps)) < 1e-6 else f"{eps:g}"
