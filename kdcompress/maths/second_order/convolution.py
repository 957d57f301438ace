"""Convolution: bilinear in image and weight, so each of its derivatives is a convolution again."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from kdcompress.maths.second_order.stage import Stage

aten = torch.ops.aten

# Of one convolution: stride, padding, dilation, transposed, output padding, groups.
Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]


def convolution(stage: Stage, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """y = W * x + b, two-dimensional, shapes as for `torch.conv2d`."""
    y: Tensor = _Convolution.apply(x, weight, bias, geometry, stage, not stage.reads_pixels(x))
    return y


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, stage: Stage, inward: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.stage, ctx.inward = geometry, stage, inward
        ctx.bias = None if bias is None else list(bias.shape)
        stride, padding, dilation, transposed, output_padding, groups = geometry
        y: Tensor = aten.convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
        return y

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = dys
        x, weight = ctx.saved_tensors
        if ctx.stage.to_inputs:
            return _ConvolutionToInput.apply(dy, x.detach(), weight, ctx.geometry), None, None, None, None, None
        to_x, to_weight, to_bias, *_ = ctx.needs_input_grad
        wanted = [to_x and ctx.inward, to_weight, to_bias]
        dx, dw, db = aten.convolution_backward(dy, x, weight, ctx.bias, *ctx.geometry, wanted)
        return dx, dw, db, None, None, None


class _ConvolutionToInput(Function):
    """dx = W^T * dy, bilinear in W and dy: its derivatives are a convolution and a convolution's weight gradient."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(dy, weight)
        ctx.geometry = geometry
        dx: Tensor = aten.convolution_backward(dy, x, weight, None, *geometry, [True, False, False])[0]
        return dx

    @staticmethod
    def backward(ctx: Any, *vs: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = vs
        dy, weight = ctx.saved_tensors
        stride, padding, dilation, transposed, output_padding, groups = ctx.geometry
        to_dy = aten.convolution(v, weight, None, stride, padding, dilation, transposed, output_padding, groups)
        to_weight = aten.convolution_backward(dy, v, weight, None, *ctx.geometry, [False, True, False])[1]
        return to_dy, None, to_weight, None
