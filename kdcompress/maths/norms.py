"""Vector norms an example, their duals, and the geometry of the ball."""

import math

import torch
from torch import Generator, Tensor

from kdcompress.maths.keyed import keys, normals, uniforms
from kdcompress.seats import own_rows
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
    """q with 1/p + 1/q = 1: 1 for Linf, 2 for L2, infinity for L1.

    >>> dual_exponent("Linf"), dual_exponent("L2"), dual_exponent("L1")
    (1.0, 2.0, inf)
    """
    return {"Linf": 1.0, "L2": 2.0, "L1": math.inf}[norm]


def norm_of(delta: Tensor, norm: Norm) -> Tensor:
    """||delta_i|| in the threat model's norm, shape (B,)."""
    return flat_norm(delta, {"Linf": math.inf, "L2": 2, "L1": 1}[norm])


def project(delta: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest point of the ball of radius eps around zero, (B, ...): clipping, scaling, or soft thresholding."""
    if threat.norm == "Linf":
        return delta.clamp(-threat.eps, threat.eps)
    if threat.norm == "L1":
        return _onto_cross_polytope(delta, threat.eps)
    length = flat_norm(delta, 2).view(-1, *[1] * (delta.dim() - 1))
    return delta * (threat.eps / length.clamp_min(threat.eps))


def _onto_cross_polytope(delta: Tensor, eps: float) -> Tensor:
    """sign(d) max(|d| - t, 0), t such that the entries sum to eps; d itself where it is inside.

    Source: Duchi, Shalev-Shwartz, Singer and Chandra (2008), ICML, Fig. 1.
    """
    rows = delta.flatten(1)
    u = rows.abs().sort(dim=1, descending=True).values
    over = u.cumsum(1) - eps
    counts = torch.arange(1, u.shape[1] + 1, device=u.device, dtype=u.dtype)
    rho = (u * counts > over).sum(1, keepdim=True).clamp_min(1)
    t = over.gather(1, rho - 1) / rho
    shrunk = rows.sign() * (rows.abs() - t).clamp_min(0)
    return torch.where(rows.abs().sum(1, keepdim=True) <= eps, rows, shrunk).view_as(delta)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """A direction v of ||v|| = 1 along which <gradient, v> is large, (B, ...); zero where the gradient is.

    Linf, L2: the largest, sign and unit vector. L1: the sign of the hundredth of largest entries, shared evenly: the
    largest alone is one pixel, which climbs too slowly. Source for L1: Tramer and Boneh (2019), arXiv:1904.13000.
    """
    if norm == "Linf":
        return gradient.sign()
    if norm == "L1":
        rows = gradient.flatten(1)
        most = rows.abs().topk(math.ceil(rows.shape[1] / 100), dim=1).indices
        signs = torch.zeros_like(rows).scatter(1, most, rows.gather(1, most).sign())
        return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)
    length = flat_norm(gradient, 2).view(-1, *[1] * (gradient.dim() - 1))
    return gradient / length.where(length > 0, torch.ones_like(length))


def uniform_in_ball(like: Tensor, threat: ThreatModel, generator: Generator) -> Tensor:
    """Noise of the shape of `like`, (B, ...), uniform in the ball of radius eps.

    L2: a Gaussian direction times eps U^(1/D) (Muller 1959). L1: D of D + 1 exponentials over their sum, with signs.

    Args:
        generator: on the CPU. Noise for a CPU is drawn from it; for another device, keys are (see `maths.keyed`), and
            the noise is other noise of the same kind.
    """
    if like.device.type != "cpu":
        return keyed_in_ball(like, threat, keys(len(like), generator))
    shape, D = like.shape[1:], like.shape[1:].numel()

    def drawn(B: int) -> Tensor:
        if threat.norm == "Linf":
            return torch.rand((B, *shape), generator=generator).mul_(2).sub_(1).mul_(threat.eps)
        if threat.norm == "L2":
            direction = steepest(torch.randn((B, *shape), generator=generator), "L2")
            radius = torch.rand(B, generator=generator) ** (1 / D)
            return direction * (threat.eps * radius).view(-1, *[1] * len(shape))
        signs = torch.randint(0, 2, (B, D), generator=generator) * 2 - 1
        e = torch.empty((B, D + 1)).exponential_(generator=generator)
        return (threat.eps * signs * e[:, :-1] / e.sum(1, keepdim=True)).view(B, *shape)

    return own_rows(drawn, len(like))


def keyed_in_ball(like: Tensor, threat: ThreatModel, key: Tensor) -> Tensor:
    """The same by keys, int32 (B,): drawn on the device of `like`."""
    D, device, eps = like.shape[1:].numel(), like.device, threat.eps
    if threat.norm == "Linf":
        noise = uniforms(key, D, device).mul_(2).sub_(1).mul_(eps)
    elif threat.norm == "L2":
        noise = steepest(normals(key, D, device), "L2") * (eps * uniforms(key, 1, device, stream=1) ** (1 / D))
    else:
        e = -uniforms(key, D + 1, device).log_()
        noise = eps * uniforms(key, D, device, stream=1).sub_(0.5).sign_() * e[:, :-1] / e.sum(1, keepdim=True)
    return noise.view_as(like)


def gaussian(like: Tensor, sigma: float, generator: Generator) -> Tensor:
    """N(0, sigma^2) for every entry of `like`, (B, ...); drawn as `uniform_in_ball`."""
    if like.device.type != "cpu":
        return normals(keys(len(like), generator), like.shape[1:].numel(), like.device).mul_(sigma).view_as(like)
    return sigma * own_rows(lambda B: torch.randn((B, *like.shape[1:]), generator=generator), len(like))
