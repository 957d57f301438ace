"""The one adapter around the authors' AutoAttack. Nobody else imports `pyautoattack`.

Source: Croce and Hein (2020), arXiv:2003.01690.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from pyautoattack import AutoAttack, checks
from torch import Tensor, nn

from kdcompress.errors import UsageError
from kdcompress.threat import ThreatModel

LOGGER = logging.getLogger("auto-attack")


def attack_name(classes: int) -> str:
    """What `adversarial_inputs` runs on a network of `classes` classes; a reduced set is not called AutoAttack.

    >>> attack_name(10)
    'AutoAttack standard'
    >>> attack_name(5)
    'AutoAttack standard, 4 targets'
    >>> attack_name(3)
    'reduced set (not AutoAttack): apgd-ce, apgd-dlr, fab-t, square'
    """
    if classes >= 10:
        return "AutoAttack standard"
    if classes >= 4:
        return f"AutoAttack standard, {classes - 1} targets"
    return f"reduced set (not AutoAttack): {', '.join(_attacks(classes))}"


def refuse_shape(input_size: tuple[int, int, int], threat: ThreatModel) -> None:
    """Find out before an hour of attacks whether the package's last one, Square, can run.

    Raises:
        UsageError: if the images (C, H, W) are taller than wide, or less than 5 pixels on a side, under L2.
    """
    _, height, width = input_size
    if threat.norm == "L2" and (height > width or min(height, width) < 5):
        raise UsageError(
            f"--attack autoattack under L2 needs images of at least 5x5, no taller than wide (its Square attack "
            f"fails on others), got {height}x{width}; add --image-size N, or choose --attack pgd-100"
        )


def _attacks(classes: int) -> list[str]:
    """Targeted DLR needs four classes, DLR three; every other attack takes two."""
    if classes >= 4:
        return ["apgd-ce", "apgd-t", "fab-t", "square"]
    return ["apgd-ce", *(["apgd-dlr"] if classes == 3 else []), "fab-t", "square"]


def adversarial_inputs(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    classes: int,
    seed: int,
    on_attack: Callable[[str], None] = lambda name: None,
) -> tuple[Tensor, list[str]]:
    """The package's answer for one batch, as it is: (B, C, H, W), unchanged where no attack succeeded; and its warnings.

    The caller projects, runs the model again and counts. The batch is the package's batch, so that the same batch and
    seed give what a direct call gives.

    Args:
        model: eval mode, inputs in [0,1] -> logits (B, K).
        classes: K, at least 2.
        on_attack: told each attack's name when it starts.
    """  # noqa: E501
    whole = classes >= 4
    with _package_manners(on_attack) as warnings, _own_randomness(inputs):
        adversary = AutoAttack(
            model,
            norm=threat.norm,
            eps=threat.eps,
            seed=seed,
            device=inputs.device,
            version="standard" if whole else "custom",
            attacks=None if whole else _attacks(classes),
        )
        targets = min(9, classes - 1)
        adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = targets
        if not whole:  # what version="standard" sets
            adversary.apgd.n_restarts = adversary.fab.n_restarts = 1
        found, _ = adversary.run_standard_evaluation(inputs, labels, batch_size=len(inputs))
    return found.detach(), warnings


@contextmanager
def _package_manners(on_attack: Callable[[str], None]) -> Iterator[list[str]]:
    """Hear the package's log, keep it off the screen, and give back the trace function that it clears."""
    heard = _Listener(on_attack)
    # It counts, for as long as the process lives, the models that call autograd: one would cast suspicion on the next.
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    trace, level, propagate = sys.gettrace(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(heard)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    try:
        yield heard.warnings
    finally:
        sys.settrace(trace)
        LOGGER.removeHandler(heard)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


def _own_randomness(inputs: Tensor) -> AbstractContextManager[None]:
    """The package seeds the generators that the whole process shares: give them back as they were."""
    return torch.random.fork_rng(devices=[inputs.get_device()] if inputs.is_cuda else [])


class _Listener(logging.Handler):
    """Sorts the package's log into attacks started and warnings."""

    def __init__(self, on_attack: Callable[[str], None]) -> None:
        super().__init__()
        self.on_attack = on_attack
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            # The package points to a document of its own repository; a reader of our report has not got it.
            self.warnings.append(message.split(" See ")[0])
        elif message.startswith("running "):
            self.on_attack(message.removeprefix("running "))
