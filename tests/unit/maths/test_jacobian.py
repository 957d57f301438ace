"""The Jacobian, and what eq. 21 says of the difference of two; in float64, so that equalities are equalities."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.jacobian import (
    cosine,
    directions,
    logits_and_jacobian,
    logits_and_rows,
    loss_gradient,
    off_target,
    relative_residual,
)

SHAPE = (1, 2, 3)
D, K, B = 6, 5, 7
X = torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(B) % K


def network(seed: int = 0, classes: int = K) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, classes)).double().eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_jacobian_of_a_linear_network_is_its_weight() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(D, K)).double()
    f, J = logits_and_jacobian(linear, X)
    assert torch.equal(f, linear(X).detach())
    assert torch.equal(J, linear.get_parameter("1.weight").detach().expand(B, K, D))
    assert not J.requires_grad


def test_the_rows_come_one_after_the_other_and_hold_nothing_before_they_are_asked_for() -> None:
    model = network()
    f, rows = logits_and_rows(model, X)
    whole = logits_and_jacobian(model, X)
    assert torch.equal(f, whole[0])
    with torch.no_grad():
        assert torch.equal(next(rows), whole[1][:, 0]) and torch.equal(next(rows), whole[1][:, 1])
    assert len(list(rows)) == K - 2


def test_the_jacobian_is_that_of_each_image_alone() -> None:
    model = network()
    _, J = logits_and_jacobian(model, X)
    naive = [torch.autograd.functional.jacobian(lambda x: model(x[None])[0], x).view(K, D) for x in X]
    torch.testing.assert_close(J, torch.stack(naive), rtol=1e-12, atol=1e-14)


def test_the_gradient_of_the_loss_is_eq_20() -> None:
    f, J = logits_and_jacobian(network(), X)
    _, gradient = logits_and_input_gradient(network(), X, Y, create_graph=False)
    torch.testing.assert_close(loss_gradient(f, J, Y), gradient.flatten(1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_parts_sum_to_the_whole(classes: int) -> None:
    difference, logits = normal(B, classes, D), normal(B, classes, seed=1)
    found = directions(difference.unbind(1), logits, Y % classes)
    whole = difference.flatten(1).square().sum(1)
    torch.testing.assert_close(found.constrained + found.common + found.free, whole, rtol=1e-12, atol=0)


def test_nothing_is_free_where_there_are_two_classes() -> None:
    found = directions(normal(B, 2, D).unbind(1), normal(B, 2, seed=1), Y % 2)
    assert found.free.max() < 1e-14  # roundings of sums of some ten squares
    assert found.constrained.min() > 0.01 and found.common.min() > 0.01


def test_with_equal_logits_the_distance_of_the_gradients_is_the_weighed_constrained_part() -> None:
    f, J_t = logits_and_jacobian(network(), X)
    J_s = J_t + normal(B, K, D)
    found = directions((J_s - J_t).unbind(1), f, Y)
    distance = torch.linalg.vector_norm(loss_gradient(f, J_s, Y) - loss_gradient(f, J_t, Y), dim=1)
    torch.testing.assert_close(distance, found.weight * found.constrained.sqrt(), rtol=1e-12, atol=0)


def test_a_difference_in_a_free_direction_is_not_seen_by_the_alignment_and_is_all_free() -> None:
    f, J_t = logits_and_jacobian(network(), X)
    u = off_target(f, Y)
    v = normal(B, K, seed=2)
    v = v - v.mean(1, keepdim=True)
    v = v - u * ((u * v).sum(1) / (u * u).sum(1))[:, None]
    J_s = J_t + 3 * v[:, :, None] * normal(B, 1, D, seed=3)
    found = directions((J_s - J_t).unbind(1), f, Y)
    torch.testing.assert_close(loss_gradient(f, J_s, Y), loss_gradient(f, J_t, Y), rtol=0, atol=1e-12)
    assert found.constrained.max() < 1e-20 and found.common.max() < 1e-20
    torch.testing.assert_close(found.free_share, torch.ones(B, dtype=torch.float64))


def test_a_shift_of_all_logits_together_is_all_common() -> None:
    found = directions(normal(B, 1, D).expand(B, K, D).unbind(1), normal(B, K, seed=1), Y)
    assert found.constrained.max() < 1e-20
    assert found.free.max() < 1e-13  # roundings of the whole
    assert found.common.min() > 0.1


def test_the_weight_fades_as_the_teacher_gets_sure_and_at_the_end_nothing_is_constrained() -> None:
    logits = torch.zeros(3, K, dtype=torch.float64)
    logits[:, 0] = torch.tensor([0.0, 5.0, 1000.0])
    found = directions(normal(1, K, D).expand(3, K, D).unbind(1), logits, torch.zeros(3, dtype=torch.int64))
    assert found.weight[0] == pytest.approx(((K - 1) / K) ** 0.5 * 1.0)  # ||1/K - e_y||
    assert 0 < found.weight[1] < 0.05
    assert (found.weight[2], found.constrained[2]) == (0, 0)
    assert found.free[2] > found.free[1]


def test_the_relative_residual_and_the_cosine_say_how_two_rows_differ() -> None:
    a, b = torch.tensor([[3.0, 4.0], [2.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    assert relative_residual(a, b).tolist() == [0.0, pytest.approx(5**0.5), 0.0]
    assert cosine(a, b).tolist() == [pytest.approx(1.0), 0.0, 1.0]
    assert relative_residual(torch.ones(1, 2), torch.zeros(1, 2)).tolist() == [torch.inf]
    assert cosine(torch.ones(1, 2), torch.zeros(1, 2)).tolist() == [0.0]
    assert cosine(torch.ones(1, 2), -torch.ones(1, 2)).tolist() == [pytest.approx(-1.0)]
