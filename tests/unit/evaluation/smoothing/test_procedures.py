"""What each method asks for and answers, on streams of votes whose probability is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm as gaussian

from kdcompress.evaluation.smoothing.procedures import Answer, adaptive, fixed, most_voted, sequential
from kdcompress.evaluation.smoothing.votes import Procedure, Votes
from kdcompress.maths.draws import PILOT, worthwhile_draws
from kdcompress.maths.sequential_radius import radius_test
from kdcompress.maths.smoothed_radius import certified_radius
from kdcompress.maths.smoothing import ABSTAIN

SIGMA, ALPHA = 0.5, 0.05
RADII = tuple(SIGMA / 2 * step for step in range(6))


def stream(p: float, n: int, seed: int, top: int = 1) -> Votes:
    """Votes for class `top` with probability p, else for class 0."""
    return np.where(np.random.default_rng(seed).random(n) < p, top, 0).astype(np.int16)


def answered(procedure: Procedure[Answer], votes: Votes) -> Answer:
    """The procedure's answer where the draws come out as `votes`."""
    wanted = next(procedure)
    while True:
        try:
            wanted = procedure.send(votes[:wanted])
        except StopIteration as stop:
            assert isinstance(stop.value, Answer)
            return stop.value


def by_sequence(label: int = 1, n: int = 2500, alpha: float = ALPHA, n0: int = 20) -> Procedure[Answer]:
    test = radius_test(RADII, sigma=SIGMA, n=n, alpha=alpha)
    return sequential(label, test, radius_test(RADII[:1], sigma=SIGMA, n=n, alpha=alpha), n0=n0)


METHODS: dict[str, Callable[[], Procedure[Answer]]] = {
    "fixed": lambda: fixed(sigma=SIGMA, n0=20, n=200, alpha=ALPHA),
    "adaptive": lambda: adaptive(1, sigma=SIGMA, n=2000, alpha=ALPHA),
    "sequential": by_sequence,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("true", [0.0, 1.0, 1.02])
def test_the_radius_exceeds_the_true_one_with_probability_at_most_alpha(method: str, true: float) -> None:
    """At a true radius on the grid, and just beside it."""
    runs = 250
    p = float(gaussian.cdf(true))
    radii = [answered(METHODS[method](), stream(p, 6000, seed)).radius for seed in range(runs)]
    # With a true radius of 0 both classes may be chosen, and any answer with a radius is wrong.
    wrong = sum(radius > true * SIGMA for radius in radii)
    assert wrong / runs <= ALPHA + 4 * math.sqrt(ALPHA * (1 - ALPHA) / runs)  # once in 30,000 seeds
    assert true == 0 or np.mean(radii) > SIGMA / 3  # and it certifies


def test_fixed_is_certify_word_for_word() -> None:
    for seed in range(50):
        votes = stream(0.75, 220, seed)
        found = answered(fixed(sigma=SIGMA, n0=20, n=200, alpha=ALPHA), votes)
        top = int(np.bincount(votes[:20]).argmax())
        radius = certified_radius(int((votes[20:] == top).sum()), 200, sigma=SIGMA, alpha=ALPHA)
        assert (found.prediction, found.radius) == ((top, radius) if radius > 0 else (ABSTAIN, 0.0))
        assert found.draws == 220


def test_the_draws_that_choose_the_class_take_no_part_in_its_bound() -> None:
    lucky = np.concatenate([np.full(20, 1), np.zeros(200)]).astype(np.int16)
    assert answered(fixed(sigma=SIGMA, n0=20, n=200, alpha=ALPHA), lucky).prediction == ABSTAIN
    lucky = np.concatenate([np.full(20, 1), np.zeros(6000)]).astype(np.int16)
    assert answered(by_sequence(), lucky).prediction == ABSTAIN
    lucky = np.concatenate([np.full(PILOT, 1), np.zeros(6000)]).astype(np.int16)
    assert answered(METHODS["adaptive"](), lucky).prediction == ABSTAIN


def test_adaptive_draws_what_the_pilot_says_and_bounds_by_those_alone() -> None:
    votes = stream(0.9, 30_000, seed=1)
    found = answered(adaptive(1, sigma=SIGMA, n=100_000, alpha=0.001), votes)
    n = worthwhile_draws(int((votes[:PILOT] == 1).sum()), PILOT, 100_000, 0.001)
    assert found.draws == PILOT + n
    count = int((votes[PILOT : PILOT + n] == 1).sum())
    assert found.radius == certified_radius(count, n, sigma=SIGMA, alpha=0.001)


def test_adaptive_abstains_after_the_pilot_where_no_draws_would_certify_anything() -> None:
    split = np.arange(PILOT, dtype=np.int16) % 3
    found = answered(adaptive(1, sigma=SIGMA, n=100_000, alpha=0.001), split)
    assert (found.prediction, found.radius, found.draws) == (ABSTAIN, 0.0, PILOT)


def test_sequential_answers_with_a_radius_of_the_grid_and_stops_when_it_is_decided() -> None:
    sure = answered(by_sequence(alpha=0.001), stream(1.0, 6000, seed=0))
    assert (sure.prediction, sure.radius) == (1, RADII[-1])
    # u = 9.1 solves u e^-u = .001: evidence is enough after u / (1 - Phi(2.5)) = 1,470 draws, seen at the next look.
    assert sure.draws == 20 + 1500
    middling = answered(by_sequence(alpha=0.001), stream(float(gaussian.cdf(1.25)), 6000, seed=0))
    assert middling.radius == RADII[2]
    hopeless = answered(by_sequence(alpha=0.001), stream(0.0, 6000, seed=0, top=1)[:70])
    assert hopeless.prediction == 0


def test_an_image_of_another_class_than_its_label_is_only_asked_whether_there_is_an_answer() -> None:
    votes = stream(1.0, 6000, seed=0)
    right, wrong = answered(by_sequence(label=1), votes), answered(by_sequence(label=0), votes)
    assert (wrong.prediction, wrong.radius) == (1, 0.0)
    assert wrong.draws < right.draws / 5
    paid = answered(adaptive(0, sigma=SIGMA, n=100_000, alpha=0.001), stream(1.0, 102_000, seed=0))
    assert paid.draws == 2 * PILOT


def test_sequential_never_draws_more_than_n_and_looks_ever_further_apart() -> None:
    procedure = by_sequence(n=3010, alpha=1e-9)
    votes = stream(0.62, 4000, seed=0)
    wanted = [next(procedure)]
    try:
        while True:
            wanted.append(procedure.send(votes[: wanted[-1]]))
    except StopIteration:
        pass
    steps = np.diff(wanted)
    assert wanted[:3] == [20, 70, 120] and wanted[-1] <= 20 + 3010
    assert (steps > 0).all() and (steps[:-1][1:] >= steps[:-2]).all()


def test_the_smaller_of_two_classes_with_as_many_votes_is_chosen() -> None:
    assert most_voted(np.array([2, 1, 1, 2, 0], dtype=np.int16)) == 1


def test_the_sequential_test_looks_at_none_of_the_draws_that_chose_the_class() -> None:
    first, others = np.ones(20, dtype=np.int16), np.zeros(6000, dtype=np.int16)
    found = answered(by_sequence(n0=20), np.concatenate([first, others]))
    # Of the others not one is for class 1; with the first counted among them 20 of the first 50 would be.
    assert (found.prediction, found.radius) == (ABSTAIN, 0.0)
    assert found.bounding.tolist() == [50]
