"""One KDIGA step of any network, by kdcompress and by PyTorch's own derivatives, to be compared."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.maths.gradients import double_backward, input_gradient, logits_and_input_gradient
from kdcompress.maths.losses import gradient_distance


def without_chance(network: nn.Module) -> nn.Module:
    """The network without dropout and stochastic depth, whose masks differ from one precision to the other."""
    for module in network.modules():
        for name in ("p", "drop_prob", "drop_rate", "drop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return network.train()


def kdiga(network: nn.Module, x: Tensor, y: Tensor, g_t: Tensor, *, ours: bool) -> list[Tensor]:
    """By the weights, of CE plus gradient distance; by PyTorch's own second derivatives unless `ours`."""
    if ours:
        f, g = logits_and_input_gradient(network, x, y, create_graph=True)
    else:
        x = x.clone().requires_grad_()
        with double_backward():
            f = network(x)
        g = input_gradient(f, x, y, create_graph=True)
    return slopes(F.cross_entropy(f, y) + gradient_distance(g, g_t).mean(), network)


def slopes(loss: Tensor, network: nn.Module) -> list[Tensor]:
    """d loss / d weights, zeros where a weight plays no part."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def cosine(a: list[Tensor], b: list[Tensor]) -> float:
    """Of two gradients, each taken as one vector; summed part by part, so that large networks fit into memory."""

    def dot(a: list[Tensor], b: list[Tensor]) -> float:
        return sum(float((u.double() * v.double()).sum()) for u, v in zip(a, b, strict=True))

    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
