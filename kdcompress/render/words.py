"""Numbers and names as people read them. Rates become percent here and nowhere else."""

import re
from collections.abc import Callable
from decimal import ROUND_DOWN, Context

from kdcompress.report import Rate

MOST_DECIMALS = 6

TITLES = {"kd": "KD student", "kdiga": "KDIGA student"}

# Controls, lone surrogates, non-characters, and the marks that turn the direction of the text around them: a file
# may be named with any of them, and none has a place on a page.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def title(model: str) -> str:
    """A model's key in the report, as a heading.

    >>> title("student"), title("kdiga")
    ('student', 'KDIGA student')
    """
    return TITLES.get(model, model)


def printable(text: str) -> str:
    """Text with what cannot be shown replaced by the replacement character.

    >>> printable("a\\x00b") == "a\\N{REPLACEMENT CHARACTER}b"
    True
    """
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def percent(rate: Rate) -> str:
    """A rate with its 95% interval.

    >>> percent(Rate(value=0.6, low=0.569, high=0.631, n=1000))
    '60.0% [56.9, 63.1]'
    """
    return f"{rate.value:.1%} [{rate.low * 100:.1f}, {rate.high * 100:.1f}]"


def whole_percent(rate: float) -> str:
    """A rate in a sentence or a picture.

    >>> whole_percent(0.524)
    '52%'
    """
    return f"{rate:.0%}"


def tenths_of_percent(rate: float) -> str:
    """A rate that was measured on a few hundred images, without its interval.

    >>> tenths_of_percent(0.9583)
    '95.8%'
    """
    return f"{rate:.1%}"


def exact_percent(rate: float) -> str:
    """A rate that somebody asked for, with the digits it was asked in.

    >>> exact_percent(0.52), exact_percent(0.5255)
    ('52%', '52.55%')
    """
    return f"{100 * rate:.6g}%"


def points(difference: float) -> str:
    """A difference of two rates, in points, that somebody asked for.

    >>> points(0.03), points(0.0325)
    ('3.0', '3.25')
    """
    text = f"{100 * difference:.6g}"
    return text if "." in text else f"{text}.0"


def signed_points(difference: float, digits: int = 1) -> str:
    """A difference of two rates that was measured, in points.

    >>> signed_points(0.07), signed_points(-0.0004), signed_points(0.0304, 2)
    ('+7.0', '0.0', '+3.04')
    """
    text = f"{100 * difference:+.{digits}f}"
    return text if float(text) else text[1:]


def decimals(
    figure: float, threshold: float, least: int, meets: Callable[[float, float], bool], unit: float = 100
) -> int:
    """How many decimals show a figure on its own side of a threshold, so that rounding contradicts no verdict.

    Args:
        least: that many are shown anyway; six at most.
        meets: `operator.ge` for a threshold from below, `operator.le` for one from above.
        unit: what both are shown in: 100 for percent and points.

    >>> import operator
    >>> decimals(0.4499, 0.45, 1, operator.ge), decimals(0.4999, 0.45, 1, operator.ge)
    (2, 1)
    """
    asked = float(f"{unit * threshold:.6g}")  # as it is shown
    for digits in range(least, MOST_DECIMALS):
        if meets(float(f"{unit * figure:.{digits}f}"), asked) == meets(figure, threshold):
            return digits
    return MOST_DECIMALS


def p_value(p: float) -> str:
    """The probability of so large a difference by chance.

    >>> p_value(0.0123), p_value(0.00001)
    ('p = 0.012', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(number: float) -> str:
    """A large count with its unit.

    >>> count(123734), count(1_200_000), count(812)
    ('124k', '1.20M', '812')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            scaled = number / size
            return (
                f"{scaled:.0f}{unit}"
                if scaled >= 100
                else f"{scaled:.3g}{unit}"
                if scaled >= 10
                else f"{scaled:.2f}{unit}"
            )
    return f"{number:g}"


def file_size(bytes_: int) -> str:
    """A file's size in decimal units.

    >>> file_size(504281)
    '504 kB'
    """
    return count(bytes_).replace("k", " k").replace("M", " M").replace("G", " G") + "B"


def duration(seconds: float) -> str:
    """A time as hours, minutes and seconds.

    >>> duration(7), duration(75), duration(3700)
    ('7 s', '1 min 15 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def floored(value: float) -> str:
    """A certified radius to three digits, never rounded up: no more is printed than was proved.

    >>> floored(0.029999), floored(0.3), floored(0.0), floored(2.0051), floored(1.2e-05)
    ('0.0299', '0.3', '0', '2', '0.000012')
    """
    down = Context(prec=3, rounding=ROUND_DOWN).create_decimal(repr(value))
    text = f"{down:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text
