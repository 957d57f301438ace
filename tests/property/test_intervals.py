import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kdcompress.maths.intervals import clopper_pearson, clopper_pearson_lower, paired_difference


@st.composite
def counts(draw: st.DrawFn, most: int = 100_000) -> tuple[int, int]:
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@st.composite
def pairs(draw: st.DrawFn, most: int = 100_000) -> tuple[int, int, int]:
    b, n = draw(counts(most))
    return b, draw(st.integers(0, n - b)), n


@given(counts())
def test_intervals_contain_the_observed_rate_and_lie_in_zero_to_one(count: tuple[int, int]) -> None:
    k, n = count
    low, high = clopper_pearson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high


@given(counts())
def test_intervals_of_failures_mirror_those_of_successes(count: tuple[int, int]) -> None:
    k, n = count
    low, high = clopper_pearson(k, n)
    # The quantile function promises some twelve digits near 0, fewer after subtracting from 1.
    assert clopper_pearson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(counts(), st.floats(0.5, 0.99))
def test_more_confidence_widens_the_interval(count: tuple[int, int], confidence: float) -> None:
    inner, outer = clopper_pearson(*count, confidence), clopper_pearson(*count, confidence + 0.005)
    assert outer[0] <= inner[0]
    assert outer[1] >= inner[1]


@given(counts(), st.floats(1e-6, 0.5))
def test_one_sided_bounds_are_the_lower_ends_of_two_sided_intervals(count: tuple[int, int], alpha: float) -> None:
    bound = clopper_pearson_lower(*count, alpha)
    assert bound == pytest.approx(clopper_pearson(*count, 1 - 2 * alpha)[0], rel=1e-6)


@given(pairs())
def test_paired_intervals_contain_the_difference_and_mirror_when_swapped(pair: tuple[int, int, int]) -> None:
    b, c, n = pair
    low, high = paired_difference(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    # The root finder stops at 2e-12; the score's slope at the corners makes it some 1e-8.
    assert paired_difference(c, b, n) == pytest.approx((-high, -low), abs=1e-7)


@given(pairs(most=2000))
def test_one_more_image_for_the_first_raises_both_ends(pair: tuple[int, int, int]) -> None:
    b, c, n = pair
    assume(b + c < n)
    before, after = paired_difference(b, c, n), paired_difference(b + 1, c, n)
    assert after[0] >= before[0] - 1e-9
    assert after[1] >= before[1] - 1e-9


@given(pairs(most=2000))
def test_the_same_shares_of_more_images_narrow_the_paired_interval(pair: tuple[int, int, int]) -> None:
    b, c, n = pair
    wide, narrow = paired_difference(b, c, n), paired_difference(4 * b, 4 * c, 4 * n)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
