import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from kdcompress.maths.norms import dual_exponent, flat_norm, full_precision, project, steepest, uniform_in_ball
from kdcompress.threat import NORMS, Norm, ThreatModel

EXPONENTS = (1.0, 2.0, math.inf)
SCALES = (1e-44, 1e-38, 1e-30, 1e-8, 1.0, 1e8, 1e30, 1e36)  # the first is subnormal; 1e36 squared overflows


def rows(scale: float = 1.0) -> Tensor:
    """Four rows of sixty: dense, one entry alone, equal entries, and zero."""
    v = torch.zeros(4, 3, 4, 5)
    v[0] = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    v[1, 2, 1, 3] = -2.0
    v[2] = 0.5
    return v * scale


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_norm_of_each_example_is_that_of_a_loop_over_examples(p: float) -> None:
    v = rows().double()
    looped = torch.stack([torch.linalg.vector_norm(row.flatten(), ord=p) for row in v])
    assert flat_norm(v, p).shape == (4,)
    torch.testing.assert_close(flat_norm(v, p), looped, rtol=1e-14, atol=0)


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_gradient_at_zero_is_zero(p: float) -> None:
    v = rows().requires_grad_()
    (gradient,) = torch.autograd.grad(flat_norm(v, p).sum(), v)
    assert torch.equal(gradient[3], torch.zeros(3, 4, 5))
    assert gradient[:3].flatten(1).abs().amax(1).gt(0).all()  # the zero row silences no other


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("scale", SCALES)
def test_values_and_gradients_are_finite_however_large_or_small(p: float, scale: float) -> None:
    v = rows(scale).requires_grad_()
    norm = flat_norm(v, p)
    (gradient,) = torch.autograd.grad(norm.sum(), v)
    assert norm.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("scale", SCALES[1:])
def test_the_norm_is_as_exact_for_huge_and_tiny_entries_as_for_others(p: float, scale: float) -> None:
    v = rows(scale)
    exact = torch.linalg.vector_norm(v.double().flatten(1), ord=p, dim=1)
    # Sixty additions in float32: 60 times 6e-8 at the worst.
    torch.testing.assert_close(flat_norm(v, p).double(), exact, rtol=4e-6, atol=0)


@pytest.mark.parametrize("scale", SCALES[1:])
def test_the_gradient_of_the_euclidean_norm_is_the_unit_vector_at_every_scale(scale: float) -> None:
    v = rows(scale)[:3].requires_grad_()
    (gradient,) = torch.autograd.grad(flat_norm(v, 2).sum(), v)
    unit = v.detach().double() / v.detach().double().flatten(1).norm(dim=1).view(3, 1, 1, 1)
    torch.testing.assert_close(gradient.double(), unit, rtol=4e-6, atol=1e-9)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_the_norm_can_be_differentiated_twice_away_from_zero(p: float) -> None:
    v = torch.linspace(0.5, 2.0, 6, dtype=torch.float64).view(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: flat_norm(v, p), v)
    assert torch.autograd.gradgradcheck(lambda v: flat_norm(v, p), v)


def test_reduced_precision_is_raised_to_float32_and_float64_is_kept() -> None:
    kinds = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    assert [full_precision(torch.ones(1, dtype=kind)).dtype for kind in kinds] == [torch.float32] * 3 + [torch.float64]


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_direction_gains_the_dual_norm_of_the_gradient(norm: Norm) -> None:
    g = rows()
    v = steepest(g, norm)
    gained = (g * v).flatten(1).sum(1)
    torch.testing.assert_close(gained, flat_norm(g, dual_exponent(norm)), rtol=4e-6, atol=0)
    assert flat_norm(v, math.inf if norm == "Linf" else 2).le(1 + 4e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_there_is_no_steepest_direction_where_the_gradient_is_zero(norm: Norm) -> None:
    assert torch.equal(steepest(rows()[3:], norm), torch.zeros(1, 3, 4, 5))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_the_steepest_direction_does_not_depend_on_the_gradients_scale(norm: Norm, scale: float) -> None:
    torch.testing.assert_close(steepest(rows(scale), norm), steepest(rows(), norm), rtol=4e-6, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_noise_is_in_the_ball_and_repeats_with_its_generator(norm: Norm) -> None:
    threat = ThreatModel(norm, 0.5)
    like = torch.zeros(200, 3, 4, 4)
    noise, again = (uniform_in_ball(like, threat, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(noise, again)
    assert noise.shape == like.shape
    assert flat_norm(noise, math.inf if norm == "Linf" else 2).le(0.5 * (1 + 1e-6)).all()


def test_noise_in_the_cube_is_uniform_in_every_coordinate() -> None:
    noise = uniform_in_ball(torch.zeros(500, 1, 2, 2), ThreatModel("Linf", 0.25), torch.Generator().manual_seed(2))
    for coordinate in noise.flatten(1).T.numpy():
        # With this seed fixed; a right sampler falls under .001 for one coordinate and seed in a thousand.
        assert kstest(coordinate, "uniform", args=(-0.25, 0.5)).pvalue > 1e-3


def test_noise_in_the_euclidean_ball_is_uniform_in_volume_and_direction() -> None:
    noise = uniform_in_ball(torch.zeros(2000, 1, 1, 3), ThreatModel("L2", 2.0), torch.Generator().manual_seed(3))
    radius = flat_norm(noise, 2)
    assert kstest((radius / 2) ** 3, "uniform").pvalue > 1e-3  # volume grows with r^D
    for coordinate in (noise.flatten(1) / radius[:, None]).T.numpy():
        # Archimedes: on the sphere in three dimensions each coordinate is uniform on [-1, 1].
        assert kstest(coordinate, "uniform", args=(-1, 2)).pvalue > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_points_in_the_ball_are_their_own_projection(norm: Norm) -> None:
    threat = ThreatModel(norm, 1.0)
    inside = steepest(rows(), norm) * 0.99
    assert torch.equal(project(inside, threat), inside)


def test_projection_onto_the_euclidean_ball_keeps_the_direction() -> None:
    projected = project(rows(7.0), ThreatModel("L2", 0.5))
    torch.testing.assert_close(projected, 0.5 * steepest(rows(), "L2"), rtol=4e-6, atol=1e-9)
