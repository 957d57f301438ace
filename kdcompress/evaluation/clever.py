"""CLEVER in a report: an estimate, image by image."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.audit.numbers import median, rounded
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.maths.clever import clever
from kdcompress.maths.jacobian import logits_and_jacobian
from kdcompress.maths.margins import margin_gradients, margins
from kdcompress.maths.norms import dual_exponent, flat_norm
from kdcompress.maths.randomness import generator
from kdcompress.report import Clever
from kdcompress.settings import CleverSettings
from kdcompress.threat import Norm


def clever_scores(
    model: nn.Module,
    images: Split,
    norm: Norm,
    settings: CleverSettings,
    *,
    batch_size: int,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Clever | None:
    """The untargeted score of every image, over its `rivals` nearest classes by first order. Bounds nothing.

    None for a network without gradients, of which the estimate would say that nothing can move it.

    Guarantees:
        An image's score does not depend on the other images, but on its place among them.
        The same seed gives the same scores, whatever the batch size (to rounding).
    """
    x, y = next(images.batches(8, device=device))
    if not has_gradients(model, x, y):
        return None
    scores, failed = [], 0
    for number, (x, y) in enumerate(images.batches(1, device=device)):
        rivals = nearest_rivals(model, x, y, norm, settings.rivals)
        found, ends = clever(
            model,
            x[0],
            int(y),
            norm,
            R=settings.R,
            Nb=settings.Nb,
            Ns=settings.Ns,
            targets=rivals[0].tolist(),
            batch_size=batch_size,
            generator=generator(settings.seed, f"clever {number}"),
        )
        least = int(found.argmin())
        scores.append(found[least])
        failed += ends[least] == "largest"
        on_progress(number + 1, len(images))
    together = torch.stack(scores)
    return Clever(
        norm=norm,
        R=settings.R,
        Nb=settings.Nb,
        Ns=settings.Ns,
        rivals=rivals.shape[1],
        seed=settings.seed,
        scores=rounded(together),
        median=median(together),
        at_cap=int((together >= settings.R).sum()),
        not_fitted=failed,
        n=len(images),
    )


def nearest_rivals(model: nn.Module, x: Tensor, y: Tensor, norm: Norm, most: int) -> Tensor:
    """The classes of least m_k / ||grad m_k||_q at x, (B, min(most, K - 1)); those already ahead of y come first."""
    f, J = logits_and_jacobian(model, x)
    K = f.shape[1]
    others = (y[:, None] + torch.arange(1, K, device=y.device)) % K
    margin, gradient = margins(f, y, others), margin_gradients(J, y, others)
    slope = flat_norm(gradient.flatten(0, 1), dual_exponent(norm)).view_as(margin)
    distance = torch.where(slope > 0, margin / slope, margin.sign() * torch.inf).nan_to_num(0.0, torch.inf, -torch.inf)
    return others.gather(1, distance.topk(min(most, K - 1), 1, largest=False).indices)
