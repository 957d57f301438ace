"""What attacks by the gradient gain from a larger ball, more steps and more starts."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from kdcompress.attacks.pgd import into_ball, pgd
from kdcompress.evaluation.masking.batches import over_batches
from kdcompress.evaluation.masking.findings import ATHALYE, CARLINI_2019, Sign, at_least, found
from kdcompress.maths.intervals import paired_difference
from kdcompress.maths.norms import norm_of, steepest
from kdcompress.report import MaskingCheck
from kdcompress.threat import ThreatModel

STEPS, MORE_STEPS, RESTARTS, LARGE_EPS_STEPS = 10, 50, 2, 20
LARGE_EPS = Sign("accuracy at large eps", 0.1, f"{ATHALYE}; {CARLINI_2019}")
ONE_STEP = Sign("one step against many", 0.0, ATHALYE)
MORE_STEPS_HELP = Sign("more steps", 0.1, CARLINI_2019)
RESTARTS_HELP = Sign("more restarts", 0.1, CARLINI_2019)


class UnitSpread(nn.Module):
    """f / s with s the mean standard deviation of a row of logits: the same predictions, whatever the logits' scale.

    CE is flat where a network is sure, so PGD on f would measure the confidence of an honest network. Attacks that
    are free of the scale, as AutoAttack's DLR loss, are what the report is about.
    """

    def __init__(self, network: nn.Module, logits: Tensor) -> None:
        super().__init__()
        self.network = network
        self.spread = float(logits.float().std(1).mean().clamp(min=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        logits: Tensor = self.network(x)
        return logits.div(self.spread)


def breaks(model: nn.Module, found_inputs: Tensor, labels: Tensor) -> Tensor:
    """Which of the answers (B, C, H, W) are misclassified, (B,); one with NaN in it is no answer."""
    with torch.no_grad():
        logits: Tensor = model(found_inputs)
        return found_inputs.flatten(1).isfinite().all(1) & (logits.argmax(1) != labels)


@dataclass(frozen=True)
class WhiteBox:
    """Which rightly classified images each attack breaks, (B,), boolean.

    Attributes:
        one_step: x + eps steepest(grad_x CE).
        few: PGD-10.
        more_steps: PGD-50, or PGD-10 before it.
        restarts: PGD-10 from two more starts, or the first.
    """

    one_step: Tensor
    few: Tensor
    more_steps: Tensor
    restarts: Tensor

    @property
    def any(self) -> Tensor:
        """Broken by any of them."""
        return self.one_step | self.more_steps | self.restarts


def attack(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    gradient: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int,
    rng: Generator,
) -> WhiteBox:
    """The four attacks; what falls to PGD-10 is not attacked again.

    Args:
        model: of unit spread.
        gradient: grad_x CE of `model` at the inputs.
    """
    one_step = over_batches(
        lambda x, y, g: breaks(model, into_ball(x, threat.eps * steepest(g, threat.norm), threat), y),
        batch_size,
        inputs,
        labels,
        gradient,
    )

    def more(before: Tensor, steps: int) -> Tensor:
        return broken_by_pgd(model, inputs, labels, threat, before, steps=steps, batch_size=batch_size, rng=rng)

    few = more(torch.zeros_like(one_step), STEPS)
    restarts = few
    for _ in range(RESTARTS):
        restarts = more(restarts, STEPS)
    return WhiteBox(one_step, few, more(few, MORE_STEPS), restarts)


def broken_by_pgd(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    before: Tensor,
    *,
    steps: int,
    batch_size: int,
    rng: Generator,
) -> Tensor:
    """`before`, (B,), and those of the others that PGD breaks."""

    def fall(x: Tensor, y: Tensor) -> Tensor:
        return breaks(model, pgd(model, x, y, threat, steps=steps, generator=rng), y)

    broken = before.clone()
    if not bool(before.all()):
        broken[~before] = over_batches(fall, batch_size, inputs[~before], labels[~before])
    return broken


def more_steps_help(result: WhiteBox) -> MaskingCheck:
    """The share of images that stand PGD-10 and fall to PGD-50."""
    n, gained = len(result.few), int((result.more_steps & ~result.few).sum())
    return found(
        MORE_STEPS_HELP,
        at_least(gained, n),
        flagged=f"PGD-{MORE_STEPS} breaks {gained} of {n} images that PGD-{STEPS} leaves standing: the attack has not "
        "converged, and more of the same will break more",
        unflagged=f"PGD-{MORE_STEPS} breaks {gained} more of {n} images than PGD-{STEPS}",
    )


def restarts_help(result: WhiteBox) -> MaskingCheck:
    """The share of images that stand PGD-10 from one start and fall from one of two more."""
    n, gained = len(result.few), int((result.restarts & ~result.few).sum())
    return found(
        RESTARTS_HELP,
        at_least(gained, n),
        flagged=f"{RESTARTS} more random starts of PGD-{STEPS} break {gained} of {n} images that the first leaves "
        "standing: where the attack starts decides, so it has not converged",
        unflagged=f"{RESTARTS} more random starts of PGD-{STEPS} break {gained} more of {n} images",
    )


def one_step_is_stronger(result: WhiteBox) -> MaskingCheck:
    """By how much one step breaks more images than PGD-10: the low end of Tango's interval, at confidence .998."""
    n = len(result.few)
    one, many = int(result.one_step.sum()), int(result.few.sum())
    one_only, many_only = int((result.one_step & ~result.few).sum()), int((result.few & ~result.one_step).sum())
    return found(
        ONE_STEP,
        paired_difference(one_only, many_only, n, confidence=0.998)[0],
        flagged=f"one step breaks {one} of {n} images and PGD-{STEPS} only {many}: the gradient misleads it",
        unflagged=f"one step breaks {one} of {n} images and PGD-{STEPS} breaks {many}",
    )


def large_threat(inputs: Tensor, threat: ThreatModel) -> ThreatModel:
    """A ball that holds, around every image, the plain grey one of all one half: there is nothing left to see in it.

    Never smaller than `threat`; cut at L2 100, the widest there is, where images are of more than 40,000 numbers.
    """
    eps = max(threat.eps, float(norm_of(inputs - 0.5, threat.norm).max()))
    return ThreatModel(threat.norm, min(eps, 100.0) if threat.norm == "L2" else eps)


def accuracy_at_large_eps(broken: Tensor, large: ThreatModel, classes: int) -> MaskingCheck:
    """The share of rightly classified images that stand PGD-20 in a ball that holds the grey image.

    Args:
        broken: (B,), boolean.
    """
    n, left = len(broken), int((~broken).sum())
    return found(
        LARGE_EPS._replace(threshold=max(LARGE_EPS.threshold, 1 / classes)),
        at_least(left, n),
        flagged=f"{left} of {n} images stand PGD-{LARGE_EPS_STEPS} at {large}, where little is left to see of any "
        "image: it is the attack that fails",
        unflagged=f"{left} of {n} images stand PGD-{LARGE_EPS_STEPS} at {large}",
    )
