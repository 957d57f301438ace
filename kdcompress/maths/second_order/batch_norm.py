"""Batch normalisation in train mode: a projection that depends on its input through the batch's statistics."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from kdcompress.maths.second_order.stage import Stage

aten = torch.ops.aten


def batch_norm(
    stage: Stage,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """y = gamma xhat + beta, xhat = r (x - mean), r = 1 / sqrt(var + eps), by the batch's statistics (train mode).

    Shapes as for `torch.nn.functional.batch_norm`; the running statistics are moved as there.
    """
    y: Tensor = _BatchNorm.apply(x, weight, bias, running_mean, running_var, momentum, eps, stage)
    return y


class _BatchNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        stage: Stage,
    ) -> Tensor:
        y, mean, r = aten.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, r)
        ctx.eps, ctx.stage = eps, stage
        return y  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = dys
        x, weight, mean, r = ctx.saved_tensors
        if ctx.stage.to_inputs:
            return (_BatchNormToInput.apply(dy, x, weight, mean, r, ctx.eps), *[None] * 7)
        wanted = list(ctx.needs_input_grad[:3])
        dx, dgamma, dbeta = _batch_norm_backward(dy, x, weight, mean, r, ctx.eps, wanted)
        return dx, dgamma, dbeta, None, None, None, None, None


class _BatchNormToInput(Function):
    """dx = gamma r P(dy) with P(a) = a - mean(a) - xhat mean(a xhat), a projection that depends on x through xhat.

    Its derivative in the direction v, with m_a = mean(a), c_a = mean(a xhat), s = mean(v P(dy)), all per channel:

        by dy      gamma r P(v)
        by gamma   n r s
        by x       -gamma r^2 (c_dy P(v) + c_v P(dy) + s xhat)

    from d xhat_i / d x_j = r (delta_ij - 1/n - xhat_i xhat_j / n) and d r / d x_j = -r^2 xhat_j / n.
    """

    @staticmethod
    def forward(ctx: Any, dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, r: Tensor, eps: float) -> Tensor:
        # The sums that the native kernel returns beside dx are n c_dy and n m_dy.
        dx, nc_dy, nm_dy = _batch_norm_backward(dy, x, weight, mean, r, eps, [True, True, True])
        ctx.save_for_backward(dy, x, weight, mean, r, nc_dy, nm_dy)
        ctx.eps = eps
        return dx

    @staticmethod
    def backward(ctx: Any, *vs: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = vs
        dy, x, weight, mean, r, nc_dy, nm_dy = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        to_dy, nc_v, nm_v = _batch_norm_backward(v, x, weight, mean, r, ctx.eps, [True, True, True])
        c_dy, m_dy, c_v, m_v = nc_dy / n, nm_dy / n, nc_v / n, nm_v / n
        s = _dot(v, dy) / n - m_v * m_dy - c_v * c_dy
        gamma = 1.0 if weight is None else weight
        # by x, written as a_x x + a_0 + a_dy dy + a_v to_dy, so that three passes over the activations do.
        a_x = -gamma * r.pow(3) * (s - c_v * c_dy)
        a_dy, a_v = -gamma * r.square() * c_v, -r * c_dy
        a_0 = -a_dy * m_dy - a_x * mean
        to_x = torch.addcmul(_wide(a_0, x), x, _wide(a_x, x))
        to_x.addcmul_(dy, _wide(a_dy, x)).addcmul_(to_dy, _wide(a_v, x))
        to_weight = None if weight is None else (n * r * s).to(weight.dtype)
        return to_dy, to_x.to(x.dtype), to_weight, None, None, None


def _batch_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, r: Tensor, eps: float, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """By x, gamma and beta; the sums over dy xhat and over dy, which the last two are, also where there is no gamma."""
    out: tuple[Tensor, Tensor, Tensor] = aten.native_batch_norm_backward(
        dy, x, weight, None, None, mean, r, True, eps, wanted
    )
    return out


def _dot(v: Tensor, dy: Tensor) -> Tensor:
    """Sum of v dy a channel, in the one pass of a kernel made for more: its xhat is dy where mean is 0 and r is 1."""
    zeros = torch.zeros(v.shape[1], dtype=torch.promote_types(v.dtype, torch.float32), device=v.device)
    return _batch_norm_backward(v, dy, None, zeros, zeros + 1, 0.0, [False, True, False])[1]


def _wide(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.view(1, -1, *[1] * (x.dim() - 2))
