"""Three ways to certify an image's class and radius by votes, each with error probability alpha.

| method     | draws                             | radius                      | for                              |
|------------|-----------------------------------|-----------------------------|----------------------------------|
| fixed      | n0 + n for every image            | any, by Clopper-Pearson     | comparison with published tables |
| sequential | until the radii are decided, <= n | the largest of given ones   | a gate, a curve's grid           |
| adaptive   | what a pilot says they are worth  | any, by Clopper-Pearson     | the average certified radius     |

The labels of the images are used to save draws, never to certify: where the class is not the label's, no radius counts,
so `sequential` asks only whether there is an answer, and `adaptive` draws no more than a pilot.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcompress.evaluation.smoothing.votes import Procedure, Votes
from kdcompress.maths.draws import PILOT, worthwhile_draws
from kdcompress.maths.sequential_radius import RadiusTest, look
from kdcompress.maths.smoothed_radius import certified_radius
from kdcompress.maths.smoothing import ABSTAIN

Counts = NDArray[np.int64]
"""How many votes each class has, up to the last that has any."""

FIRST_LOOK, LOOKS_APART = 50, 0.05
"""The test looks after 50 draws, and then whenever there are 5% more, in steps of 50."""


@dataclass(frozen=True)
class Answer:
    """What a procedure says of an image.

    Attributes:
        prediction: the smoothed classifier's class, or `ABSTAIN`.
        radius: L2, pixel units, in which it is constant; 0 where it abstains.
        choosing: the votes that chose the class.
        bounding: the votes that bound its probability; none where an image was given up before.
    """

    prediction: int
    radius: float
    choosing: Counts
    bounding: Counts

    @property
    def draws(self) -> int:
        """Forward passes."""
        return int(self.choosing.sum() + self.bounding.sum())


def fixed(*, sigma: float, n0: int, n: int, alpha: float) -> Procedure[Answer]:
    """CERTIFY (Cohen et al. 2019) exactly: n0 draws choose the class, n others bound its probability."""
    votes = yield n0 + n
    top = most_voted(votes[:n0])
    return _by_clopper_pearson(top, votes, n0, sigma=sigma, alpha=alpha)


def adaptive(label: int, *, sigma: float, n: int, alpha: float) -> Procedure[Answer]:
    """A pilot chooses the class and the number of draws, at most n, and those bound its probability as in CERTIFY."""
    votes = yield PILOT
    top = most_voted(votes)
    draws = worthwhile_draws(int((votes == top).sum()), PILOT, n, alpha)
    if draws == 0:
        return _answer(ABSTAIN, 0.0, votes, PILOT)
    votes = yield PILOT + (draws if top == label else min(draws, PILOT))
    return _by_clopper_pearson(top, votes, PILOT, sigma=sigma, alpha=alpha)


def sequential(label: int, test: RadiusTest, first: RadiusTest, *, n0: int) -> Procedure[Answer]:
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
    return _answer(top, test.radii[passed - 1], votes, n0) if passed else _answer(ABSTAIN, 0.0, votes, n0)


def most_voted(votes: Votes) -> int:
    """The class of most votes, the smallest of several."""
    return int(np.bincount(votes).argmax())


def _by_clopper_pearson(top: int, votes: Votes, before: int, *, sigma: float, alpha: float) -> Answer:
    fresh = votes[before:]
    radius = certified_radius(int((fresh == top).sum()), len(fresh), sigma=sigma, alpha=alpha)
    return _answer(top, radius, votes, before) if radius > 0 else _answer(ABSTAIN, 0.0, votes, before)


def share_of(label: int, counts: Counts) -> float:
    """Of the votes, the share for `label`."""
    return float(counts[label] / counts.sum()) if label < len(counts) else 0.0


def _answer(prediction: int, radius: float, votes: Votes, before: int) -> Answer:
    return Answer(prediction, radius, np.bincount(votes[:before]), np.bincount(votes[before:]))
