"""Frozen settings, checked once; the numbers that options take; and what pydantic finds, in one line."""

import re
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kdcompress.errors import UsageError, did_you_mean
from kdcompress.threat import parse_eps

Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N")]

Eps = Annotated[float, BeforeValidator(lambda value: parse_eps(value) if isinstance(value, str) else value)]

Fraction = Annotated[float, Field(ge=0, le=1)]

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Frozen; unknown names are errors; `Settings.of(...)` turns what pydantic finds into one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The settings, or a UsageError that names the first wrong option as typed."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            option = f"--{first['loc'][0]}".replace("_", "-") if first["loc"] else "options"
            field = cls.model_fields.get(str(first["loc"][0])) if first["loc"] else None
            if first["type"] in ("string_pattern_mismatch", "float_parsing") and field and field.description:
                first["msg"] = f"must be {field.description}"  # the choices in words, not the pattern
            raise UsageError(f"{option}: {in_words(first)}") from None


def in_words(problem: Any) -> str:
    """What was expected and what was found, of one entry of `ValidationError.errors()`."""
    expected = problem["msg"].removeprefix("Value error, ").rstrip(".")
    found = problem["input"]
    hint = did_you_mean(found, _choices(expected) - {found}) if isinstance(found, str) else ""
    got = "" if f"{found!r} is not" in expected else f", got {found}"
    return f"{expected[0].lower()}{expected[1:]}{got}{hint}"


def _choices(expected: str) -> set[str]:
    """The words in quotation marks, or those of a sentence that only lists words."""
    if words := re.findall(r"'([^']+)'", expected):
        return set(words)
    return set(re.findall(r"[\w-]+", expected)) if expected.startswith("must be ") else set()
