"""Each affine step against the matrix that it stands for."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcompress.bounds.steps import Add, Affine, Average, Convolution, Dense, Reshape, Scale, Shape


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def convolution(stride: int, padding: int, dilation: int, groups: int, kernel: tuple[int, int] = (3, 3)) -> Convolution:
    weight, shape = drawn(6, 4 // groups, *kernel), (4, 7, 6)
    both = [(n, n) for n in (stride, padding, dilation)]
    out = tuple(F.conv2d(torch.zeros(1, *shape).double(), weight, None, *both, groups).shape[1:])
    return Convolution((0,), out, shape, weight, drawn(6), *both, groups)


def average(apply: Callable[[Tensor], Tensor], shape: Shape, terms: int) -> Average:
    return Average((0,), tuple(apply(torch.zeros(1, *shape)).shape[1:]), shape, terms, "", apply)


STEPS: dict[str, tuple[Affine, Shape]] = {
    "convolution": (convolution(1, 1, 1, 1), (4, 7, 6)),
    "strided, grouped": (convolution(2, 0, 1, 2), (4, 7, 6)),
    "dilated, depthwise": (convolution(1, 2, 2, 4 // 2), (4, 7, 6)),
    "stride over the border": (convolution(3, 1, 1, 1, (2, 4)), (4, 7, 6)),
    "dense": (Dense((0,), (5,), drawn(5, 8), drawn(5)), (8,)),
    "dense over tokens": (Dense((0,), (3, 5), drawn(5, 8), None), (3, 8)),
    "scale": (Scale((0,), (4, 7, 6), drawn(1, 4, 1, 1), drawn(1, 1, 1, 1)), (4, 7, 6)),
    "reshape": (Reshape((0,), (168,), (4, 7, 6)), (4, 7, 6)),
    "overlapping means": (average(lambda d: F.avg_pool2d(d, 3, 2, 1), (4, 7, 6), 4), (4, 7, 6)),
    "global mean": (average(lambda d: d.mean((2, 3)), (4, 7, 6), 1), (4, 7, 6)),
    "uneven windows": (average(lambda d: F.adaptive_avg_pool2d(d, 4), (4, 7, 6), 16), (4, 7, 6)),
    "permutation": (average(lambda d: d.permute(0, 3, 1, 2), (4, 7, 6), 1), (4, 7, 6)),
    "broadcast": (average(lambda d: d.expand(-1, 4, 7, 6), (1, 7, 6), 4), (1, 7, 6)),
}


def matrix(step: Affine, shape: Shape) -> Tensor:
    """L, (outputs, inputs), column by column."""
    unit = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, *shape)
    return step.linear(unit).flatten(1).t()


def each_step() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("step", "shape"), STEPS.values(), ids=STEPS.keys())


@each_step()
def test_the_value_is_the_linear_part_and_a_constant(step: Affine, shape: Shape) -> None:
    v, zero = drawn(3, *shape), torch.zeros(1, *shape).double()
    torch.testing.assert_close(step.value(v), step.linear(v) + step.value(zero))
    assert step.value(v).shape[1:] == step.shape


@each_step()
def test_absolute_is_the_matrix_of_absolute_entries(step: Affine, shape: Shape) -> None:
    r = drawn(2, *shape).abs()
    torch.testing.assert_close(step.absolute(r).flatten(1), r.flatten(1) @ matrix(step, shape).abs().t())


@each_step()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_transposed_is_the_product_with_the_matrix_from_the_left(
    step: Affine, shape: Shape, dtype: torch.dtype
) -> None:
    A = drawn(5, *step.shape)
    (found,) = step.to(dtype).transposed(A.to(dtype))
    # Float32: a few dozen terms of order one.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        found.double().flatten(1), A.flatten(1) @ matrix(step, shape), rtol=tolerance, atol=tolerance
    )


@each_step()
def test_no_entry_of_a_transposed_product_sums_more_terms_than_the_step_says(step: Affine, shape: Shape) -> None:
    # A product with one is no rounding: copies may say 0.
    assert (matrix(step, shape) != 0).sum(0).max() <= max(step.terms, 1)


def test_a_sum_passes_coefficients_to_both_sides() -> None:
    step, A = Add((0, 1), (2, 3)), drawn(4, 2, 3)
    assert all(torch.equal(part, A) for part in step.transposed(A))
    assert torch.equal(step.linear(A, 2 * A), 3 * A) and torch.equal(step.absolute(A, A), 2 * A)
