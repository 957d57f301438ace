"""What a model must reach."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from kdcompress.errors import UsageError
from kdcompress.settings.base import Fraction, NonNegative, Positive, Settings

PRESERVED_WITHIN = 0.03
"""The robust accuracy that may be lost for robustness to count as preserved, where no gate says how much."""

CertifiedDemand = Annotated[
    tuple[NonNegative, Fraction],
    BeforeValidator(lambda value: parse_certified_demand(value) if isinstance(value, str) else value),
]
"""(radius, accuracy)."""


def parse_certified_demand(text: str) -> tuple[float, float]:
    """Read RADIUS:ACCURACY.

    >>> parse_certified_demand("0.25:0.40")
    (0.25, 0.4)

    Raises:
        UsageError: if the text is not two numbers.
    """
    radius, _, accuracy = text.partition(":")
    try:
        return float(radius), float(accuracy)
    except ValueError:
        raise UsageError(f"--min-certified-accuracy must be RADIUS:ACCURACY such as 0.25:0.40, got {text}") from None


class GateSettings(Settings):
    """What a model must reach; None means not asked.

    Attributes:
        min_certified_accuracy: of the smoothed classifier, at an L2 radius.
        confidence: of the test that lets `min_robust_accuracy` stop early; None measures every image.
        allow_untrusted: judge robust accuracy even where the masking checks say that it is not to be believed.
    """

    min_clean_accuracy: Fraction | None = None
    min_robust_accuracy: Fraction | None = None
    min_certified_accuracy: CertifiedDemand | None = None
    max_robust_drop: Fraction | None = None
    max_params: Annotated[int, Field(ge=1)] | None = None
    max_macs: Annotated[int, Field(ge=1)] | None = None
    max_latency_ms: Positive | None = None
    gate_on: Literal["point", "bound"] = "point"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    allow_untrusted: bool = False

    @property
    def within(self) -> float:
        """How much robust accuracy may be lost for robustness to be preserved."""
        return PRESERVED_WITHIN if self.max_robust_drop is None else self.max_robust_drop


class CertifyGates(Settings):
    """Demands on a certification.

    Attributes:
        min_verified_accuracy: by sound bounds, at the first radius.
        min_certified_accuracy: of the smoothed classifier, at an L2 radius.
    """

    min_verified_accuracy: Fraction | None = None
    min_certified_accuracy: CertifiedDemand | None = None
    gate_on: Literal["point", "bound"] = "point"
