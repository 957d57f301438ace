import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kdcompress.maths.intervals import (
    clopper_pearson,
    clopper_pearson_lower,
    mcnemar,
    paired_difference,
    unpaired_difference,
)
from kdcompress.maths.sequential import anytime_interval, decide


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


@given(counts(), counts())
def test_unpaired_intervals_contain_the_difference_and_mirror_when_swapped(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    low, high = unpaired_difference(*first, *second)
    assert -1 <= low <= first[0] / first[1] - second[0] / second[1] <= high <= 1
    assert unpaired_difference(*second, *first) == pytest.approx((-high, -low), abs=1e-12)


@given(pairs())
def test_mcnemar_is_symmetric_and_falls_as_the_images_lean_to_one_side(pair: tuple[int, int, int]) -> None:
    b, c, _ = pair
    assert 0 <= mcnemar(b, c) == mcnemar(c, b) <= 1
    assert mcnemar(max(b, c) + 1, min(b, c)) <= mcnemar(b, c) + 1e-12 or b == c


@given(pairs(most=2000))
def test_a_paired_interval_without_zero_and_mcnemar_agree_up_to_the_coarseness_of_counts(
    pair: tuple[int, int, int],
) -> None:
    b, c, n = pair
    low, high = paired_difference(b, c, n)
    # At zero the score is McNemar's without correction: never more careful than the exact test.
    if mcnemar(b, c) < 0.05:
        assert low > 0 or high < 0


@given(counts(most=1_000_000), st.floats(0.51, 0.999))
def test_anytime_intervals_contain_the_observed_rate_and_clopper_pearsons(
    count: tuple[int, int], confidence: float
) -> None:
    low, high = anytime_interval(*count, confidence)
    inner = clopper_pearson(*count, confidence)
    assert 0 <= low <= inner[0] + 1e-12
    assert inner[1] - 1e-12 <= high <= 1


@given(counts(most=1_000_000), st.floats(0, 1), st.floats(0.51, 0.999))
def test_a_verdict_is_on_the_side_of_the_observed_rate_and_inside_the_interval_there_is_none(
    count: tuple[int, int], X: float, confidence: float
) -> None:
    k, n = count
    verdict, (low, high) = decide(k, n, X, confidence), anytime_interval(k, n, confidence)
    if X > 0:
        assert verdict != "met" or k / n > X
    assert verdict != "missed" or k / n < X
    if 0 < X < low - 1e-9:
        assert verdict == "met"
    if high + 1e-9 < X:
        assert verdict == "missed"
