"""What a run tells those who watch it. The core calls back; it never prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Weights = Literal["averaged", "raw"]
"""Those of `--average`, or those that the optimizer moves."""


ABOVE_CHANCE = 0.1
"""Clean accuracy over 1 / K from which on a network of few classes has learnt something; half of 1 / K where that is
less. With 300 images of two classes three standard deviations of guessing are .087."""

LUCK, LUCKY_IMAGES = 0.02, 5
"""Robust accuracy that is none: so many images, or that share where there are fewer than 250."""


def guessing(classes: int) -> float:
    """Clean accuracy below which a network does no better than chance.

    >>> guessing(2), guessing(10)
    (0.6, 0.15000000000000002)
    """
    chance = 1 / classes
    return chance + min(chance / 2, ABOVE_CHANCE)


@dataclass(frozen=True)
class Validation:
    """Accuracy on the held-out slice, clean and under PGD-10; and under one draw of the noise that is trained on."""

    clean_accuracy: float
    robust_accuracy: float
    images: int
    noisy_accuracy: float | None = None

    def score(self, classes: int | None = None) -> tuple[float, float, float]:
        """Robust accuracy first; clean accuracy decides between equals.

        What is trained on noise is chosen by its accuracy under noise before all else. Robust accuracy is none where it
        is a few lucky images', which would choose a KD student's epoch, or where the network guesses, clean images too:
        one that answers every image alike is as robust as it is accurate.

        Args:
            classes: K; None leaves guessing out.
        """
        lucky = self.robust_accuracy <= min(LUCK, LUCKY_IMAGES / self.images)
        guesses = classes is not None and self.clean_accuracy < guessing(classes)
        return (self.noisy_accuracy or 0.0, 0.0 if lucky or guesses else self.robust_accuracy, self.clean_accuracy)


@dataclass(frozen=True)
class Beginning:
    """A run that begins to train, or goes on.

    Attributes:
        id: of this run alone; it stays when the run goes on.
        step: steps that were done before: 0 for a new one.
        settings, versions: as in student.json.
    """

    id: str
    step: int
    settings: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Step:
    """Where training is. `terms` are the epoch's means so far, unweighted."""

    epoch: int
    epochs: int
    step: int
    steps: int
    terms: dict[str, float]
    weights: dict[str, float]
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.jsonl: means over the epoch, and the validation where there was one.

    Attributes:
        weights: means over the steps of the epoch, those that leave a term out too.
        validation: of the better weights, averaged or raw; `validated` says which, and `other_validation` is that of
            the others where there are both.
        skipped: steps that were left out, since their loss or gradient was not finite; no mean has them.
    """

    epoch: int
    step: int
    loss: float
    terms: dict[str, float]
    weights: dict[str, float]
    lr: float
    seconds: float
    validation: Validation | None
    is_best: bool
    validated: Weights | None = None
    other_validation: Validation | None = None
    skipped: int = 0


@dataclass(frozen=True)
class AttackProgress:
    """Where an attack is.

    Attributes:
        stage: the attack that runs, as `apgd-t`; `eps` its radius where there are several.
        done: images of finished chunks; `tried` counts those of the chunk in work too.
        standing: of `tried`, images that no attack has broken.
        seconds_left: None before there is a pace.
    """

    stage: str
    eps: float | None
    chunk: int
    chunks: int
    done: int
    images: int
    tried: int
    standing: int
    seconds_left: float | None


@dataclass(frozen=True, repr=False)
class Listener:
    """Callbacks; each does nothing unless given.

    Attributes:
        note: a sentence for the user.
        detail: one for those who asked for more.
        count: (what is being done, done, in all, a detail).
        attack: (whose network, where its attack is).
        began: every file is read, and training is next.
        step: training moved on.
        epoch: an epoch ended.
        ended: the run is finished and in its folder; what student.json says.
    """

    note: Callable[[str], None] = lambda text: None
    detail: Callable[[str], None] = lambda text: None
    count: Callable[..., None] = lambda label, done, total, detail="": None
    attack: Callable[[str, AttackProgress], None] = lambda name, now: None
    began: Callable[[Beginning], None] = lambda run: None
    step: Callable[[Step], None] = lambda step: None
    epoch: Callable[[Epoch], None] = lambda epoch: None
    ended: Callable[[Mapping[str, Any]], None] = lambda record: None

    def __repr__(self) -> str:
        """Short, since it stands in the signatures that `help` shows."""
        return "Listener()"
