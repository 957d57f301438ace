"""Accuracy, clean and under attack: verdicts an image, counted by us."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcompress.attacks import autoattack
from kdcompress.attacks.pgd import into_ball, pgd
from kdcompress.data import Split
from kdcompress.maths.intervals import clopper_pearson
from kdcompress.maths.randomness import generator
from kdcompress.report import Rate, RobustRate
from kdcompress.threat import ThreatModel

OnAttack = Callable[[str, int, int, int], None]
"""Told (attack running, images done, images in all, images standing)."""


@dataclass(frozen=True)
class Verdicts:
    """Which images are classified rightly, as they are and under the attack. Both (N,), boolean, on the CPU.

    Guarantees:
        An image wrong on clean input is wrong under attack: robust accuracy never exceeds clean accuracy.
    """

    clean: Tensor
    robust: Tensor
    attack: str
    warnings: tuple[str, ...]


def rate(correct: Tensor) -> Rate:
    """The share of true entries with its 95% Clopper-Pearson interval."""
    successes, n = int(correct.sum()), len(correct)
    low, high = clopper_pearson(successes, n)
    return Rate(value=successes / n, low=low, high=high, n=n)


def robust_rate(verdicts: Verdicts) -> RobustRate:
    """The same for the verdicts under attack, with the attack's name."""
    return RobustRate(**rate(verdicts.robust).model_dump(), attack=verdicts.attack)


def correct(model: nn.Module, images: Split, *, batch_size: int, device: torch.device) -> Tensor:
    """Which images are classified rightly: (N,), boolean, on the CPU."""
    with torch.inference_mode():
        parts = [(model(x).argmax(1) == y).cpu() for x, y in images.batches(batch_size, device=device)]
    return torch.cat(parts)


def under_attack(
    model: nn.Module,
    images: Split,
    threat: ThreatModel,
    *,
    attack: str,
    classes: int,
    seed: int,
    batch_size: int,
    device: torch.device,
    on_progress: OnAttack = lambda attack, done, total, standing: None,
) -> Verdicts:
    """Attack every image, bring each answer back into the ball and [0,1], run the network again, and count.

    Args:
        model: eval mode.
        attack: `autoattack` or `pgd-N`.
        seed: batch number b is attacked with seed `seed + b`.
    """
    steps = int(found[1]) if (found := re.fullmatch(r"pgd-(\d+)", attack)) else None
    name = f"PGD-{steps}" if steps else autoattack.attack_name(classes)
    clean, robust, warnings = [], [], list[str]()
    done = standing = 0
    for number, (x, y) in enumerate(images.batches(batch_size, device=device)):
        # What is true now is wanted when the callback runs, not when the loop has moved on.
        def told(running: str, done: int = done, standing: int = standing) -> None:
            on_progress(running, done, len(images), standing)

        if steps:
            told(name)
            found_inputs = pgd(model, x, y, threat, steps=steps, generator=generator(seed + number, "pgd"))
        else:
            found_inputs, heard = autoattack.adversarial_inputs(
                model, x, y, threat, classes=classes, seed=seed + number, on_attack=told
            )
            warnings += [warning for warning in heard if warning not in warnings]
        with torch.inference_mode():
            right = model(x).argmax(1) == y
            kept = right & (model(into_ball(x, found_inputs - x, threat)).argmax(1) == y)
        clean.append(right.cpu())
        robust.append(kept.cpu())
        done, standing = done + len(x), standing + int(kept.sum())
        on_progress(name, done, len(images), standing)
    return Verdicts(torch.cat(clean), torch.cat(robust), name, tuple(warnings))
