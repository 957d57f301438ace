"""The steps that a network is made of. All but ReLU are affine: v = L(v_1, ..., v_m) + b, one example at a time.

Every step names its `inputs`, the values that it takes by number (0 is the network's input), and the `shape` of its
value; shapes leave the batch out. A bound needs five things of an affine step:

    value(v_1, ..., v_m)    L(v_1, ..., v_m) + b: (B, *shape)
    linear(d_1, ..., d_m)   L alone
    absolute(r_1, ...)      |L|, which carries radii of intervals
    transposed(A)           A L for each input, which carries coefficients backwards: (R, *shape) -> (R, *its shape)
    terms                   most products that are summed for one entry of that, for the rounding

with R rows of coefficients, one for each linear function that is bounded. `to` gives the step with other weights' type.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Relu:
    """max(v, 0)."""

    inputs: tuple[int, ...]
    shape: Shape

    def value(self, v: Tensor) -> Tensor:
        """max(v, 0): (B, *shape)."""
        return v.clamp(min=0)

    def to(self, dtype: torch.dtype) -> "Relu":
        """Itself: it has no weights."""
        return self


@dataclass(frozen=True, eq=False)
class Convolution:
    """Two-dimensional convolution."""

    inputs: tuple[int, ...]
    shape: Shape
    in_shape: Shape
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def terms(self) -> int:
        out, _, height, width = self.weight.shape
        return out // self.groups * height * width

    def _convolved(self, v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(v, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def value(self, v: Tensor) -> Tensor:
        return self._convolved(v, self.weight, self.bias)

    def linear(self, d: Tensor) -> Tensor:
        return self._convolved(d, self.weight, None)

    def absolute(self, r: Tensor) -> Tensor:
        return self._convolved(r, self.weight.abs(), None)

    def transposed(self, A: Tensor) -> tuple[Tensor, ...]:
        if A.dtype == torch.float64:  # on a CPU two to four times faster than a transposed convolution
            size = (len(A), *self.in_shape)
            how = (self.stride, self.padding, self.dilation, self.groups)
            return (conv2d_input(size, self.weight, A, *how),)  # type: ignore[no-untyped-call]
        left_over = [
            self.in_shape[1 + i]
            - ((self.shape[1 + i] - 1) * self.stride[i] - 2 * self.padding[i])
            - (self.dilation[i] * (self.weight.shape[2 + i] - 1) + 1)
            for i in range(2)
        ]
        found = F.conv_transpose2d(
            A, self.weight, None, self.stride, self.padding, left_over, self.groups, self.dilation
        )
        return (found,)

    def to(self, dtype: torch.dtype) -> "Convolution":
        bias = None if self.bias is None else self.bias.to(dtype)
        layout = torch.channels_last if dtype == torch.float32 else torch.contiguous_format
        return replace(self, weight=self.weight.to(dtype, memory_format=layout), bias=bias)


@dataclass(frozen=True, eq=False)
class Dense:
    """v W^T + b over the last dimension."""

    inputs: tuple[int, ...]
    shape: Shape
    weight: Tensor
    bias: Tensor | None

    @property
    def terms(self) -> int:
        return self.weight.shape[0]

    def value(self, v: Tensor) -> Tensor:
        return F.linear(v, self.weight, self.bias)

    def linear(self, d: Tensor) -> Tensor:
        return F.linear(d, self.weight)

    def absolute(self, r: Tensor) -> Tensor:
        return F.linear(r, self.weight.abs())

    def transposed(self, A: Tensor) -> tuple[Tensor, ...]:
        return (A @ self.weight,)

    def to(self, dtype: torch.dtype) -> "Dense":
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))


@dataclass(frozen=True, eq=False)
class Scale:
    """a v + b, entry by entry; a and b broadcast to the value's shape, with a leading 1 for the batch."""

    inputs: tuple[int, ...]
    shape: Shape
    a: Tensor
    b: Tensor
    terms: int = 1

    def value(self, v: Tensor) -> Tensor:
        return self.a * v + self.b

    def linear(self, d: Tensor) -> Tensor:
        return self.a * d

    def absolute(self, r: Tensor) -> Tensor:
        return self.a.abs() * r

    def transposed(self, A: Tensor) -> tuple[Tensor, ...]:
        return (A * self.a,)

    def to(self, dtype: torch.dtype) -> "Scale":
        return replace(self, a=self.a.to(dtype), b=self.b.to(dtype))


@dataclass(frozen=True, eq=False)
class Add:
    """v_1 + v_2, of one shape."""

    inputs: tuple[int, ...]
    shape: Shape
    terms: int = 1

    def value(self, *v: Tensor) -> Tensor:
        return v[0] + v[1]

    linear = absolute = value

    def transposed(self, A: Tensor) -> tuple[Tensor, ...]:
        return (A, A)

    def to(self, dtype: torch.dtype) -> "Add":
        return self


@dataclass(frozen=True, eq=False)
class Reshape:
    """The same entries in the same order under another shape."""

    inputs: tuple[int, ...]
    shape: Shape
    in_shape: Shape
    terms: int = 0

    def value(self, v: Tensor) -> Tensor:
        return v.reshape(-1, *self.shape)

    linear = absolute = value

    def transposed(self, A: Tensor) -> tuple[Tensor, ...]:
        return (A.reshape(-1, *self.in_shape),)

    def to(self, dtype: torch.dtype) -> "Reshape":
        return self


@dataclass(frozen=True, eq=False)
class Average:
    """Any linear function whose coefficients are all nonnegative: pooling by means, sums, copies, padding by zero.

    Attributes:
        name: what `apply` does, in full.
    """

    inputs: tuple[int, ...]
    shape: Shape
    in_shape: Shape
    terms: int
    name: str
    apply: Callable[[Tensor], Tensor]

    def value(self, v: Tensor) -> Tensor:
        return self.apply(v)

    linear = absolute = value

    def transposed(self, A: Tensor) -> tuple[Tensor, ...]:
        pull_back = torch.func.vjp(self.apply, A.new_zeros(len(A), *self.in_shape))[1]
        return tuple(pull_back(A))

    def to(self, dtype: torch.dtype) -> "Average":
        return self


Affine = Convolution | Dense | Scale | Add | Reshape | Average
Step = Affine | Relu
