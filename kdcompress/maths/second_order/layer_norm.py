"""Layer normalisation: the same projection as batch normalisation's, along each example's last dimensions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from kdcompress.maths.second_order.stage import Stage

aten = torch.ops.aten


def layer_norm(
    stage: Stage, x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """y = gamma xhat + beta, xhat = r (x - mean), over the last dimensions, which have `shape`."""
    y: Tensor = _LayerNorm.apply(x, weight, bias, list(shape), eps, stage)
    return y


class _LayerNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: list[int], eps: float, stage: Stage
    ) -> Tensor:
        y, mean, r = aten.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, r)
        ctx.shape, ctx.stage = shape, stage
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = dys
        x, weight, bias, mean, r = ctx.saved_tensors
        if ctx.stage.to_inputs:
            return _LayerNormToInput.apply(dy, x, weight, mean, r, ctx.shape), None, None, None, None, None
        wanted = list(ctx.needs_input_grad[:3])
        dx, dgamma, dbeta = aten.native_layer_norm_backward(dy, x, ctx.shape, mean, r, weight, bias, wanted)
        return dx, dgamma, dbeta, None, None, None


class _LayerNormToInput(Function):
    """dx = r P(b), b = gamma dy, P(a) = a - mean(a) - xhat mean(a xhat) over each row.

    Its derivative in the direction v, with c_a = mean(a xhat), s = mean(v P(b)), all per row:

        by dy      gamma r P(v)
        by gamma   sum over rows of dy r P(v)
        by x       -r^2 (c_b P(v) + c_v P(b) + s xhat)
    """

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, r: Tensor, shape: list[int]
    ) -> Tensor:
        dx = aten.native_layer_norm_backward(dy, x, shape, mean, r, weight, None, [True, False, False])[0]
        ctx.save_for_backward(dy, x, weight, mean, r, dx)
        ctx.shape = shape
        return dx  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *vs: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = vs
        dy, x, weight, mean, r, rPb = ctx.saved_tensors
        last = list(range(-len(ctx.shape), 0))
        n = math.prod(ctx.shape)
        rPv = aten.native_layer_norm_backward(v, x, ctx.shape, mean, r, None, None, [True, False, False])[0]
        xhat = (x - mean) * r
        b = dy if weight is None else dy * weight
        r_c_b, r_c_v, r_s = (r * (a * c).sum(last, keepdim=True) / n for a, c in ((b, xhat), (v, xhat), (v, rPb)))
        to_x = (r_c_b * rPv).addcmul_(r_c_v, rPb).addcmul_(r_s, xhat).neg_()
        if weight is None:
            return rPv, to_x.to(x.dtype), None, None, None, None
        to_weight = (dy * rPv).sum(list(range(x.dim() - len(ctx.shape)))).to(weight.dtype)
        return (rPv * weight).to(dy.dtype), to_x.to(x.dtype), to_weight, None, None, None
