import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import (
    aligned_objective,
    cross_entropy,
    distillation_kl,
    gradient_distance,
    logit_directions,
)
from kdcompress.maths.randomness import generator

B, K = 6, 4


def logits(seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(B, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2, 3, 1, 1])


def test_cross_entropy_of_each_example_is_equation_18() -> None:
    f = logits(0)
    written = [-f[i, LABELS[i]] + math.log(sum(math.exp(f[i, j]) for j in range(K))) for i in range(B)]
    torch.testing.assert_close(cross_entropy(f, LABELS), torch.stack(written), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_kl_of_each_example_is_the_sum_over_classes_with_the_teacher_as_target(temperature: float) -> None:
    f_s, f_t = logits(0), logits(1)
    written = [
        temperature**2
        * kl_divergence(Categorical(logits=f_t[i] / temperature), Categorical(logits=f_s[i] / temperature))
        for i in range(B)
    ]
    torch.testing.assert_close(distillation_kl(f_s, f_t, temperature), torch.stack(written), rtol=1e-12, atol=1e-14)


def test_the_kl_is_not_symmetric_so_that_its_direction_is_held() -> None:
    f_s, f_t = logits(0), logits(1)
    assert not torch.allclose(distillation_kl(f_s, f_t, 1.0), distillation_kl(f_t, f_s, 1.0), rtol=0.1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_kl_is_zero_when_student_is_teacher_and_so_is_its_gradient(temperature: float) -> None:
    f_s = logits(0).requires_grad_()
    kl = distillation_kl(f_s, f_s.detach(), temperature)
    (slope,) = torch.autograd.grad(kl.sum(), f_s)
    assert torch.equal(kl, torch.zeros_like(kl))
    # T (p_s - p_t), in float64.
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-14)


def test_the_kl_is_unchanged_by_a_common_shift_of_eithers_logits() -> None:
    f_s, f_t = logits(0), logits(1)
    kl = distillation_kl(f_s, f_t, 2.0)
    torch.testing.assert_close(distillation_kl(f_s + 5, f_t, 2.0), kl, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(distillation_kl(f_s, f_t - 7, 2.0), kl, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-8, 1e3, 1e30])
def test_the_kl_is_never_negative_to_rounding_nor_nan_however_extreme_the_logits(scale: float) -> None:
    f_s, f_t = logits(0, scale).float(), logits(1, scale).float()
    kl = distillation_kl(f_s, f_t, 1.0)
    assert kl.isfinite().all()
    assert kl.ge(-1e-6).all()  # K float32 terms of size one, each rounded to 6e-8


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_the_distance_of_each_examples_gradients_is_that_of_a_loop(p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    g_s, g_t = (torch.randn(B, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    looped = [torch.linalg.vector_norm((g_s[i] - g_t[i]).flatten(), ord=p) for i in range(B)]
    torch.testing.assert_close(gradient_distance(g_s, g_t, p), torch.stack(looped), rtol=1e-12, atol=0)


def test_the_distance_is_not_squared_and_euclidean_unless_told() -> None:
    g_s, g_t = torch.full((1, 1, 1, 4), 3.0), torch.zeros(1, 1, 1, 4)
    assert gradient_distance(g_s, g_t).tolist() == [6.0]


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_the_distance_is_zero_with_gradient_zero_when_student_is_teacher(p: float) -> None:
    g_s = torch.rand(B, 1, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    distance = gradient_distance(g_s, g_s.detach(), p)
    (slope,) = torch.autograd.grad(distance.sum(), g_s)
    assert torch.equal(distance, torch.zeros(B))
    assert torch.equal(slope, torch.zeros_like(slope))


def test_permuting_the_batch_permutes_every_loss() -> None:
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    f_s, f_t = logits(0), logits(1)
    g_s, g_t = f_s.view(B, 1, 2, 2), f_t.view(B, 1, 2, 2)
    assert torch.equal(cross_entropy(f_s[order], LABELS[order]), cross_entropy(f_s, LABELS)[order])
    assert torch.equal(distillation_kl(f_s[order], f_t[order], 2.0), distillation_kl(f_s, f_t, 2.0)[order])
    assert torch.equal(gradient_distance(g_s[order], g_t[order]), gradient_distance(g_s, g_t)[order])


def test_losses_of_bfloat16_logits_are_computed_in_float32() -> None:
    f_s, f_t = logits(0).bfloat16(), logits(1).bfloat16()
    for low, high in (
        (cross_entropy(f_s, LABELS), cross_entropy(f_s.double(), LABELS)),
        (distillation_kl(f_s, f_t, 2.0), distillation_kl(f_s.double(), f_t.double(), 2.0)),
        (gradient_distance(f_s, f_t), gradient_distance(f_s.double(), f_t.double())),
    ):
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), high, rtol=1e-5, atol=1e-6)  # bfloat16's own rounding is 4e-3


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_directions_are_of_length_one_and_orthogonal_to_a_common_shift(classes: int) -> None:
    v = logit_directions(50, classes, generator(0, "directions"), torch.device("cpu"))
    torch.testing.assert_close(v.norm(dim=1), torch.ones(50))
    assert v.sum(1).abs().max() < 1e-5
    assert v.std(0).min() > 0  # of every class


def test_the_objective_is_ce_for_labels_and_the_combination_of_logits_for_directions() -> None:
    f, v = logits(0), logits(1)
    assert torch.equal(aligned_objective(f, LABELS), cross_entropy(f, LABELS))
    torch.testing.assert_close(aligned_objective(f, v), torch.stack([v[i] @ f[i] for i in range(B)]))


def test_the_gradient_along_directions_is_the_jacobian_times_them_and_sees_all_but_the_common_shift() -> None:
    """E ||v^T A||^2 = ||P A||_F^2 / (K - 1), P the projection off the all-ones vector: nothing else stays free."""
    torch.manual_seed(0)
    count = 20_000
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, K)).double()
    v = logit_directions(count, K, generator(0, "directions"), torch.device("cpu")).double()
    x = torch.rand(count, 1, 2, 3, dtype=torch.float64)
    _, g = logits_and_input_gradient(network, x, v, create_graph=False)
    A = network.get_parameter("1.weight").detach()
    torch.testing.assert_close(g.flatten(1), v @ A, rtol=1e-9, atol=1e-12)
    centred = A - A.mean(0)
    # A mean of 20,000 bounded values: some 1% of sampling error.
    assert g.flatten(1).square().sum(1).mean() == pytest.approx(float(centred.square().sum() / (K - 1)), rel=0.03)
