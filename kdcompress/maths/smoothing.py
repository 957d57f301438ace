"""Randomized smoothing: an L2 certificate, with probability 1 - alpha, for the SMOOTHED classifier.

g(x) = the class c of largest P(f(x + N(0, sigma^2 I)) = c): another classifier than the network f itself.
Source: Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918, the procedures PREDICT and CERTIFY.
"""

import torch
from scipy.stats import binomtest
from torch import Generator, Tensor, nn

from kdcompress.maths.smoothed_radius import certified_radius

ABSTAIN = -1


def class_counts(
    model: nn.Module, x: Tensor, *, sigma: float, n: int, classes: int, batch_size: int, generator: Generator
) -> Tensor:
    """SAMPLEUNDERNOISE: how often each class is predicted for x + N(0, sigma^2 I) in n draws, shape (K,), integers.

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


def predict(
    model: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    n: int,
    alpha: float,
    classes: int,
    batch_size: int,
    generator: Generator,
) -> int:
    """PREDICT: the smoothed classifier's class, or ABSTAIN.

    Guarantees:
        The probability of a class that is not the smoothed classifier's is at most alpha.
    """
    with torch.inference_mode():
        draw = {"sigma": sigma, "classes": classes, "batch_size": batch_size}
        return voted(class_counts(model, x, n=n, generator=generator, **draw), alpha)  # type: ignore[arg-type]


def voted(counts: Tensor, alpha: float) -> int:
    """PREDICT's answer to the counts (K,): the top class where n_A of n_A + n_B is no fair coin's, tested two-sided.

    >>> voted(torch.tensor([30, 2, 1]), 0.001), voted(torch.tensor([30, 20, 0]), 0.001)
    (0, -1)
    """
    n_a, n_b = counts.topk(2).values.tolist()
    return int(counts.argmax()) if binomtest(n_a, n_a + n_b, 0.5).pvalue <= alpha else ABSTAIN
