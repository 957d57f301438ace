"""Gradients that are not there, vanish, or point nowhere."""

import torch
from torch import Tensor, nn

from kdcompress.attacks.pgd import into_ball
from kdcompress.evaluation.masking.findings import ATHALYE, CARLINI_2016, FEWEST, Sign, at_least, found, not_measured
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.norms import flat_norm, full_precision, steepest
from kdcompress.report import MaskingCheck
from kdcompress.threat import ThreatModel

VANISHED = Sign("vanishing gradients", 0.25, f"{CARLINI_2016}; {ATHALYE}")
NOT_RISING = Sign("loss along the gradient", 0.1, ATHALYE)
STEP = 0.1
"""Of eps: short enough for a curved network's loss to rise along its gradient, long enough to leave the rounding."""


def has_gradients(model: nn.Module, inputs: Tensor, labels: Tensor) -> bool:
    """Whether a white-box attack can be made on the network itself; if not, it needs a surrogate.

    | network                                                                       | answer |
    |-------------------------------------------------------------------------------|--------|
    | outputs without a graph to the inputs (int8, no_grad inside), autograd raises | no     |
    | max_{k != y} f_k - f_y has no finite gradient but zero on any image (rounding, signs) | no |
    | CE alone saturates (logits times 1e4): another loss finds the way             | yes    |

    Args:
        model: eval mode, (B, C, H, W) in [0,1] -> logits (B, K).
        labels: (B,).
    """
    with torch.no_grad():  # what is wrong with the call itself is no finding, and is raised here
        f = model(inputs)
    own = torch.zeros_like(f).scatter_(1, labels[:, None], 1.0)
    rival = f.masked_fill(own.bool(), -torch.inf).argmax(1)
    towards_rival = torch.zeros_like(f).scatter_(1, rival[:, None], 1.0) - own
    gradient = gradient_or_none(model, inputs, towards_rival)
    return gradient is not None and bool((_finite(gradient) & (gradient.flatten(1) != 0).any(1)).any())


def gradient_or_none(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor | None:
    """As `logits_and_input_gradient`, (B, C, H, W); None where autograd has none to give."""
    try:
        return logits_and_input_gradient(model, inputs, target, create_graph=False)[1]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # no graph to the inputs, or an operation without a derivative
        return None


def vanished(gradient: Tensor) -> Tensor:
    """Which gradients (B, C, H, W) are lost to float32: zero, not finite, or of a squared length of zero, (B,)."""
    return ~_finite(gradient) | (gradient.float().flatten(1).square().sum(1) == 0)


def vanishing_gradients(lost: Tensor | None) -> MaskingCheck:
    """The share of rightly classified images whose CE gradient is lost, with the logits as they come.

    A squared length of zero takes a softmax saturated to about 1e-20, a margin of 45 nats: honest networks end far
    below it, however sure they are.

    Args:
        lost: (B,), boolean; None where autograd has no gradient to give.
    """
    if lost is None:
        why = "the outputs do not depend differentiably on the inputs: no white-box attack can be made on this network"
        return found(VANISHED, 1.0, flagged=why, unflagged=why)
    count, n = int(lost.sum()), len(lost)
    return found(
        VANISHED,
        count / n,
        flagged=f"the gradient of the loss is zero, not finite, or too small for float32 on {count} of {n} images",
        unflagged=f"the gradient of the loss vanishes on {count} of {n} images",
    )


def rises(model: nn.Module, inputs: Tensor, labels: Tensor, gradient: Tensor, threat: ThreatModel) -> Tensor:
    """Does CE rise on a step of eps / 10 in the direction of steepest ascent? (B,): 1 yes, 0 no, NaN no telling.

    There is no telling where the rise that the gradient foretells drowns in rounding, as where it is zero.

    Args:
        gradient: grad_x CE of `model`, (B, C, H, W).
    """
    delta = into_ball(inputs, STEP * threat.eps * steepest(gradient, threat.norm), threat) - inputs
    with torch.no_grad():
        before, after = full_precision(model(inputs)), full_precision(model(inputs + delta))
    # In float64, which not every device has.
    risen = cross_entropy(after.cpu().double(), labels.cpu()) > cross_entropy(before.cpu().double(), labels.cpu())
    rounding = 100 * torch.finfo(before.dtype).eps * flat_norm(before, torch.inf)
    foretold = (delta * gradient).flatten(1).sum(1)
    return risen.to(inputs.device).float().where(foretold > rounding, torch.nan)


def loss_along_gradient(risen: Tensor) -> MaskingCheck:
    """The share of images whose loss does not rise along its own gradient.

    Args:
        risen: (B,), what `rises` tells.
    """
    n, flat = int((~risen.isnan()).sum()), int((risen == 0).sum())
    if n < FEWEST:
        return not_measured(NOT_RISING, f"the gradient foretells a rise on {n} images only")
    return found(
        NOT_RISING,
        at_least(flat, n),
        flagged=f"on {flat} of {n} images the loss does not rise along its gradient: who follows it is led astray",
        unflagged=f"the loss rises along its gradient on {n - flat} of {n} images",
    )


def _finite(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).isfinite().all(1)
