"""Certified radii over all counts: ordered as counts, confidence and draws are."""

from hypothesis import given
from hypothesis import strategies as st

from kdcompress.maths.draws import PILOT, draws_for_majority, worthwhile_draws
from kdcompress.maths.sequential_radius import cap_of, look, radius_test
from kdcompress.maths.smoothed_radius import certified_radius, radius_cap

ALPHAS = st.sampled_from([0.05, 0.01, 0.001])
COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
GRID = tuple(0.125 * step for step in range(7))


@given(COUNTS, ALPHAS)
def test_more_agreeing_draws_certify_no_fewer_radii(counts: tuple[int, int], alpha: float) -> None:
    s, n = counts
    test = radius_test(GRID, sigma=0.25, n=4000, alpha=alpha)
    passed, _ = look(test, 0, s, n)
    assert look(test, 0, min(n, s + 1), n)[0] >= passed
    assert look(test, passed, s, n)[0] == passed  # looked at again, nothing is new


@given(COUNTS)
def test_less_error_allowed_certifies_no_more_radii(counts: tuple[int, int]) -> None:
    found = [look(radius_test(GRID, sigma=0.25, n=4000, alpha=a), 0, *counts)[0] for a in (0.05, 0.01, 0.001)]
    assert found == sorted(found, reverse=True)


@given(COUNTS, ALPHAS)
def test_looking_all_the_time_certifies_no_more_than_looking_once(counts: tuple[int, int], alpha: float) -> None:
    s, n = counts
    passed, _ = look(radius_test(GRID, sigma=0.25, n=4000, alpha=alpha), 0, s, n)
    once = certified_radius(s, n, sigma=0.25, alpha=alpha)
    assert all(radius <= once for radius in GRID[:passed])


@given(st.integers(1, 5000), ALPHAS)
def test_the_sequential_cap_is_at_most_that_of_fixed_draws_and_rises_with_them(n: int, alpha: float) -> None:
    early, fixed = (cap_of(method, sigma=0.25, n=n, alpha=alpha) for method in ("sequential", "fixed"))  # type: ignore[arg-type]
    assert 0 <= early <= fixed == max(0.0, radius_cap(n, sigma=0.25, alpha=alpha))
    assert cap_of("sequential", sigma=0.25, n=n + 1, alpha=alpha) >= early - 1e-12


@given(st.integers(0, PILOT), st.integers(1, 200_000), ALPHAS)
def test_an_image_is_worth_between_no_draws_and_all(agreeing: int, most: int, alpha: float) -> None:
    assert 0 <= worthwhile_draws(agreeing, PILOT, most, alpha) <= most


@given(COUNTS, ALPHAS)
def test_there_is_a_number_of_draws_for_every_share_over_a_half_and_it_shows_it(
    counts: tuple[int, int], alpha: float
) -> None:
    s, n = counts
    needed = draws_for_majority(s, n, alpha)
    assert (needed is None) == (2 * s <= n)
    if needed is not None:
        assert certified_radius(s * needed // n, needed, sigma=1.0, alpha=alpha) > 0
