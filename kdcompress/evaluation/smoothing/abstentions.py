"""Why the smoothed classifier gives no answer, told by the votes; a diagnosis, not a guarantee.

Asked in this order; the first that applies is the reason. `share` is that of the class most voted for among at least
1,000 draws after those that chose the class, and x the image as it is.

| reason                 | told by                                                                                   |
|------------------------|-------------------------------------------------------------------------------------------|
| too few draws          | share > 1/2 for the chosen class: more draws would show it, `draws_for_majority` how many |
| wrong class chosen     | share > 1/2 for another class than the n0 draws chose: n0 is too small                    |
| sigma too large        | no majority, but at sigma / 2 most of n0 votes are for the class seen in x: the network   |
|                        | bears half this noise, not all of it                                                      |
| untrained for noise    | no majority at sigma / 2 either, and the network is right about x: that noise undoes it   |
| unsure without noise   | no majority at sigma / 2 either, and the network is wrong about x too                     |

What a network was trained on is not in its votes, only how much noise it bears: one that never saw noise and bears
sigma / 2 all the same, as on digits, is told that sigma is too large, and one trained with less noise than it is asked
to bear, that it was not trained for so much. Training with that much noise (`--noise-sigma`) is the cure in both cases.
Images whose votes agree on a wrong class are no abstentions: `Smoothing.turned` counts those that the network sees
rightly without noise, and `Smoothing.noisy_accuracy` says what noise does to the network itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal, get_args

from kdcompress.evaluation.smoothing.procedures import Counts, share_of
from kdcompress.maths.draws import draws_for_majority
from kdcompress.maths.sequential_radius import Method
from kdcompress.report import Abstention

Reason = Literal[
    "too few draws", "wrong class chosen", "sigma too large", "untrained for noise", "unsure without noise"
]


@dataclass(frozen=True)
class Undecided:
    """An image that was abstained from.

    Attributes:
        choosing: the votes that chose the class.
        others: the votes after those.
        seen: the class that the network sees in the image as it is.
        calmer: votes at sigma / 2; None where not asked for.
    """

    choosing: Counts
    others: Counts
    seen: int
    label: int
    calmer: Counts | None = None

    @property
    def has_majority(self) -> bool:
        """Whether the top class has more than half of the other votes."""
        return bool(2 * self.others.max() > self.others.sum())


def reason(image: Undecided) -> Reason:
    """The first of the table's reasons that applies."""
    if image.has_majority:
        return "too few draws" if image.others.argmax() == image.choosing.argmax() else "wrong class chosen"
    if image.calmer is not None and 2 * share_of(image.seen, image.calmer) > 1:
        return "sigma too large"
    return "untrained for noise" if image.seen == image.label else "unsure without noise"


def explained(images: Sequence[Undecided], method: Method, *, sigma: float, alpha: float) -> tuple[Abstention, ...]:
    """The abstentions by reason, in the table's order, each in a sentence; reasons without images are left out."""
    by_reason: dict[Reason, list[Undecided]] = {name: [] for name in get_args(Reason)}
    for image in images:
        by_reason[reason(image)].append(image)
    return tuple(
        Abstention(reason=name, images=len(found), finding=_told(name, found, method, sigma=sigma, alpha=alpha))
        for name, found in by_reason.items()
        if found
    )


def _told(name: Reason, images: Sequence[Undecided], method: Method, *, sigma: float, alpha: float) -> str:
    if name == "too few draws":
        needed = [
            draws_for_majority(int(image.others.max()), int(image.others.sum()), alpha, method) for image in images
        ]
        known = sorted(draws for draws in needed if draws is not None)
        if not known:
            return "one class leads, by too little for any number of draws"
        again = "" if method == "sequential" else "; raise --n with another --seed, since these draws were looked at"
        return (
            "one class leads, by too little for so few draws to show a majority; were its share of the votes its "
            f"probability, it would take about {median_low(known):,} draws in the median, {known[-1]:,} for all{again}"
        )
    return {
        "wrong class chosen": "another class than the first draws chose has the majority: raise --n0",
        "sigma too large": f"no class has the majority at sigma {sigma:g}, one has it at {sigma / 2:g}: lower --sigma, "
        "or train with that much noise",
        "untrained for noise": f"right without noise, and no majority even at sigma {sigma / 2:g}: the network was not "
        "trained for so much noise; train it with --noise-sigma, or lower --sigma",
        "unsure without noise": "wrong without noise, and no majority with it",
    }[name]
