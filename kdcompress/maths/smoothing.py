"""Randomized smoothing: an L2 certificate, with probability 1 - alpha, for the SMOOTHED classifier.

Source: Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918, the procedure CERTIFY.
"""

import torch
from torch import Generator, Tensor, nn

from kdcompress.maths.smoothed_radius import certified_radius

ABSTAIN = -1


def class_counts(
    model: nn.Module, x: Tensor, *, sigma: float, n: int, classes: int, batch_size: int, generator: Generator
) -> Tensor:
    """How often each class is predicted for x + N(0, sigma^2 I) over n draws, shape (K,), integers.

    Args:
        x: one image (C, H, W) in [0,1]; the noise is not clipped (the guarantee is for this smoothed classifier).
        generator: on the CPU; the noise is drawn there, so that every device counts the same draws.
    """
    counts = torch.zeros(classes, dtype=torch.long)
    for start in range(0, n, batch_size):
        size = min(batch_size, n - start)
        noise = torch.randn((size, *x.shape), generator=generator).to(x.device)
        predicted = model(x + sigma * noise).argmax(1)
        counts += torch.bincount(predicted.cpu(), minlength=classes)
    return counts


def certify(
    model: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    n0: int,
    n: int,
    alpha: float,
    classes: int,
    batch_size: int,
    generator: Generator,
) -> tuple[int, float]:
    """CERTIFY: the smoothed classifier's class and a radius (L2, pixel units) in which it is constant.

    Guarantees:
        With probability at least 1 - alpha over the draws, the class is right for the smoothed classifier and constant
        within the radius, unless the answer is (ABSTAIN, 0).
        On a linear classifier the radius does not exceed the true distance, with the same probability.

    Args:
        x: one image (C, H, W).
        n0: draws that choose the class. n: draws that bound its probability.
    """
    with torch.inference_mode():
        draw = {"sigma": sigma, "classes": classes, "batch_size": batch_size}
        top = int(class_counts(model, x, n=n0, generator=generator, **draw).argmax())  # type: ignore[arg-type]
        count = int(class_counts(model, x, n=n, generator=generator, **draw)[top])  # type: ignore[arg-type]
    radius = certified_radius(count, n, sigma=sigma, alpha=alpha)
    return (top, radius) if radius > 0 else (ABSTAIN, 0.0)
