"""All the checks, on one network."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kdcompress.attacks.autoattack import square_applies
from kdcompress.evaluation.masking.batches import over_batches
from kdcompress.evaluation.masking.black_box import (
    BLACK_BOX,
    TRANSFER,
    black_box_is_stronger,
    broken_by_square,
    broken_by_transfer,
    transfer_is_stronger,
)
from kdcompress.evaluation.masking.findings import FEWEST, not_measured
from kdcompress.evaluation.masking.gradients import (
    NOT_RISING,
    VANISHED,
    gradient_or_none,
    has_gradients,
    loss_along_gradient,
    rises,
    vanished,
    vanishing_gradients,
)
from kdcompress.evaluation.masking.outputs import (
    NON_FINITE,
    PROBABILITIES,
    RANDOM,
    non_finite,
    probabilities,
    randomness,
)
from kdcompress.evaluation.masking.white_box import (
    LARGE_EPS,
    LARGE_EPS_STEPS,
    MORE_STEPS_HELP,
    ONE_STEP,
    RESTARTS_HELP,
    UnitSpread,
    accuracy_at_large_eps,
    attack,
    broken_by_pgd,
    large_threat,
    more_steps_help,
    one_step_is_stronger,
    restarts_help,
)
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.randomness import generator
from kdcompress.report import Masking, MaskingCheck
from kdcompress.threat import ThreatModel

REPEATS = 3
SIGNS = (
    NON_FINITE,
    PROBABILITIES,
    RANDOM,
    VANISHED,
    NOT_RISING,
    LARGE_EPS,
    ONE_STEP,
    MORE_STEPS_HELP,
    RESTARTS_HELP,
    BLACK_BOX,
    TRANSFER,
)


def check_masking(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    classes: int,
    seed: int,
    batch_size: int = 100,
    transfer_from: nn.Module | None = None,
    random_allowed: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Masking:
    """Look for every sign of gradient masking on a few images.

    Guarantees:
        The same seed gives the same findings, even of a random network (on one device).
        The process's random state is left as it was.
        A network without gradients, or with NaN in them or in its outputs, is a finding and no error.

    Costs some 600 forwards an image where nothing is found (PGD of 110 steps in all, 200 queries of Square), and as
    many again for each image that Square or transfer breaks alone: see the package's table.

    Args:
        model: eval mode, frozen, (B, C, H, W) in [0,1] -> logits (B, K).
        inputs, labels: some 100 images, (B, C, H, W) in [0,1], and (B,).
        classes: K.
        transfer_from: another network for the same images, as the teacher of a student.
        random_allowed: the attack is made for random networks, and averages over their draws: randomness is no flag,
            and what follows single draws is not measured.
        on_progress: told (checks done, checks in all).
    """
    start = time.perf_counter()
    checks: list[MaskingCheck] = []
    with _own_randomness(inputs.device, seed):
        for check in _checks(model, inputs, labels, threat, classes, seed, batch_size, transfer_from, random_allowed):
            checks.append(check)
            on_progress(len(checks), len(SIGNS))
    return Masking(checks=tuple(checks), n=len(inputs), seconds=time.perf_counter() - start)


def _checks(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    classes: int,
    seed: int,
    batch_size: int,
    transfer_from: nn.Module | None,
    random_allowed: bool,
) -> Iterator[MaskingCheck]:
    def forward(network: nn.Module) -> Tensor:
        with torch.no_grad():
            return over_batches(network, batch_size, inputs)

    f, *again = [forward(model) for _ in range(1 + REPEATS)]
    yield non_finite(f)
    yield probabilities(f)
    random = randomness(f, *again)
    averaged = random_allowed and random.flagged
    if averaged:
        finding = f"{random.finding}; the attack averages over draws"
        random = random.model_copy(update={"flagged": False, "finding": finding})
    yield random

    right = f.isfinite().all(1) & (f.argmax(1) == labels)
    x, y = inputs[right], labels[right]
    if len(y) < FEWEST:
        why = f"only {len(y)} images are classified rightly, and {FEWEST} are needed"
        yield from (not_measured(sign, why) for sign in SIGNS[3:])
        return
    if gradient_or_none(model, x[:1], y[:1]) is None:
        yield vanishing_gradients(None)
        yield from (not_measured(sign, "the network has no gradients") for sign in SIGNS[4:])
        return

    def gradient(network: nn.Module) -> Tensor:
        return over_batches(
            lambda x, y: logits_and_input_gradient(network, x, y, create_graph=False)[1], batch_size, x, y
        )

    yield vanishing_gradients(vanished(gradient(model)))
    if averaged:
        why = "the network is random, and this check follows single draws"
        yield from (not_measured(sign, why) for sign in SIGNS[4:])
        return
    unit = UnitSpread(model, f[right])
    g = gradient(unit)
    yield loss_along_gradient(over_batches(lambda x, y, g: rises(unit, x, y, g, threat), batch_size, x, y, g))
    yield from _attacks(unit, g, x, y, threat, classes, seed, batch_size, transfer_from)


def _attacks(
    unit: UnitSpread,
    g: Tensor,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    classes: int,
    seed: int,
    batch_size: int,
    transfer_from: nn.Module | None,
) -> Iterator[MaskingCheck]:
    """What attacks find on the images that are classified rightly; g is the input gradient of `unit` there."""
    rng = generator(seed, "masking")
    none = torch.zeros_like(y, dtype=torch.bool)
    few_pixels = "under L1 a step moves few pixels"
    if threat.norm == "L1":
        yield not_measured(LARGE_EPS, f"{few_pixels}, and so many as a wide ball allows take more steps than there are")
    else:
        large = large_threat(x, threat)
        stands = broken_by_pgd(unit, x, y, large, none, steps=LARGE_EPS_STEPS, batch_size=batch_size, rng=rng)
        yield accuracy_at_large_eps(stands, large, classes)
    white = attack(unit, x, y, g, threat, batch_size=batch_size, rng=rng)
    yield one_step_is_stronger(white)
    if threat.norm == "L1":  # a step moves few pixels, and honest networks fall to more of them too
        yield not_measured(MORE_STEPS_HELP, f"{few_pixels}, and more of them always help")
    else:
        yield more_steps_help(white)
    yield restarts_help(white)
    square = transfer = None
    if square_applies(x.shape[2], x.shape[3], threat.norm):
        square = broken_by_square(
            unit, x, y, white.any, threat, batch_size=batch_size, seed=seed, rng=generator(seed, "masking, Square")
        )
    yield black_box_is_stronger(square)
    if transfer_from is not None and has_gradients(transfer_from, x[:batch_size], y[:batch_size]):
        with torch.no_grad():
            other = UnitSpread(transfer_from, over_batches(transfer_from, batch_size, x))
        transfer = broken_by_transfer(
            unit, other, x, y, white.any, threat, batch_size=batch_size, rng=generator(seed, "masking, transfer")
        )
    yield transfer_is_stronger(transfer)


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """A random network draws from the process's generators: let it, from a seed, and give them back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        own = generator(seed, "masking, the network's own chance").initial_seed()
        torch.default_generator.manual_seed(own)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(own)
        yield
