"""The logits' Jacobian, and what the alignment of eq. 14 constrains of the difference of two.

B batch, K classes, D entries of an image. Equations: the appendix of arXiv:2110.12072.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcompress.maths.norms import flat_norm, full_precision


def logits_and_rows(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Iterator[Tensor]]:
    """f(x), (B, K), and J_k = grad_x f_k(x), (B, D), one k after the other; one forward and K backwards, all detached.

    The rows take no more memory than is kept of them.

    Args:
        model: eval mode, (B, C, H, W) -> (B, K).
    """
    with torch.enable_grad():
        x = inputs.detach().requires_grad_()
        f = full_precision(model(x))

    def rows() -> Iterator[Tensor]:
        for k in range(f.shape[1]):
            with torch.enable_grad():
                (row,) = torch.autograd.grad(f[:, k].sum(), x, retain_graph=True)
            yield full_precision(row.flatten(1))

    return f.detach(), rows()


def logits_and_jacobian(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """f(x), (B, K), and J with J_k = grad_x f_k(x), (B, K, D), both detached: see `logits_and_rows`."""
    f, rows = logits_and_rows(model, inputs)
    return f, torch.stack(list(rows), 1)


def off_target(logits: Tensor, labels: Tensor) -> Tensor:
    """p - e_y with p = softmax(f), (B, K): grad_x CE is this times J (eq. 20). Its length fades as p_y -> 1."""
    return logits.softmax(1) - torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)


def loss_gradient(logits: Tensor, jacobian: Tensor, labels: Tensor) -> Tensor:
    """grad_x CE(f(x), y) = (p - e_y)^T J (eq. 20), (B, D)."""
    return torch.einsum("bk,bkd->bd", off_target(logits, labels), jacobian)


@dataclass(frozen=True)
class Directions:
    """A Jacobian difference, split over directions of the logits: squared Frobenius norms, (B,), and p - e_y's length.

    Attributes:
        constrained: along p - e_y, the one combination of class gradients that eq. 14 aligns.
        common: along the all-ones vector: a shift of all logits together, which softmax ignores.
        free: along the other K - 2 directions: what eq. 21 leaves free, and what matters.
        weight: ||p - e_y||_2, in [0, sqrt 2]: what the constrained part is weighed with in eq. 21.
    """

    constrained: Tensor
    common: Tensor
    free: Tensor
    weight: Tensor

    @property
    def free_share(self) -> Tensor:
        """Of the part that matters, constrained and free, how much is free, (B,); NaN where both are zero."""
        return self.free / (self.constrained + self.free)


def directions(rows: Iterable[Tensor], logits: Tensor, labels: Tensor) -> Directions:
    """||J^s - J^t||_F^2 in three parts, by the orthogonal directions 1 / sqrt K and (p - e_y) / ||p - e_y|| of eq. 21.

    Source: the step after eq. 21, which reads as if one combination of K class gradients determined them all.

    Guarantees:
        The parts sum to the whole, to rounding: what is free is the rest, with an error of some roundings of the whole.
        Nothing is free where K = 2.
        Where both networks have the same logits, the CE gradients' distance is weight * sqrt(constrained).

    | case                              | answer                       |
    |-----------------------------------|------------------------------|
    | p = e_y to the last digit         | nothing is constrained       |

    Args:
        rows: of J^s - J^t, K of (B, D), one after the other: no more than one is held.
        logits: the teacher's, (B, K), which eq. 16 takes the student's to be.
    """
    K = logits.shape[1]
    u = off_target(logits, labels)
    weight = flat_norm(u, 2)
    u = u / weight.where(weight > 0, torch.ones_like(weight))[:, None]
    along_u = along_ones = total = torch.zeros(())
    for k, row in enumerate(rows):
        along_u = along_u + u[:, k, None] * row
        along_ones = along_ones + row / K**0.5
        total = total + row.square().sum(1)
    constrained, common = along_u.square().sum(1), along_ones.square().sum(1)
    return Directions(constrained, common, (total - constrained - common).clamp_min(0), weight.detach())


def relative_residual(found: Tensor, wanted: Tensor) -> Tensor:
    """||a - b||_2 / ||b||_2 of each row of two (B, ...), (B,); 0 where both are zero, inf where b alone is."""
    residual, scale = flat_norm(found - wanted, 2), flat_norm(wanted, 2)
    return torch.where(residual == 0, 0.0, residual / scale)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> / (||a|| ||b||) of each row of two (B, ...), (B,); 1 where both are zero, 0 where one is."""
    length_a, length_b = flat_norm(a, 2), flat_norm(b, 2)
    product = (a.flatten(1) * b.flatten(1)).sum(1) / (length_a * length_b)
    return torch.where((length_a == 0) & (length_b == 0), 1.0, product.nan_to_num(0.0)).clamp(-1, 1)
