"""The gradient term by the compiler: `torch.func.grad` inside `torch.compile`.

The input gradient becomes part of the compiled forward, so one ordinary backward remains; `torch.compile` refuses a
double backward through `autograd.grad`.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdcompress.engine.exact import Alignment
from kdcompress.maths.gradients import double_backward
from kdcompress.maths.losses import aligned_objective, gradient_distance
from kdcompress.maths.norms import full_precision

Tensors = dict[str, Tensor]


def compiled(student: nn.Module, p: float) -> Alignment:
    """Exact, for `student` alone; compiled by the first call, which takes minutes."""

    def loss(x: Tensor, parameters: Tensors, buffers: Tensors, target: Tensor) -> tuple[Tensor, tuple[Tensor, Tensors]]:
        # Cloned, since what BatchNorm writes must not be seen from outside the transformed function.
        moved = {name: buffer.clone() for name, buffer in buffers.items()}
        f = functional_call(student, (parameters, moved), (x,))
        return aligned_objective(f, target).sum(), (f, moved)

    gradient = torch.compile(torch.func.grad(loss, has_aux=True))

    def align(student: nn.Module, x: Tensor, target: Tensor, g_t: Tensor) -> tuple[Tensor, Tensor]:
        buffers = dict(student.named_buffers())
        with double_backward():
            g_s, (f, moved) = gradient(x, dict(student.named_parameters()), buffers, target)
        with torch.no_grad():
            for name, buffer in buffers.items():
                buffer.copy_(moved[name])
        return f, gradient_distance(full_precision(g_s), g_t, p)

    return align
