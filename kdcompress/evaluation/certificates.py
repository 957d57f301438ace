"""The certified part of a report: each kind of radius under its own name."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.maths.radii import first_order_radius
from kdcompress.maths.randomness import generator
from kdcompress.maths.smoothed_radius import radius_cap
from kdcompress.maths.smoothing import ABSTAIN, certify
from kdcompress.report import CertifiedRate, FirstOrder, Smoothing
from kdcompress.settings import EvaluationSettings
from kdcompress.threat import Norm


def first_order(
    model: nn.Module, images: Split, norm: Norm, *, batch_size: int, device: torch.device
) -> FirstOrder | None:
    """The median first-order radius (zero for misclassified images): an estimate, which bounds nothing.

    None for a network without gradients, of which the estimate would say that nothing can move it.
    """
    x, y = next(images.batches(8, device=device))
    if not has_gradients(model, x, y):
        return None
    radii = torch.cat(
        [first_order_radius(model, x, y, norm).cpu() for x, y in images.batches(batch_size, device=device)]
    )
    median = float(radii.quantile(0.5, interpolation="lower"))
    return FirstOrder(norm=norm, median=median if math.isfinite(median) else None, n=len(radii))


def smoothing(
    model: nn.Module,
    images: Split,
    settings: EvaluationSettings,
    *,
    classes: int,
    device: torch.device,
    radii: Sequence[float] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Smoothing:
    """CERTIFY on every image; certified accuracy at 0, sigma/2, sigma, ... as far as n draws reach, and at `radii`."""
    sigma, n, alpha = settings.sigma, settings.n, settings.alpha
    reached, rights, abstained = [], [], 0
    for number, (x, y) in enumerate(images.batches(1, device=device)):
        answer, radius = certify(
            model,
            x[0],
            sigma=sigma,
            n0=settings.n0,
            n=n,
            alpha=alpha,
            classes=classes,
            batch_size=settings.forward_size,
            generator=generator(settings.seed, f"smoothing {number}"),
        )
        abstained += answer == ABSTAIN
        reached.append(radius)
        rights.append(answer == int(y))
        on_progress(len(reached), len(images))
    cap = max(0.0, radius_cap(n, sigma=sigma, alpha=alpha))  # too few draws certify nothing
    grid = [sigma / 2 * i for i in range(math.floor(cap / (sigma / 2)) + 1)]
    return Smoothing(
        sigma=sigma,
        n0=settings.n0,
        n=n,
        alpha=alpha,
        cap=cap,
        abstained=abstained,
        at=_curve(torch.tensor(reached, dtype=torch.float64), torch.tensor(rights), sorted({*grid, *radii})),
    )


def _curve(reached: Tensor, rights: Tensor, radii: Sequence[float]) -> tuple[CertifiedRate, ...]:
    return tuple(CertifiedRate(**rate(rights & (reached >= radius)).model_dump(), radius=radius) for radius in radii)
