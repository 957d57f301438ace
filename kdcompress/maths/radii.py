"""First-order estimates of the distance to the decision boundary. Estimates: they bound nothing."""

import torch
from torch import Tensor, nn

from kdcompress.maths.norms import dual_exponent, flat_norm, full_precision
from kdcompress.threat import Norm


def first_order_radius(model: nn.Module, inputs: Tensor, labels: Tensor, norm: Norm) -> Tensor:
    """min over k != y of (f_y - f_k) / ||grad f_y - grad f_k||_q, shape (B,), in pixel units of [0,1].

    The distance to the boundary of the network's linear expansion at x. Zero where x is misclassified.

    Guarantees:
        Exact for a linear network (away from the borders of [0,1]^D).

    | case                                | value |
    |-------------------------------------|-------|
    | misclassified, or a tie             | 0     |
    | all margins have gradient zero      | inf   |

    Args:
        model: eval mode, (B, C, H, W) -> (B, K).
        norm: the norm of the radius; q is its dual.
    """
    q = dual_exponent(norm)
    with torch.enable_grad():
        x = inputs.detach().requires_grad_()
        logits = full_precision(model(x))
        margins = logits.gather(1, labels[:, None]) - logits
        radius = torch.full((len(x),), float("inf"), device=x.device)
        for k in range(logits.shape[1]):
            (gradient,) = torch.autograd.grad(margins[:, k].sum(), x, retain_graph=True)
            slope = flat_norm(gradient, q)
            distance = torch.where(slope > 0, margins[:, k].detach() / slope, margins[:, k].detach().sign() * torch.inf)
            radius = torch.where(labels == k, radius, torch.minimum(radius, distance.nan_to_num(0.0, torch.inf)))
    return radius.clamp_min(0.0)
