"""Accuracy, clean and under attack: verdicts an image, counted by us."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcompress.attacks.plans import Plan
from kdcompress.data import Split
from kdcompress.evaluation.kept import STOOD, UNTRIED, WRONG
from kdcompress.maths.intervals import clopper_pearson
from kdcompress.maths.sequential import anytime_interval
from kdcompress.report import ClassRate, Rate, RobustAt, RobustRate

VERDICTS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Verdicts:
    """What became of each image. All tensors are on the CPU.

    A step is one stage of the plan at one radius, numbered from the smallest radius on: step i * S + j is stage j of S
    at radius i.

    Guarantees:
        An image wrong on clean input is wrong under attack: robust accuracy never exceeds clean accuracy.
        An image broken at one radius counts as broken at every larger one, whose ball contains the smaller.

    Attributes:
        plan: what attacked.
        radii: ascending.
        predicted: (N,), the class seen in each image as it is.
        right: (N,), boolean.
        steps: (N,), the step that broke the image, or `STOOD`, `WRONG`, `UNTRIED`.
        attacked: the first so many images were attacked.
        shown: (G, C, H, W), the attack's answers for the first images, the images themselves where none succeeded.
        warnings: the attack package's.
        batch_size: images a forward that memory bore.
        taken_up: images whose verdicts, or the first attacks', had been kept.
    """

    plan: Plan
    radii: tuple[float, ...]
    predicted: Tensor
    right: Tensor
    steps: Tensor
    attacked: int
    shown: Tensor
    warnings: tuple[str, ...] = ()
    batch_size: int | None = None
    taken_up: int = 0

    @property
    def tried(self) -> Tensor:
        """(N,), boolean: which images have a verdict."""
        return torch.arange(len(self.steps)) < self.attacked

    def stood(self, eps: float) -> Tensor:
        """(N,), boolean: which images stood every attack at `eps` and at the smaller radii."""
        stages = len(self.plan.stages)
        first_beyond = (self.radii.index(eps) + 1) * stages
        return (self.steps == STOOD) | (self.steps >= first_beyond)

    def text(self, eps: float) -> str:
        """`ModelReport.verdicts` at `eps`."""
        stages = len(self.plan.stages)
        codes = {STOOD: ".", WRONG: "x", UNTRIED: "?"}
        stood = self.stood(eps).tolist()
        return "".join(
            "." if kept else codes.get(step, VERDICTS[step % stages])
            for step, kept in zip(self.steps.tolist(), stood, strict=True)
        )


def predictions(model: nn.Module, inputs: Tensor, draws: int = 1) -> Tensor:
    """The class seen in each input, (B,): by the mean probabilities of several draws for a randomised network."""
    with torch.no_grad():
        if draws == 1:
            found: Tensor = model(inputs).argmax(1)
            return found
        return torch.stack([model(inputs).softmax(1) for _ in range(draws)]).mean(0).argmax(1)


def predicted(model: nn.Module, images: Split, *, batch_size: int, device: torch.device) -> Tensor:
    """The class seen in every image: (N,), int64, on the CPU."""
    return torch.cat([predictions(model, x).cpu() for x, _ in images.batches(batch_size, device=device)])


def rate(correct: Tensor, *, stopped: bool = False) -> Rate:
    """The share of true entries with its 95% interval: Clopper-Pearson's, or one that allows for stopping early."""
    successes, n = int(correct.sum()), len(correct)
    low, high = anytime_interval(successes, n) if stopped else clopper_pearson(successes, n)
    return Rate(value=successes / n, low=low, high=high, n=n)


def robust_rate(
    verdicts: Verdicts, eps: float, *, chunk: int, surrogate: str | None = None, stops: bool = False
) -> RobustRate:
    """Accuracy under the attack at `eps`, over the images that were tried, with the attack's name.

    Args:
        stops: the attack was free to stop early, whether it did or not.
    """
    return RobustRate(
        **rate(verdicts.stood(eps)[verdicts.tried], stopped=stops).model_dump(),
        interval="anytime-valid" if stops else "Clopper-Pearson",
        attack=verdicts.plan.name,
        stages=tuple(stage.name for stage in verdicts.plan.stages),
        chunk=chunk,
        surrogate=surrogate,
    )


def over_eps(verdicts: Verdicts, *, stops: bool = False) -> tuple[RobustAt, ...]:
    """Robust accuracy at every radius, where there are several."""
    if len(verdicts.radii) == 1:
        return ()
    return tuple(
        RobustAt(**rate(verdicts.stood(eps)[verdicts.tried], stopped=stops).model_dump(), eps=eps)
        for eps in verdicts.radii
    )


def by_class(
    labels: Tensor, right: Tensor, verdicts: Verdicts | None, eps: float, names: Sequence[str], *, stops: bool = False
) -> tuple[ClassRate, ...]:
    """Each class's accuracy, clean and robust; classes without images are left out."""
    found = []
    for number, name in enumerate(names):
        own = labels == number
        if not own.any():
            continue
        tried = None if verdicts is None else own & verdicts.tried
        robust = (
            rate(verdicts.stood(eps)[tried], stopped=stops)
            if verdicts is not None and tried is not None and tried.any()
            else None
        )
        found.append(ClassRate(name=name, clean=rate(right[own]), robust=robust))
    return tuple(found)
