"""The one adapter around the authors' AutoAttack. Nobody else imports `pyautoattack`.

The package's run is taken apart into its attacks, one call each on the images still standing, so that a run can be
stopped and taken up between them. Each attack seeds itself and sees the same batch, so the answers are the package's.

Source: Croce and Hein (2020), arXiv:2003.01690; for L1 (2021), arXiv:2103.01208.
"""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from pyautoattack import AutoAttack, checks
from torch import Tensor, nn

from kdcompress.errors import UsageError
from kdcompress.threat import ThreatModel

LOGGER = logging.getLogger("auto-attack")

Version = Literal["standard", "plus", "rand"]
Attack = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]

ATTACKS: dict[Version, tuple[Attack, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
DRAWS = 20
"""Expectation over transformation: gradients that the version `rand` averages."""


def attacks_of(version: Version, classes: int) -> tuple[Attack, ...]:
    """What the version runs, as far as its losses exist: targeted DLR needs four classes, DLR three.

    >>> attacks_of("standard", 10), attacks_of("standard", 3), attacks_of("rand", 2)
    (('apgd-ce', 'apgd-t', 'fab-t', 'square'), ('apgd-ce', 'apgd-dlr', 'fab-t', 'square'), ('apgd-ce',))
    """
    least = {"apgd-t": 4, "apgd-dlr": 3}
    wanted = ATTACKS[version]
    if classes < 4 and "apgd-dlr" not in wanted:  # the nearest loss that exists
        wanted = tuple("apgd-dlr" if attack == "apgd-t" else attack for attack in wanted)
    return tuple(attack for attack in wanted if classes >= least.get(attack, 2))


def attack_name(version: Version, classes: int) -> str:
    """What runs on a network of `classes` classes; a reduced set is not called AutoAttack.

    >>> attack_name("standard", 10)
    'AutoAttack standard'
    >>> attack_name("standard", 5)
    'AutoAttack standard, 4 targets'
    >>> attack_name("standard", 3)
    'reduced set (not AutoAttack): apgd-ce, apgd-dlr, fab-t, square'
    """
    attacks = attacks_of(version, classes)
    if set(attacks) != set(ATTACKS[version]):
        return f"reduced set (not AutoAttack): {', '.join(attacks)}"
    targeted = classes < 10 and "fab-t" in attacks
    return f"AutoAttack {version}" + (f", {classes - 1} targets" if targeted else "")


def square_applies(height: int, width: int, norm: str) -> bool:
    """The package's Square fails on images taller than wide or under 5 pixels, but for Linf."""
    return norm == "Linf" or (height <= width and height >= 5)


def refuse_shape(
    input_size: tuple[int, int, int], norm: str, *, attack: str = "AutoAttack", instead: str = " or --attack apgd"
) -> None:
    """Find out before an hour of attacks whether the package's last one, Square, can run.

    Raises:
        UsageError: if the images (C, H, W) are taller than wide, or less than 5 pixels on a side, under L2 or L1.
    """
    _, height, width = input_size
    if not square_applies(height, width, norm):
        raise UsageError(
            f"{attack} under {norm} needs images of at least 5x5, no taller than wide (the package's Square "
            f"fails on others), got {height}x{width}; add --image-size N, or choose --norm Linf{instead}"
        )


def answers(
    attack: Attack,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    classes: int,
    seed: int,
    version: Version = "standard",
    steps: int | None = None,
    most_targets: int | None = None,
    queries: int | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """One attack's answer for one batch: (B, C, H, W), unchanged where it did not succeed; and its warnings.

    The caller projects, runs the model again and counts. The batch is the package's batch.

    Guarantees:
        Run one after the other on the images still standing, the attacks of a version give what a direct call of the
        package with this seed and batch gives.

    Args:
        model: eval mode, inputs in [0,1] -> logits (B, K).
        labels: (B,), as the model sees the inputs.
        steps, most_targets, queries: fewer than the version's, for screening.
    """
    with _package_manners() as warnings, _own_randomness(inputs):
        adversary = AutoAttack(
            model, norm=threat.norm, eps=threat.eps, seed=seed, device=inputs.device, version=version
        )
        most = min(classes - 1, most_targets or classes)
        for targeted in (adversary.apgd_targeted, adversary.fab):
            targeted.n_target_classes = min(most, targeted.n_target_classes)
        if steps is not None:
            _shorten(adversary.apgd, steps)
            _shorten(adversary.apgd_targeted, steps)
        adversary.square.n_queries = queries or adversary.square.n_queries
        with torch.no_grad():
            found: Tensor = _set_up(adversary, attack, seed).perturb(inputs.clone(), labels.clone())
    return found.detach(), tuple(dict.fromkeys(warnings))


def _shorten(apgd: Any, steps: int) -> None:
    """As if built for so many steps: the constructor derives from them when the step size is halved."""
    built = type(apgd)(apgd.model, n_iter=steps, eps=apgd.eps)
    for name in ("n_iter", "n_iter_orig", "n_iter_2", "n_iter_min", "size_decr"):
        setattr(apgd, name, getattr(built, name))


def _set_up(adversary: AutoAttack, attack: Attack, seed: int) -> Any:
    """The attack's object, set as the package sets it before the call."""
    runner: Any
    if attack in ("apgd-ce", "apgd-dlr"):
        runner = adversary.apgd
        runner.loss = attack.removeprefix("apgd-")
    elif attack == "apgd-t":
        runner = adversary.apgd_targeted
    elif attack == "square":
        runner = adversary.square
    else:
        runner = adversary.fab
        runner.targeted = attack == "fab-t"
        if runner.targeted:
            runner.n_restarts = 1
    runner.seed = seed
    return runner


def square_inputs(
    model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel, *, queries: int, seed: int
) -> Tensor:
    """The answer of the package's Square alone, with few queries: (B, C, H, W), unchanged where it did not succeed.

    Its schedule of squares is drawn together to `queries`. This is not AutoAttack: no robust accuracy to report.
    Source: Andriushchenko et al. (2020), arXiv:1912.00049.
    """
    with _package_manners(), _own_randomness(inputs):
        square = AutoAttack(
            model,
            norm=threat.norm,
            eps=threat.eps,
            seed=seed,
            device=inputs.device,
            version="custom",
            attacks=["square"],
        ).square
        square.n_queries, square.rescale_schedule = queries, True
        found: Tensor = square.perturb(inputs, labels)
    return found.detach()


def is_dynamic(model: nn.Module, inputs: Tensor) -> bool:
    """Whether the network itself calls autograd while it answers: attacks that know nothing of that may be too weak."""
    with _package_manners() as warnings:
        checks.check_dynamic(model, inputs, False, logger=LOGGER)
    return bool(warnings)


@contextmanager
def _package_manners() -> Iterator[list[str]]:
    """Hear the package's warnings, keep its log off the screen, and give back the trace function that it clears."""
    heard = _Warnings()
    # It counts, for as long as the process lives, the models that call autograd: one would cast suspicion on the next.
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    trace, level, propagate = sys.gettrace(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(heard)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    try:
        yield heard.messages
    finally:
        sys.settrace(trace)
        LOGGER.removeHandler(heard)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


def _own_randomness(inputs: Tensor) -> AbstractContextManager[None]:
    """The package seeds the generators that the whole process shares: give them back as they were."""
    return torch.random.fork_rng(devices=[inputs.get_device()] if inputs.is_cuda else [])


class _Warnings(logging.Handler):
    """Keeps the package's warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The package points to a document of its own repository; a reader of our report has not got it. How many points
        # it means differs from batch to batch, and would make one warning many.
        message = record.getMessage().split(" See ")[0]
        self.messages.append(re.sub(r"there are \d+ points", "there are points", message))
