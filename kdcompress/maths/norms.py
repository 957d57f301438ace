"""Vector norms an example, their duals, and the geometry of the ball."""

import torch
from torch import Generator, Tensor

from kdcompress.threat import Norm, ThreatModel


def full_precision(v: Tensor) -> Tensor:
    """v in float32, or in float64 where it is that already: sums and differences of bfloat16 lose too much."""
    return v.to(torch.promote_types(v.dtype, torch.float32))


def flat_norm(v: Tensor, p: float) -> Tensor:
    """||v_i||_p for each example, shape (B,), with gradient zero (not NaN) where v_i = 0.

    Guarantees:
        The gradient at v_i = 0 is zero (a subgradient of the norm there).
        Values and gradients are finite for every finite v_i, however large or small, unless the norm itself is beyond
        the largest number of its type: v is scaled by its largest entry before it is squared.

    Args:
        v: (B, ...), any shape after the batch.
        p: 1, 2 or infinity.
    """
    rows = v.flatten(1)
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    is_zero = largest == 0
    scale = torch.where(is_zero, torch.ones_like(largest), largest)
    # Where the row is zero, the norm is taken of a constant row: its gradient never reaches v.
    safe = torch.where(is_zero, torch.ones_like(rows), rows / scale)
    norm = torch.linalg.vector_norm(safe, ord=p, dim=1, keepdim=True) * scale
    return torch.where(is_zero, torch.zeros_like(norm), norm).squeeze(1)


def dual_exponent(norm: Norm) -> float:
    """q with 1/p + 1/q = 1: 1 for Linf, 2 for L2.

    >>> dual_exponent("Linf"), dual_exponent("L2")
    (1.0, 2.0)
    """
    return 1.0 if norm == "Linf" else 2.0


def project(delta: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest point of the ball of radius eps around zero, (B, ...): clipping for Linf, scaling for L2."""
    if threat.norm == "Linf":
        return delta.clamp(-threat.eps, threat.eps)
    length = flat_norm(delta, 2).view(-1, *[1] * (delta.dim() - 1))
    return delta * (threat.eps / length.clamp_min(threat.eps))


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """argmax of <gradient, v> over ||v|| <= 1: the sign for Linf, the unit vector for L2 (zero where it is zero)."""
    if norm == "Linf":
        return gradient.sign()
    length = flat_norm(gradient, 2).view(-1, *[1] * (gradient.dim() - 1))
    return gradient / length.where(length > 0, torch.ones_like(length))


def uniform_in_ball(like: Tensor, threat: ThreatModel, generator: Generator) -> Tensor:
    """Noise of the shape of `like`, (B, ...), uniform in the ball of radius eps.

    Drawn on the generator's device, so that a CPU generator gives every device the same noise.
    L2: a Gaussian direction times eps U^(1/D) (Muller 1959).
    """
    shape, device = like.shape, generator.device
    if threat.norm == "Linf":
        noise = torch.rand(shape, generator=generator, device=device).mul_(2).sub_(1).mul_(threat.eps)
    else:
        direction = steepest(torch.randn(shape, generator=generator, device=device), "L2")
        radius = torch.rand(shape[0], generator=generator, device=device) ** (1 / shape[1:].numel())
        noise = direction * (threat.eps * radius).view(-1, *[1] * (len(shape) - 1))
    return noise.to(like.device)
