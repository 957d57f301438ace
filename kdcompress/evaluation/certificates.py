"""The certified part of a report: each kind of radius under its own name."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.maths.radii import first_order_radius
from kdcompress.maths.randomness import generator
from kdcompress.maths.smoothing import ABSTAIN, certify, radius_cap
from kdcompress.report import CertifiedRate, FirstOrder, Smoothing
from kdcompress.settings import EvaluationSettings
from kdcompress.threat import Norm


def first_order(model: nn.Module, images: Split, norm: Norm, *, batch_size: int, device: torch.device) -> FirstOrder:
    """The median first-order radius (zero for misclassified images): an estimate, which bounds nothing."""
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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Smoothing:
    """CERTIFY on every image; certified accuracy at 0, sigma/2, sigma, ... up to what n draws can reach."""
    sigma, n, alpha = settings.sigma, settings.n, settings.alpha
    radii, rights, abstained = [], [], 0
    for number, (x, y) in enumerate(images.batches(1, device=device)):
        answer, radius = certify(
            model,
            x[0],
            sigma=sigma,
            n0=settings.n0,
            n=n,
            alpha=alpha,
            classes=classes,
            batch_size=settings.batch_size,
            generator=generator(settings.seed, f"smoothing {number}"),
        )
        abstained += answer == ABSTAIN
        radii.append(radius)
        rights.append(answer == int(y))
        on_progress(len(radii), len(images))
    cap = max(0.0, radius_cap(n, sigma=sigma, alpha=alpha))  # too few draws certify nothing
    return Smoothing(
        sigma=sigma,
        n0=settings.n0,
        n=n,
        alpha=alpha,
        cap=cap,
        abstained=abstained,
        at=_curve(torch.tensor(radii, dtype=torch.float64), torch.tensor(rights), step=sigma / 2, cap=cap),
    )


def _curve(radii: Tensor, rights: Tensor, *, step: float, cap: float) -> tuple[CertifiedRate, ...]:
    grid = [step * i for i in range(math.floor(cap / step) + 1)]
    return tuple(CertifiedRate(**rate(rights & (radii >= radius)).model_dump(), radius=radius) for radius in grid)
