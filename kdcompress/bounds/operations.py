"""What each tensor operation of a traced forward means as a step."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.node import map_aggregate

from kdcompress.bounds.steps import Add, Average, Convolution, Dense, Relu, Reshape, Scale, Shape, Step

aten = torch.ops.aten


class NoStepError(Exception):
    """The operation, as it is used here, is none of the steps."""


@dataclass(frozen=True)
class Value:
    """One of the values that depend on the input, by number."""

    number: int


@dataclass
class Builder:
    """The steps so far.

    Attributes:
        batch: images of the trace: the first dimension of every value.
        shapes: of each value, without the batch.
    """

    batch: int
    shapes: list[Shape]
    steps: list[Step] = field(default_factory=list)

    def value(self, number: int) -> Value:
        """A handle on value `number`."""
        return Value(number)

    def number(self, found: object) -> int | None:
        """The number behind a handle; None for a constant."""
        return found.number if isinstance(found, Value) else None

    def depends(self, arguments: Any) -> bool:
        """Whether a value is among the arguments."""
        seen: list[Any] = []
        map_aggregate(arguments, seen.append)
        return any(isinstance(one, Value) for one in seen)

    def shape(self, v: Value) -> Shape:
        """Without the batch."""
        return self.shapes[v.number]

    def emit(self, step: Step) -> Value:
        """Append a step."""
        self.steps.append(step)
        self.shapes.append(step.shape)
        return Value(len(self.steps))

    def constant(self, c: Any) -> Tensor:
        """A number or a tensor in float64, with a leading 1 for the batch where it had one."""
        tensor: Tensor = torch.as_tensor(c).double()
        one = tensor[:1] if tensor.dim() else tensor
        return one if tensor.dim() and len(tensor) == self.batch and bool((tensor == one).all()) else tensor


def _only(v: Any) -> Value:
    if not isinstance(v, Value):
        raise NoStepError("its weight depends on the input")
    return v


def _fixed(*weights: Any) -> None:
    if any(isinstance(weight, Value) for weight in weights):
        raise NoStepError("its weight depends on the input")


def _pair(entry: Any) -> tuple[int, int]:
    numbers = [entry] if isinstance(entry, int) else list(entry)
    return numbers[0], numbers[-1]


def conv2d(
    to: Builder, v: Any, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Value:  # fmt: skip
    """Padding by numbers, or `same` where it is even, or `valid`."""
    _fixed(weight, bias)
    v, stride, dilation = _only(v), _pair(stride), _pair(dilation)
    if isinstance(padding, str):
        whole = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if padding == "same" and any(width % 2 for width in whole):
            before = [width // 2 for width in whole]
            after = [width - width // 2 for width in whole]
            v = pad(to, v, [before[1], after[1], before[0], after[0]])
            padding = 0
        else:
            padding = [width // 2 for width in whole] if padding == "same" else 0
    padding = _pair(padding)
    shape = to.shape(v)
    if len(shape) != 3:
        raise NoStepError("a convolution of other than images")
    height, width = (
        (shape[1 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(2)
    )
    return to.emit(
        Convolution(
            inputs=(v.number,),
            shape=(weight.shape[0], height, width),
            in_shape=shape,
            weight=weight.double(),
            bias=None if bias is None else bias.double(),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
    )


def linear(to: Builder, v: Any, weight: Tensor, bias: Tensor | None = None) -> Value:
    """v W^T + b."""
    _fixed(weight, bias)
    shape = to.shape(_only(v))
    bias = None if bias is None else bias.double()
    return to.emit(Dense((v.number,), (*shape[:-1], weight.shape[0]), weight.double(), bias))


def matmul(to: Builder, v: Any, weight: Tensor) -> Value:
    """v W with a fixed matrix on the right."""
    _fixed(weight)
    if weight.dim() != 2:
        raise NoStepError("a product with other than a matrix")
    return linear(to, v, weight.t())


def addmm(to: Builder, bias: Tensor, v: Any, weight: Tensor) -> Value:
    """b + v W."""
    return add(to, matmul(to, v, weight), bias)


def batch_norm(
    to: Builder, v: Any, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, *rest: Any
) -> Value:
    """w (v - mean) / sqrt(variance + e) + b, with the statistics that were kept.

    The rest: momentum and e, or training, momentum, e and whether cuDNN may help.
    """
    eps = next(entry for entry in reversed(rest) if isinstance(entry, float))
    if mean is None or rest[0] is True:
        raise NoStepError("statistics of the batch")
    a = (variance.double() + eps).rsqrt() * (1.0 if weight is None else weight.double())
    b = (0.0 if bias is None else bias.double()) - mean.double() * a
    wide = (1, -1, *[1] * (len(to.shape(_only(v))) - 1))
    return scale(to, v, a.view(wide), b.view(wide))


def scale(to: Builder, v: Value, a: Any = 1.0, b: Any = 0.0) -> Value:
    """a v + b with constants, where v may be broadcast to their shape."""
    a, b = to.constant(a), to.constant(b)
    shape = _broadcast((1, *to.shape(v)), a.shape, b.shape)
    if shape[0] != 1:
        raise NoStepError("a constant that differs between images")
    v = expanded(to, v, shape[1:])
    return to.emit(Scale((v.number,), to.shape(v), a, b.expand_as(a) if a.dim() > b.dim() else b))


def _broadcast(*shapes: Shape) -> Shape:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def expanded(to: Builder, v: Value, shape: Shape) -> Value:
    """v broadcast to `shape`."""
    own = to.shape(v)
    if own == shape:
        return v
    padded = (1,) * (len(shape) - len(own)) + own
    return average(to, v, lambda d: d.reshape(-1, *padded).expand(-1, *shape), f"expand {shape}", math.prod(shape))


def add(to: Builder, v: Any, w: Any, *, alpha: float = 1) -> Value:
    """v + alpha w."""
    if not isinstance(v, Value):
        return scale(to, w, alpha, v)
    if not isinstance(w, Value):
        return scale(to, v, 1.0, alpha * to.constant(w))
    if alpha != 1:
        w = scale(to, w, alpha)
    # A batch of one shape broadcast to another must not meet the batch's own dimension.
    shape = _broadcast((1, *to.shape(v)), (1, *to.shape(w)))
    if len(to.shape(v)) != len(to.shape(w)):
        raise NoStepError("a sum of values of different rank")
    v, w = expanded(to, v, shape[1:]), expanded(to, w, shape[1:])
    return to.emit(Add((v.number, w.number), shape[1:]))


def sub(to: Builder, v: Any, w: Any, *, alpha: float = 1) -> Value:
    """v - alpha w."""
    return add(to, v, w, alpha=-alpha)


def rsub(to: Builder, v: Any, w: Any, alpha: float = 1) -> Value:
    """w - alpha v."""
    return add(to, w, v, alpha=-alpha)


def mul(to: Builder, v: Any, w: Any) -> Value:
    """By a constant."""
    if isinstance(v, Value) and isinstance(w, Value):
        raise NoStepError("a product of two values that depend on the input")
    return scale(to, v, w) if isinstance(v, Value) else scale(to, w, v)


def div(to: Builder, v: Any, w: Any, **rest: Any) -> Value:
    """By a constant."""
    if not isinstance(v, Value) or isinstance(w, Value) or rest.get("rounding_mode") is not None:
        raise NoStepError("a division by a value that depends on the input, or rounded")
    return scale(to, v, 1 / to.constant(w))


def neg(to: Builder, v: Value) -> Value:
    """-v."""
    return scale(to, v, -1.0)


def relu(to: Builder, v: Value) -> Value:
    """max(v, 0)."""
    return to.emit(Relu((v.number,), to.shape(v)))


def clamp(to: Builder, v: Value, low: Any = None, high: Any = None) -> Value:
    """ReLU written as a clamp."""
    if high is not None or isinstance(low, Tensor | Value) or low != 0:
        raise NoStepError("a clamp other than at zero from below")
    return relu(to, v)


def reshape(to: Builder, v: Value, *rest: Any, operation: Callable[..., Tensor] = torch.reshape) -> Value:
    """view, flatten, squeeze and their kin, each image by itself: entries keep their order."""
    kept = tuple(operation(torch.empty(to.batch, *to.shape(v), device="meta"), *rest).shape)
    if kept[:1] != (to.batch,):
        raise NoStepError("a reshape that mixes images")
    return to.emit(Reshape((v.number,), kept[1:], to.shape(v)))


def average(to: Builder, v: Value, apply: Callable[[Tensor], Tensor], name: str, terms: int = 1) -> Value:
    """A linear function without negative coefficients.

    Args:
        name: what it does, with all its arguments.
        terms: at most so many outputs take the same entry.
    """
    found = tuple(apply(torch.empty(to.batch, *to.shape(v), device="meta")).shape)
    if found[:1] != (to.batch,):
        raise NoStepError("it mixes images")
    return to.emit(Average((v.number,), found[1:], to.shape(v), terms, name, apply))


def avg_pool2d(
    to: Builder, v: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor: int | None = None,
) -> Value:  # fmt: skip
    """Means of windows; with a divisor of their own, sums of windows over it."""
    if divisor is not None and divisor <= 0:  # `Average` has no negative coefficients
        raise NoStepError("a mean with a divisor that is not positive")
    kernel = _pair(kernel)
    stride = _pair(stride) if stride not in ((), [], None) else kernel
    overlap = math.prod(math.ceil(k / s) for k, s in zip(kernel, stride, strict=True))
    rest = (kernel, stride, padding, ceil_mode, count_include_pad, divisor)
    return average(to, v, lambda d: F.avg_pool2d(d, *rest), f"avg_pool2d {rest}", overlap)


def adaptive_avg_pool2d(to: Builder, v: Value, size: Any) -> Value:
    """Means of windows that cover the map."""
    return average(
        to, v, lambda d: F.adaptive_avg_pool2d(d, size), f"adaptive_avg_pool2d {size}", math.prod(_pair(size))
    )


def mean(to: Builder, v: Value, dims: Any = None, keepdim: bool = False, **rest: Any) -> Value:
    """Over some dimensions of an image."""
    over = _own_dims(to, v, dims)
    return average(to, v, lambda d: d.mean(over, keepdim), f"mean {over}")


def total(to: Builder, v: Value, dims: Any = None, keepdim: bool = False, **rest: Any) -> Value:
    """The sum over some dimensions of an image."""
    over = _own_dims(to, v, dims)
    return average(to, v, lambda d: d.sum(over, keepdim), f"sum {over}")


def _own_dims(to: Builder, v: Value, dims: Any) -> tuple[int, ...]:
    rank = len(to.shape(v)) + 1
    over = tuple(dim % rank for dim in ((dims,) if isinstance(dims, int) else dims or range(rank)))
    if 0 in over:
        raise NoStepError("it mixes images")
    return over


def pad(to: Builder, v: Value, widths: Any, mode: Any = "constant", value: Any = None) -> Value:
    """By zeros; negative widths crop."""
    if isinstance(mode, int | float):  # constant_pad_nd has no mode
        mode, value = "constant", mode
    if mode != "constant" or value not in (None, 0) or len(widths) > 2 * len(to.shape(v)):
        raise NoStepError("padding by other than zeros")
    return average(to, v, lambda d: F.pad(d, list(widths)), f"pad {widths}")


def permute(to: Builder, v: Value, dims: Any) -> Value:
    """Dimensions of an image in another order."""
    order = [dim % (len(to.shape(v)) + 1) for dim in dims]
    if order[0] != 0:
        raise NoStepError("it mixes images")
    return average(to, v, lambda d: d.permute(order), f"permute {order}")


def transpose(to: Builder, v: Value, one: int, other: int) -> Value:
    """Two dimensions of an image exchanged."""
    order = list(range(len(to.shape(v)) + 1))
    order[one], order[other] = order[other], order[one]
    return permute(to, v, order)


def part(to: Builder, v: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    """A slice along a dimension of an image."""
    dim %= len(to.shape(v)) + 1
    if dim == 0:
        if start in (None, 0) and (end is None or end >= to.batch) and step == 1:
            return v
        raise NoStepError("a slice of the batch")
    index = (slice(None),) * dim + (slice(start, end, step),)
    return average(to, v, lambda d: d[index], f"slice {index}")


def chosen(to: Builder, v: Value, dim: int, index: int) -> Value:
    """One entry along a dimension of an image."""
    dim %= len(to.shape(v)) + 1
    if dim == 0:
        raise NoStepError("one image of the batch")
    return average(to, v, lambda d: d.select(dim, index), f"select {dim} {index}")


def same(to: Builder, v: Value, *rest: Any, **more: Any) -> Value:
    """What changes nothing here: copies, dropout in eval mode."""
    return v


def dropout(to: Builder, v: Value, rate: float, train: bool) -> Value:
    """Nothing, in eval mode."""
    if train:
        raise NoStepError("dropout in training mode")
    return v


def item(to: Builder, v: Any, index: int) -> Any:
    """The first of BatchNorm's outputs is the value."""
    if isinstance(v, Value) and index == 0:
        return v
    raise NoStepError("an output other than the first")


