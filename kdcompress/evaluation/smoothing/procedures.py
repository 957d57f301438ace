"""Three ways to certify an image's class and radius by votes, each with error probability alpha.

| method     | draws                             | radius                      | for                              |
|------------|-----------------------------------|-----------------------------|----------------------------------|
| fixed      | n0 + n for every image            | any, by Clopper-Pearson     | comparison with published tables |
| sequential | until the radii are decided, <= n | the largest of given ones   | a gate, a curve's grid           |
| adaptive   | what a pilot says they are worth  | any, by Clopper-Pearson     | the average certified radius     |

The labels of the images are used to save draws, never to certify: where the class is not the label's, no radius counts,
so `sequential` asks only whether there is an answer, and `adaptive` draws no more than a pilot.
"""

import numpy as np

from kdcompress.evaluation.smoothing.votes import Answer, Procedure, Votes
from kdcompress.maths.draws import PILOT, worthwhile_draws
from kdcompress.maths.sequential_radius import RadiusTest, look
from kdcompress.maths.smoothed_radius import certified_radius
from kdcompress.maths.smoothing import ABSTAIN

FIRST_LOOK, LOOKS_APART = 50, 0.05
"""The test looks after 50 draws, and then whenever there are 5% more, in steps of 50."""


def fixed(*, sigma: float, n0: int, n: int, alpha: float) -> Procedure:
    """CERTIFY (Cohen et al. 2019) exactly: n0 draws choose the class, n others bound its probability."""
    votes = yield n0 + n
    top = most_voted(votes[:n0])
    return _by_clopper_pearson(top, votes, n0, sigma=sigma, alpha=alpha)


def adaptive(label: int, *, sigma: float, n: int, alpha: float) -> Procedure:
    """A pilot chooses the class and the number of draws, at most n, and those bound its probability as in CERTIFY."""
    votes = yield PILOT
    top = most_voted(votes)
    draws = worthwhile_draws(int((votes == top).sum()), PILOT, n, alpha)
    if draws == 0:
        return Answer(ABSTAIN, 0.0, votes)
    votes = yield PILOT + (draws if top == label else min(draws, PILOT))
    return _by_clopper_pearson(top, votes, PILOT, sigma=sigma, alpha=alpha)


def sequential(label: int, test: RadiusTest, first: RadiusTest, *, n0: int) -> Procedure:
    """n0 draws choose the class; the test at the given radii looks at the others while they are made.

    Args:
        first: the test at the smallest radius alone, for images that are not seen as their label.
    """
    votes = yield n0
    top = most_voted(votes)
    test = test if top == label else first
    n, passed, is_over = 0, 0, False
    while not is_over:
        n = min(test.n, max(n + FIRST_LOOK, int(n * (1 + LOOKS_APART)) // FIRST_LOOK * FIRST_LOOK))
        votes = yield n0 + n
        passed, is_over = look(test, passed, int((votes[n0:] == top).sum()), n)
    return Answer(top, test.radii[passed - 1], votes) if passed else Answer(ABSTAIN, 0.0, votes)


def most_voted(votes: Votes) -> int:
    """The class of most votes, the smallest of several."""
    return int(np.bincount(votes).argmax())


def _by_clopper_pearson(top: int, votes: Votes, before: int, *, sigma: float, alpha: float) -> Answer:
    fresh = votes[before:]
    radius = certified_radius(int((fresh == top).sum()), len(fresh), sigma=sigma, alpha=alpha)
    return Answer(top, radius, votes) if radius > 0 else Answer(ABSTAIN, 0.0, votes)
