"""The terms that recipes are made of, each of one batch: (B,), in nats. s and t are the networks' softmax(f / T).

d = z - x is what the inner attack found.
"""

import torch
from torch import Tensor

from kdcompress.maths.losses import distillation_kl
from kdcompress.training.recipes.seen import Place, Seen, asked


def soft_labels(seen: Seen, at: Place, T: float, trust: float | None) -> Tensor:
    """b T^2 KL(t(at) || s(z)), b = t(at)_y^trust, T = 1: how far a teacher is believed that may be fooled itself.

    Args:
        trust: None: b = 1.
    """
    target = seen.f_t(at)
    kl = distillation_kl(seen.f_s("z"), target, T)
    return kl if trust is None else confidence(target, seen.y) ** trust * kl


def clean(seen: Seen, T: float) -> Tensor:
    """T^2 KL(t(x) || s(x))."""
    return distillation_kl(seen.f_s("x"), seen.f_t("x"), T)


def introspection(seen: Seen, at: Place, T: float, trust: float) -> Tensor:
    """(1 - b) T^2 KL(s(x) || s(z)): what the teacher is not believed, the student asks itself.

    Source: Zhu et al. (2022), arXiv:2106.04928. Neither side is held fixed.
    """
    return (1 - confidence(seen.f_t(at), seen.y) ** trust) * distillation_kl(seen.f_s("z"), seen.f_s("x"), T)


def indirect_gradient(seen: Seen, T: float) -> Tensor:
    """T^2 KL between softmax of f(x + d) - f(x - d), teacher and student: 2 d.grad f, with no second derivative.

    x - d is not clipped to [0,1]. Source: Lee, Cho and Kim (2023), arXiv:2312.03286.
    """
    opposite = 2 * seen.x - seen.z
    s = seen.f_s("z") - seen.student(opposite)
    t = seen.f_t("z") - asked(seen.teacher, opposite)
    return distillation_kl(s, t, T)


def confidence(logits: Tensor, y: Tensor) -> Tensor:
    """softmax(f)_y, (B,)."""
    return torch.softmax(logits, 1).gather(1, y[:, None]).squeeze(1)
