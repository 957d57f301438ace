"""A split under randomized smoothing: every image's answer, the certified accuracy, what stands behind it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.accuracy import predicted, rate
from kdcompress.evaluation.smoothing.abstentions import Undecided, explained
from kdcompress.evaluation.smoothing.kept import NOWHERE, KeptVotes
from kdcompress.evaluation.smoothing.procedures import Answer, adaptive, fixed, sequential, share_of
from kdcompress.evaluation.smoothing.votes import Noise, Procedure, Votes, ask
from kdcompress.maths.draws import PILOT
from kdcompress.maths.sequential_radius import cap_of, radius_test
from kdcompress.maths.smoothing import ABSTAIN, voted
from kdcompress.report import Abstention, CertifiedRate, Rate, Smoothing
from kdcompress.settings import EvaluationSettings

LAST_RADIUS = 3.0
"""Where the usual grid of the sequential test ends, in sigma: 3 takes 6,750 agreeing draws, 3.5 takes 39,000."""

DIAGNOSED = 1000
"""Draws, beside those that choose the class, by which an abstention is explained; they certify nothing."""


def smoothing(
    model: nn.Module,
    images: Split,
    settings: EvaluationSettings,
    *,
    device: torch.device,
    radii: Sequence[float] = (),
    kept: Callable[[Noise], KeptVotes] = lambda noise: NOWHERE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Smoothing:
    """Certified accuracy at 0, sigma/2, sigma, ... as far as n draws reach, and at `radii`; why images are lost.

    Guarantees:
        For each image, the probability that the class or any of its radii is wrong is at most alpha, by any method.
        `fixed` gives the answers of `kdcompress.maths.smoothing.certify` to the same draws.

    Args:
        model: eval mode.
        kept: where the votes under a noise are kept.
        on_progress: (images answered, images).
        note: told what the user should know.
    """
    sigma, n, alpha = settings.sigma, settings.n, settings.alpha
    cap = cap_of(settings.smoothing, sigma=sigma, n=n, alpha=alpha)
    grid = sorted({*_usual(sigma, cap, settings.smoothing), *radii})
    noise = Noise(sigma, settings.seed)
    votes = kept(noise)
    answers = ask(
        model,
        images,
        noise,
        _asked(settings, images.labels, grid),
        batch_size=settings.forward_size,
        device=device,
        kept=votes,
        on_progress=on_progress,
    )
    if votes.note is not None:
        note(votes.note)
    seen = predicted(model, images, batch_size=settings.forward_size, device=device)
    predictions = torch.tensor([answer.prediction for answer in answers])
    reached = torch.tensor([answer.radius for answer in answers], dtype=torch.float64)
    right, labels = predictions == images.labels, images.labels.tolist()
    reasons, diagnosed = _reasons(model, images, settings, answers, seen, kept, device)
    return Smoothing(
        sigma=sigma,
        n0=_before(settings),
        n=n,
        alpha=alpha,
        cap=cap,
        abstained=int((predictions == ABSTAIN).sum()),
        at=_curve(reached, right, grid),
        method=settings.smoothing,
        average_radius=float((reached * right).mean()),
        noisy_accuracy=float(
            np.mean([share_of(label, answer.choosing) for answer, label in zip(answers, labels, strict=True)])
        ),
        predicted=_predicted(answers, images.labels, alpha) if settings.smoothing == "fixed" else None,
        turned=int((~right & (predictions != ABSTAIN) & (seen == images.labels)).sum()),
        reasons=reasons,
        draws=sum(answer.draws for answer in answers),
        diagnosis_draws=diagnosed,
        predictions=tuple(predictions.tolist()),
        radii=tuple(reached.tolist()),
    )


def _usual(sigma: float, cap: float, method: str) -> list[float]:
    """0, sigma/2, sigma, ... up to the cap, and for the sequential test no further than is worth its draws."""
    last = min(cap, LAST_RADIUS * sigma) if method == "sequential" else cap
    return [sigma / 2 * i for i in range(math.floor(last / (sigma / 2)) + 1)]


def _before(settings: EvaluationSettings) -> int:
    """Draws that choose the class."""
    return PILOT if settings.smoothing == "adaptive" else settings.n0


def _asked(settings: EvaluationSettings, labels: Tensor, grid: list[float]) -> Callable[[int], Procedure[Answer]]:
    """What is asked of each image."""
    sigma, n0, n, alpha = settings.sigma, settings.n0, settings.n, settings.alpha
    if settings.smoothing == "fixed":
        return lambda number: fixed(sigma=sigma, n0=n0, n=n, alpha=alpha)
    if settings.smoothing == "adaptive":
        return lambda number: adaptive(int(labels[number]), sigma=sigma, n=n, alpha=alpha)
    test = radius_test(grid, sigma=sigma, n=n, alpha=alpha)
    first = radius_test(grid[:1], sigma=sigma, n=n, alpha=alpha)
    return lambda number: sequential(int(labels[number]), test, first, n0=n0)


def _curve(reached: Tensor, right: Tensor, radii: Sequence[float]) -> tuple[CertifiedRate, ...]:
    return tuple(CertifiedRate(**rate(right & (reached >= radius)).model_dump(), radius=radius) for radius in radii)


def _predicted(answers: Sequence[Answer], labels: Tensor, alpha: float) -> Rate:
    """PREDICT's accuracy with the n draws that CERTIFY took its bound from."""
    found = [voted(torch.from_numpy(np.append(answer.bounding, 0)), alpha) for answer in answers]
    return rate(torch.tensor(found) == labels)


def _reasons(
    model: nn.Module,
    images: Split,
    settings: EvaluationSettings,
    answers: Sequence[Answer],
    seen: Tensor,
    kept: Callable[[Noise], KeptVotes],
    device: torch.device,
) -> tuple[tuple[Abstention, ...], int]:
    """The abstentions explained, by more votes where a test gave up after a few, and by votes at half the noise; and
    how many votes that took, some of which may have lain there."""
    before, sigma, seed = _before(settings), settings.sigma, settings.seed
    silent = [number for number, answer in enumerate(answers) if answer.prediction == ABSTAIN]

    def votes_of(numbers: list[int], noise: Noise, n: int) -> dict[int, Votes]:
        found = ask(
            model,
            images.subset(numbers),
            noise,
            lambda number: _votes(n),
            batch_size=settings.forward_size,
            device=device,
            kept=kept(noise),
        )
        return dict(zip(numbers, found, strict=True))

    few = [number for number in silent if answers[number].bounding.sum() < DIAGNOSED]
    counts = {number: (answers[number].choosing, answers[number].bounding) for number in silent} | {
        number: (np.bincount(votes[:before]), np.bincount(votes[before:]))
        for number, votes in votes_of(few, Noise(sigma, seed), before + DIAGNOSED).items()
    }
    undecided = {
        number: Undecided(choosing, others, int(seen[number]), int(images.labels[number]))
        for number, (choosing, others) in counts.items()
    }
    spread = [number for number, image in undecided.items() if not image.has_majority]
    for number, calmer in votes_of(spread, Noise(sigma / 2, seed), settings.n0).items():
        undecided[number] = replace(undecided[number], calmer=np.bincount(calmer))
    draws = len(few) * (before + DIAGNOSED) + len(spread) * settings.n0
    return explained(list(undecided.values()), settings.smoothing, sigma=sigma, alpha=settings.alpha), draws


def _votes(n: int) -> Procedure[Votes]:
    """Nothing but n votes."""
    votes = yield n
    return votes
