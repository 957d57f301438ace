"""What comes out of the network: finite logits, the same twice."""

import math

import torch
from torch import Tensor

from kdcompress.evaluation.masking.findings import ATHALYE, CARLINI_2017, CROCE, Sign, found
from kdcompress.report import MaskingCheck

NON_FINITE = Sign("finite outputs", 0.0, CROCE)
PROBABILITIES = Sign("probabilities as outputs", 0.5, CARLINI_2017)
RANDOM = Sign("randomness", 1e-4, f"{ATHALYE}; {CROCE}")
"""Of the logits' spread: float32 repeats to some 1e-6. Reduced precision gets eight of its own roundings."""


def non_finite(logits: Tensor) -> MaskingCheck:
    """The share of images with a NaN or infinite logit in (B, K): no verdict holds there."""
    bad = int((~logits.isfinite().all(1)).sum())
    return found(
        NON_FINITE,
        bad / len(logits),
        flagged=f"{bad} of {len(logits)} images have NaN or infinite logits: what an attack finds there is void",
        unflagged=f"the logits of all {len(logits)} images are finite",
    )


def probabilities(logits: Tensor) -> MaskingCheck:
    """The share of rows of (B, K) that are probabilities: non-negative and of sum 1."""
    rows = logits.float()
    share = float(((rows >= 0).all(1) & ((rows.sum(1) - 1).abs() < 1e-3)).float().mean())
    return found(
        PROBABILITIES,
        share,
        flagged=f"{share:.0%} of the outputs are probabilities (non-negative, of sum 1), not logits: a softmax inside "
        "the network flattens every loss; evaluate the network without it",
        unflagged="the outputs are logits, not probabilities",
    )


def randomness(first: Tensor, *others: Tensor) -> MaskingCheck:
    """The largest difference of one image's logits between forwards of the same batches, over the logits' spread.

    The batches are the same each time, so what a batch's company does to the rounding is the same too.

    Args:
        first, others: (B, K), of the same inputs.
    """
    spread = float(first.float().std(1).mean())
    apart = max(float((first - other).abs().max()) for other in others) / max(spread, 1e-12)
    apart = apart if math.isfinite(apart) else 0.0  # NaN is another check's business
    return found(
        RANDOM._replace(threshold=max(RANDOM.threshold, 8 * torch.finfo(first.dtype).eps)),
        apart,
        flagged=f"the logits of one image differ by {apart:.1e} of their spread from one forward to the next: the "
        "network is random, and --attack autoattack-rand (expectation over transformation) is the one meant for it",
        unflagged=f"the same images give the same logits in {1 + len(others)} forwards",
    )
