"""Activations by their first and second derivative: one pass over the activations for each, or a few."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from kdcompress.maths.second_order.stage import Stage

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """a(x), elementwise.

    Attributes:
        value: x -> a(x).
        times_slope: (dy, x) -> dy a'(x).
        times_curvature: (w, x) -> w a''(x); None where a is piecewise linear, so that a'' is zero but at the kinks.
    """

    value: Callable[[Tensor], Tensor]
    times_slope: Callable[[Tensor, Tensor], Tensor]
    times_curvature: Callable[[Tensor, Tensor], Tensor] | None


def _silu_curvature(w: Tensor, x: Tensor) -> Tensor:
    """a'' = s (1 - s) (2 + x (1 - 2 s)), s the sigmoid of x."""
    s = x.sigmoid()
    curve = torch.addcmul(torch.tensor(2.0, dtype=x.dtype, device=x.device), x, 1 - 2 * s)
    return aten.sigmoid_backward(curve.mul_(w), s)  # type: ignore[no-any-return]


def _gelu_curvature(w: Tensor, x: Tensor) -> Tensor:
    """a'' = phi(x) (2 - x^2), phi the density of the standard normal distribution."""
    square = x.square()
    return (square * -0.5).exp_().mul_(2 - square).mul_(w).mul_(1 / math.sqrt(2 * math.pi))


ACTIVATIONS = {
    "relu": Activation(aten.relu, lambda dy, x: aten.threshold_backward(dy, x, 0), None),
    "relu6": Activation(
        lambda x: aten.hardtanh(x, 0.0, 6.0), lambda dy, x: aten.hardtanh_backward(dy, x, 0.0, 6.0), None
    ),
    "silu": Activation(aten.silu, aten.silu_backward, _silu_curvature),
    "gelu": Activation(aten.gelu, aten.gelu_backward, _gelu_curvature),
}


def activation(stage: Stage, a: Activation, x: Tensor) -> Tensor:
    """y = a(x), of the shape of `x`."""
    y: Tensor = _Activation.apply(x, a, stage)
    return y


class _Activation(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Activation, stage: Stage) -> Tensor:
        y = a.value(x)
        ctx.save_for_backward(x if a.times_curvature is not None else y)  # relu's and relu6's slopes: by y as by x
        ctx.a, ctx.stage = a, stage
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = dys
        (x,) = ctx.saved_tensors
        if ctx.stage.to_inputs:
            return _ActivationToInput.apply(dy, x, ctx.a), None, None
        return ctx.a.times_slope(dy, x), None, None


class _ActivationToInput(Function):
    """dx = dy a'(x)."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, x: Tensor, a: Activation) -> Tensor:
        ctx.save_for_backward(dy, x)
        ctx.a = a
        return a.times_slope(dy, x)

    @staticmethod
    def backward(ctx: Any, *vs: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = vs
        dy, x = ctx.saved_tensors
        to_dy = ctx.a.times_slope(v, x)
        return to_dy, None if ctx.a.times_curvature is None else ctx.a.times_curvature(v * dy, x), None
