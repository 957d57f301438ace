"""CLEVER in a report: an estimate, image by image."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.audit.numbers import median, rounded
from kdcompress.evaluation.kept_scores import NOT_KEPT, KeptScores
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.maths.clever import clever
from kdcompress.maths.jacobian import logits_and_jacobian
from kdcompress.maths.margins import margin_gradients, margins
from kdcompress.maths.norms import dual_exponent, flat_norm
from kdcompress.maths.randomness import generator
from kdcompress.processes import shared
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
    kept: KeptScores = NOT_KEPT,
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
    with torch.no_grad():
        classes = model(x[:1]).shape[1]

    def scored(number: int) -> Tensor:
        ((x, y),) = images.subset([number]).batches(1, device=device)
        with torch.no_grad():
            logits = model(x)[0].float().cpu()
        row = kept.load(number, x[0], int(y), logits)
        if row is None:
            row = _scored(model, x, y, norm, settings, batch_size, generator(settings.seed, f"clever {number}"))
            kept.save(number, x[0], int(y), logits, row)
        on_progress(number + 1, len(images))
        return row

    together, fitted = torch.stack(shared("CLEVER", len(images), scored)).unbind(1)
    return Clever(
        norm=norm,
        R=settings.clever_radius,
        Nb=settings.clever_batches,
        Ns=settings.clever_samples,
        rivals=min(settings.rivals, classes - 1),
        seed=settings.seed,
        scores=rounded(together),
        median=median(together),
        at_cap=int((together >= settings.clever_radius).sum()),
        not_fitted=int((fitted == 0).sum()),
        n=len(images),
    )


def _scored(
    model: nn.Module, x: Tensor, y: Tensor, norm: Norm, settings: CleverSettings, batch_size: int, draws: Generator
) -> Tensor:
    """The least score of the image x (1, C, H, W) over its rivals, and whether it rests on a fit: (2,), float64."""
    found, ends = clever(
        model,
        x[0],
        int(y),
        norm,
        R=settings.clever_radius,
        Nb=settings.clever_batches,
        Ns=settings.clever_samples,
        targets=nearest_rivals(model, x, y, norm, settings.rivals)[0].tolist(),
        batch_size=batch_size,
        generator=draws,
    )
    least = int(found.argmin())
    return torch.tensor([float(found[least]), float(ends[least] != "largest")], dtype=torch.float64)


def nearest_rivals(model: nn.Module, x: Tensor, y: Tensor, norm: Norm, most: int) -> Tensor:
    """The classes of least m_k / ||grad m_k||_q at x, (B, min(most, K - 1)); those already ahead of y come first."""
    f, J = logits_and_jacobian(model, x)
    K = f.shape[1]
    others = (y[:, None] + torch.arange(1, K, device=y.device)) % K
    margin, gradient = margins(f, y, others), margin_gradients(J, y, others)
    slope = flat_norm(gradient.flatten(0, 1), dual_exponent(norm)).view_as(margin)
    distance = torch.where(slope > 0, margin / slope, margin.sign() * torch.inf).nan_to_num(0.0, torch.inf, -torch.inf)
    return others.gather(1, distance.topk(min(most, K - 1), 1, largest=False).indices)
