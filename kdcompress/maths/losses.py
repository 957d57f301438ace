"""The terms of eq. 13 and 14, one value an example.

Source: "How and When Adversarial Robustness Transfers in Knowledge Distillation?" (2021), arXiv:2110.12072, appendix.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kdcompress.maths.norms import flat_norm, full_precision
from kdcompress.seats import own_rows


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """CE(f(x), y) = -f_y + log sum_j exp f_j, shape (B,), in nats (eq. 18).

    Args:
        logits: (B, K).
        labels: (B,), integers in [0, K).
        smoothing: a; the label is then (1 - a) e_y + a / K. Source: Szegedy et al. (2016), arXiv:1512.00567, Sec. 7.
    """
    return F.cross_entropy(full_precision(logits), labels, reduction="none", label_smoothing=smoothing)


def distillation_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p_t || p_s) with p = softmax(f / T), summed over classes, shape (B,), in nats (second term of eq. 13).

    Departure: the source writes the arguments of KL the other way round; this is the direction of Hinton et al. (2015),
    arXiv:1503.02531, in which the teacher is the target.

    Guarantees:
        Zero when student is teacher; never negative (to rounding); unchanged by a common shift of either's logits.
    """
    T = temperature
    log_p_s = F.log_softmax(full_precision(student_logits) / T, dim=1)
    log_p_t = F.log_softmax(full_precision(teacher_logits) / T, dim=1)
    return T**2 * F.kl_div(log_p_s, log_p_t, reduction="none", log_target=True).sum(dim=1)


def aligned_objective(logits: Tensor, target: Tensor) -> Tensor:
    """What the gradient term differentiates by the inputs, shape (B,).

    | `target`             | objective        | source                                                      |
    |----------------------|------------------|-------------------------------------------------------------|
    | labels (B,)          | CE(f(x), y)      | eq. 14: one combination, (p - e_y)^T J, of K class gradients |
    | directions v (B, K)  | sum_k v_k f_k(x) | beyond the paper: v^T J, see `logit_directions`              |
    """
    return cross_entropy(logits, target) if target.dim() == 1 else (target * full_precision(logits)).sum(1)


def logit_directions(count: int, classes: int, generator: Generator, device: torch.device) -> Tensor:
    """Random unit directions v of the logits, (count, classes), orthogonal to the all-ones vector.

    Eq. 14 leaves K - 2 directions of the Jacobian difference free that matter; the common shift does not matter, since
    softmax ignores it. Aligned in expectation over v, all of them are.
    """
    how: Any = {"generator": generator, "device": generator.device}
    v = own_rows(lambda B: torch.randn(B, classes, **how), count)
    v = v - v.mean(1, keepdim=True)
    return (v / flat_norm(v, 2)[:, None]).to(device)


def gradient_distance(student_gradient: Tensor, teacher_gradient: Tensor, p: float = 2) -> Tensor:
    """|| grad_x CE(f^s(x), y) - grad_x CE(f^t(x), y) ||_p, not squared, shape (B,) (third term of eq. 14).

    Guarantees:
        Zero, with gradient zero, when student is teacher.

    Args:
        student_gradient, teacher_gradient: (B, C, H, W), each example's own gradient by pixels in [0,1].
        p: 2 in eq. 14; 1 is the dual norm of Linf, the one (26) uses there.
    """
    return flat_norm(full_precision(student_gradient) - full_precision(teacher_gradient), p)


def bent_distance(distance: Tensor, teacher_gradient: Tensor) -> Tensor:
    """t log(1 + d / t), t = ||g_t||_2: the distance d where it is small beside t, and slowly growing beyond. (B,).

    Its slope is t / (t + d): the further a student's gradient is from the teacher's, the less it pulls, so that one
    whose gradients begin a hundred times too large may learn the images first. Beyond the paper.

    Args:
        distance: d of eq. 14, (B,).
        teacher_gradient: (B, C, H, W).
    """
    t = flat_norm(full_precision(teacher_gradient), 2).clamp_min(1e-12)
    return t * torch.log1p(distance / t)
