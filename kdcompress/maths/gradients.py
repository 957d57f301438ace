"""Input gradients that can be differentiated once more, for every layer timm builds networks from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from kdcompress.maths.norms import full_precision


def input_gradient(logits: Tensor, inputs: Tensor, labels: Tensor, *, create_graph: bool) -> Tensor:
    """grad_x CE(f(x), y) for each example, shape of `inputs` (B, C, H, W), in units of loss per unit of pixel.

    The SUM of CE over the batch is differentiated, so that each example gets its own gradient, whatever B is.
    (In train mode BatchNorm couples examples; the coupling is included.)

    Args:
        logits: f(inputs), (B, K), with the graph that leads to `inputs`.
        inputs: (B, C, H, W), requiring grad.
        labels: (B,), integers in [0, K).
        create_graph: keep what is needed to differentiate the result by the weights.
    """
    loss = F.cross_entropy(full_precision(logits), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=create_graph)
    return full_precision(gradient)


def logits_and_input_gradient(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """One forward and one backward to the input: logits (B, K) and grad_x CE (B, C, H, W).

    With `create_graph` both can be differentiated by the weights; call it inside `double_backward()`.
    Without, both come detached: what a frozen teacher needs.
    """
    with torch.enable_grad():
        x = inputs.detach().requires_grad_()
        logits = model(x)
        gradient = input_gradient(logits, x, labels, create_graph=create_graph)
    return (logits, gradient) if create_graph else (logits.detach(), gradient)


@contextmanager
def double_backward() -> Iterator[None]:
    """Inside, networks are built from operations that can be differentiated twice; weights stay untouched.

    Two operations of timm's networks have no second derivative in PyTorch:

    | operation                                     | inside                                     |
    |-----------------------------------------------|--------------------------------------------|
    | fused attention, scaled_dot_product_attention | its plain form (the MATH kernel), as exact |
    | hardsigmoid, as module or function            | relu6(x + 3) / 6, the same function        |

    Only the forward needs to run inside: it decides which operations the graph is made of.
    """
    with sdpa_kernel([SDPBackend.MATH]), _TwiceDifferentiable():
        yield


class _TwiceDifferentiable(TorchFunctionMode):
    """Replaces hardsigmoid wherever it is called from, for as long as the mode is entered."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _HARDSIGMOIDS:
            return F.relu6(args[0] + 3.0) / 6.0
        return func(*args, **(kwargs or {}))


_HARDSIGMOIDS = frozenset({F.hardsigmoid, torch._C._nn.hardsigmoid, torch._C._nn.hardsigmoid_})
