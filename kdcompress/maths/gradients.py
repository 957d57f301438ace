"""Input gradients that can be differentiated once more, for every layer timm builds networks from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from kdcompress.maths.losses import aligned_objective
from kdcompress.maths.norms import full_precision
from kdcompress.maths.second_order import ACTIVATIONS, Stage, activation, batch_norm, convolution, layer_norm
from kdcompress.maths.synced import is_synced


def input_gradient(logits: Tensor, inputs: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
    """grad_x CE(f(x), y) for each example, shape of `inputs` (B, C, H, W), in units of loss per unit of pixel.

    The SUM of CE over the batch is differentiated, so that each example gets its own gradient, whatever B is.
    (In train mode BatchNorm couples examples; the coupling is included.)

    Args:
        logits: f(inputs), (B, K), with the graph that leads to `inputs`.
        inputs: (B, C, H, W), requiring grad.
        target: labels (B,), integers in [0, K); or directions (B, K) of the logits, whose gradient is then taken.
        create_graph: keep what is needed to differentiate the result by the weights.
    """
    loss = aligned_objective(logits, target).sum()
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=create_graph)
    return full_precision(gradient)


def logits_and_input_gradient(
    model: Callable[[Tensor], Tensor], inputs: Tensor, target: Tensor, *, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """One forward and one backward to the input: logits (B, K) and grad_x CE (B, C, H, W).

    With `create_graph` both can be differentiated by the weights, whatever layers the network has.
    Without, both come detached: what a frozen teacher needs.
    """
    with torch.enable_grad():
        x = inputs.detach().requires_grad_()
        if not create_graph:
            logits = model(x)
            return logits.detach(), input_gradient(logits, x, target, create_graph=False)
        stage = Stage(x)
        with double_backward(stage):
            logits = model(x)
        with stage.inputs_only():
            return logits, input_gradient(logits, x, target, create_graph=True)


@contextmanager
def double_backward(stage: Stage | None = None) -> Iterator[None]:
    """Inside, networks are built from operations that can be differentiated twice; weights stay untouched.

    Two operations of timm's networks have no second derivative in PyTorch:

    | operation                                     | inside                                     |
    |-----------------------------------------------|--------------------------------------------|
    | fused attention, scaled_dot_product_attention | its plain form (the MATH kernel), as exact |
    | hardsigmoid, as module or function            | relu6(x + 3) / 6, the same function        |

    Others have a dear one; with a `stage` they are those of `kdcompress.maths.second_order`: convolution, batch
    normalisation in train mode, layer normalisation, ReLU, ReLU6, SiLU, GELU.

    Only the forward needs to run inside: it decides which operations the graph is made of.
    """
    with sdpa_kernel([SDPBackend.MATH]), _TwiceDifferentiable(stage):
        yield


class _TwiceDifferentiable(TorchFunctionMode):
    """Replaces operations wherever they are called from, for as long as the mode is entered."""

    def __init__(self, stage: Stage | None) -> None:
        super().__init__()
        self.stage = stage

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _HARDSIGMOIDS:
            x = args[0] if args else kwargs["input"]
            return F.relu6(x + 3.0) / 6.0
        if self.stage is not None and func in _REPLACEMENTS:
            return _REPLACEMENTS[func](self.stage, *args, **kwargs)
        return func(*args, **kwargs)


_HARDSIGMOIDS = frozenset({F.hardsigmoid, torch._C._nn.hardsigmoid, torch._C._nn.hardsigmoid_})
_DEVICES = ("cpu", "cuda")
"""Where the kernels behind `second_order` were measured; elsewhere PyTorch's own derivatives do."""


def _conv2d(
    stage: Stage,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str) or input.dim() != 4 or input.device.type not in _DEVICES:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    geometry = (_pair(stride), _pair(padding), _pair(dilation), False, [0, 0], groups)
    if torch.is_autocast_enabled(input.device.type):  # as the operation itself would
        kind = torch.get_autocast_dtype(input.device.type)
        input, weight, bias = input.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
    return convolution(stage, input, weight, bias, geometry)


def _batch_norm(
    stage: Stage,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training or input.numel() <= input.shape[1] or input.device.type not in _DEVICES or is_synced():
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return batch_norm(stage, input, running_mean, running_var, weight, bias, momentum, eps)


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))


def _layer_norm(
    stage: Stage,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    mixed = torch.is_autocast_enabled(input.device.type)  # the operation itself then goes to float32
    if mixed or input.numel() == 0 or input.device.type not in _DEVICES:
        return F.layer_norm(input, list(normalized_shape), weight, bias, eps)
    return layer_norm(stage, input, normalized_shape, weight, bias, eps)


def _relu(stage: Stage, input: Tensor, inplace: bool = False) -> Tensor:
    return activation(stage, ACTIVATIONS["relu"], input)


def _relu6(stage: Stage, input: Tensor, inplace: bool = False) -> Tensor:
    return activation(stage, ACTIVATIONS["relu6"], input)


def _silu(stage: Stage, input: Tensor, inplace: bool = False) -> Tensor:
    return activation(stage, ACTIVATIONS["silu"], input)


def _gelu(stage: Stage, input: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "none":
        return F.gelu(input, approximate=approximate)
    return activation(stage, ACTIVATIONS["gelu"], input)


_REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: _conv2d,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.relu: _relu,
    torch.relu: _relu,
    F.relu6: _relu6,
    F.silu: _silu,
    F.gelu: _gelu,
}
