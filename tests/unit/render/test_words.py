"""Numbers and names in words."""

import operator
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcompress.render.words import decimals, p_value, points, printable, signed_points


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "p = 1.000"), (0.05, "p = 0.050"), (0.001, "p = 0.001"), (0, "p < 0.001")]
)
def test_a_small_p_value_is_bounded_and_not_rounded_to_nothing(p: float, text: str) -> None:
    assert p_value(p) == text


def test_points_keep_the_digits_that_were_asked_for() -> None:
    assert [points(share) for share in (0, 0.03, 0.005, 0.0325)] == ["0.0", "3.0", "0.5", "3.25"]


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    assert [signed_points(share) for share in (0.0, 0.0004, -0.0004, -0.02)] == ["0.0", "0.0", "0.0", "-2.0"]


def test_more_digits_are_shown_where_they_are_asked_for_and_none_of_them_makes_a_negative_zero() -> None:
    assert [signed_points(share, 2) for share in (0.0304, -0.00004, -0.0304)] == ["+3.04", "0.00", "-3.04"]


@pytest.mark.parametrize(
    ("figure", "threshold", "side", "digits"),
    [
        (0.4499, 0.45, operator.ge, 2),
        (0.45, 0.45, operator.ge, 1),
        (0.4503, 0.45, operator.ge, 1),  # 45.0% meets 45%
        (0.4501, 0.4502, operator.ge, 1),  # 45.0% is below 45.02%
        (0.4504, 0.4502, operator.ge, 2),
        (0.44, 0.45, operator.ge, 1),
        (0.0304, 0.03, operator.le, 2),
        (0.0296, 0.03, operator.le, 1),
        (0.03, 0.03, operator.le, 1),
        (0.07, 0.07, operator.le, 1),  # 100 * .07 is a little over 7
    ],
)
def test_a_figure_gets_digits_until_it_lies_on_its_side_of_the_threshold(
    figure: float, threshold: float, side: Callable[[float, float], bool], digits: int
) -> None:
    assert decimals(figure, threshold, 1, side) == digits


@given(st.integers(1, 999), st.integers(0, 100_000), st.sampled_from([operator.ge, operator.le]))
def test_what_is_shown_never_contradicts_the_verdict(
    asked: int, successes: int, side: Callable[[float, float], bool]
) -> None:
    """Thresholds of three digits, rates of 100,000 images: three decimals tell all of them apart."""
    figure, threshold = successes / 100_000, asked / 1000
    digits = decimals(figure, threshold, 1, side)
    assert digits <= 3
    shown = float(f"{100 * figure:.{digits}f}")
    assert side(shown, float(f"{100 * threshold:.6g}")) == side(figure, threshold)


def test_what_cannot_be_shown_is_replaced_and_what_can_is_kept() -> None:
    assert printable("Ångström 犬 \t\n") == "Ångström 犬 \t\n"
    assert printable("\x00\x1b\u202e\ud800\u2066") == "\N{REPLACEMENT CHARACTER}" * 5
    printable("\udcff").encode("utf-8")
