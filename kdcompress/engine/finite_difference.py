"""The gradient term by first derivatives alone: for networks with a layer that has no second one.

For v the unit direction of g_s - g_t, the derivative of ||g_s - g_t||_2 by the weights is that of <v, g_s>, the slope
of CE(f_s(x)) along v. (CE(f_s(x + h v)) - CE(f_s(x - h v))) / 2h is that slope to O(h^2) where the network is smooth.

Where it has kinks (ReLU, max pooling) this is the slope averaged over a segment of length 2h: another objective, whose
gradient may point elsewhere. Cosine of the weights' gradient to the exact one, h = 1e-2: 1.0000 for a ViT and ConvNeXt,
.17 for a small BatchNorm ResNet with ReLU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from kdcompress.engine.exact import Alignment
from kdcompress.maths.losses import aligned_objective
from kdcompress.maths.norms import flat_norm

STEP = 1e-2
"""h: between 3e-3 and 3e-2 the cosine stays at 1.0000 for smooth networks in float32."""


def finite_difference(h: float = STEP) -> Alignment:
    """||g_s - g_t||_2, exact in value; its gradient by the weights by central differences of CE."""

    def align(student: nn.Module, x: Tensor, target: Tensor, g_t: Tensor) -> tuple[Tensor, Tensor]:
        chance = _Chance(x.device)
        inputs = x.detach().requires_grad_()
        f = student(inputs)
        g_s = input_gradient_alone(f, inputs, target)
        distance = flat_norm(g_s - g_t, 2)
        v = (g_s - g_t) / distance.where(distance > 0, torch.ones_like(distance)).view(-1, 1, 1, 1)
        ends = []
        for side in (h, -h):
            chance.repeat()  # the same masks of dropout and stochastic depth in every pass
            # Copies take BatchNorm's running statistics: those of the student have moved once already.
            copies = {name: buffer.clone() for name, buffer in student.named_buffers()}
            ends.append(aligned_objective(functional_call(student, copies, (x.detach() + side * v,)), target))
        slope = (ends[0] - ends[1]) / (2 * h)
        return f, distance + slope - slope.detach()

    return align


def input_gradient_alone(f: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
    """By the inputs, detached, with the graph of `f` kept for the other terms."""
    with torch.enable_grad():
        (g,) = torch.autograd.grad(aligned_objective(f, target).sum(), inputs, retain_graph=True)
    return g.to(torch.promote_types(g.dtype, torch.float32))


@contextmanager
def buffers_held(network: nn.Module) -> Iterator[None]:
    """Running statistics are afterwards what they were before."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(before[name])


class _Chance:
    """The state of the generators that dropout draws from, to draw the same again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def repeat(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)


_KINKED = (
    *("relu", "threshold", "hardtanh", "clamp", "leaky_relu", "rrelu", "prelu", "hardswish", "hardsigmoid", "abs"),
    *("max_pool", "adaptive_max_pool", "amax", "maximum"),
)


def kinks(network: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Names of the operations in one forward of `x` whose first derivative jumps."""
    seen: dict[str, None] = {}

    class Listen(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func._schema.name.removeprefix("aten::").rstrip("_")
            if name.startswith(_KINKED) and not name.endswith("backward"):
                seen[name] = None
            return func(*args, **(kwargs or {}))

    devices = [x.device] if x.is_cuda else []
    with torch.no_grad(), buffers_held(network), torch.random.fork_rng(devices), Listen():  # type: ignore[no-untyped-call]
        network(x)
    return tuple(seen)