def to_copy(to: Builder, v: Value, *rest: Any, **more: Any) -> Value:
    """A copy of the same type."""
    kind = more.get("dtype") or next((entry for entry in rest if isinstance(entry, torch.dtype)), None)
    if kind not in (None, torch.float32, torch.float64):
        raise NoStepError(f"a conversion to {kind}")
    return v


OPERATIONS: Mapping[Any, Callable[..., Any]] = {
    aten.conv2d.default: conv2d,
    aten.conv2d.padding: conv2d,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.mm.default: matmul,
    aten.addmm.default: addmm,
    aten._native_batch_norm_legit_no_training.default: batch_norm,
    aten.batch_norm.default: batch_norm,
    operator.getitem: item,
    aten.relu.default: relu,
    aten.clamp.default: clamp,
    aten.clamp_min.default: clamp,
    aten.add.Tensor: add,
    aten.add.Scalar: add,
    aten.sub.Tensor: sub,
    aten.sub.Scalar: sub,
    aten.rsub.Scalar: rsub,
    aten.rsub.Tensor: rsub,
    aten.mul.Tensor: mul,
    aten.mul.Scalar: mul,
    aten.div.Tensor: div,
    aten.div.Scalar: div,
    aten.neg.default: neg,
    aten.view.default: reshape,
    aten.reshape.default: reshape,
    aten._unsafe_view.default: reshape,
    **{
        operation: partial(reshape, operation=operation)
        for operation in (
            aten.flatten.using_ints,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.unsqueeze.default,
        )
    },
    aten.select.int: chosen,
    aten.avg_pool2d.default: avg_pool2d,
    aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten.mean.dim: mean,
    aten.sum.dim_IntList: total,
    aten.pad.default: pad,
    aten.constant_pad_nd.default: pad,
    aten.permute.default: permute,
    aten.transpose.int: transpose,
    aten.slice.Tensor: part,
    aten.dropout.default: dropout,
    aten.feature_dropout.default: dropout,
    aten.clone.default: same,
    aten.contiguous.default: same,
    aten.alias.default: same,
    aten.detach.default: same,
    aten._to_copy.default: to_copy,
    aten.to.dtype: to_copy,
}
