import pytest
import torch
from torch import Tensor, nn

from kdcompress.maths.norms import dual_exponent, steepest
from kdcompress.maths.radii import first_order_radius
from kdcompress.threat import NORMS, Norm

SHAPE = (2, 3, 3)
D = 18


def linear(classes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(D, classes)).double()


def points(count: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_radius_is_exact_for_a_linear_network(norm: Norm, classes: int) -> None:
    network, x = linear(classes), points(12)
    W, b = network.get_parameter("1.weight").detach(), network.get_parameter("1.bias").detach()
    y = network(x).argmax(1)
    radius = first_order_radius(network, x, y, norm)
    for i in range(len(x)):
        f = W @ x[i].flatten() + b
        others = [k for k in range(classes) if k != y[i]]
        distances = [
            (f[y[i]] - f[k]) / torch.linalg.vector_norm(W[y[i]] - W[k], ord=dual_exponent(norm)) for k in others
        ]
        torch.testing.assert_close(radius[i], torch.stack(distances).min(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_the_label_of_a_linear_network_changes_at_the_radius_and_not_before(norm: Norm) -> None:
    network, x = linear(4), points(12)
    y = network(x).argmax(1)
    radius = first_order_radius(network, x, y, norm)
    W = network.get_parameter("1.weight").detach()
    before, beyond = [], []
    for k in range(4):
        direction = steepest((W[k] - W[y]).view(-1, *SHAPE), norm)  # the straightest way to class k
        step = radius.view(-1, 1, 1, 1) * direction
        before.append(network(x + 0.9999 * step).argmax(1) == y)
        beyond.append(network(x + 1.0001 * step).argmax(1) == y)
    assert torch.stack(before).all()
    assert not torch.stack(beyond).all(0).any()


@pytest.mark.parametrize("norm", NORMS)
def test_the_radius_is_zero_where_misclassified(norm: Norm) -> None:
    network, x = linear(3), points(6)
    wrong = network(x).argmin(1)
    assert torch.equal(first_order_radius(network, x, wrong, norm), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_the_radius_is_zero_at_a_tie_with_or_without_gradient(norm: Norm, slope: float) -> None:
    network = linear(2)
    with torch.no_grad():
        network.get_parameter("1.weight").copy_(torch.tensor([[slope], [-slope]]).expand(2, D))
        network.get_parameter("1.bias").zero_()
    assert first_order_radius(network, torch.zeros(1, *SHAPE).double(), torch.tensor([0]), norm).tolist() == [0.0]


@pytest.mark.parametrize("norm", NORMS)
def test_the_radius_is_infinite_where_all_margins_have_gradient_zero(norm: Norm) -> None:
    network = linear(3)
    with torch.no_grad():
        network.get_parameter("1.weight").zero_()
        network.get_parameter("1.bias").copy_(torch.tensor([2.0, 1.0, 0.0]))
    radius = first_order_radius(network, points(2), torch.tensor([0, 1]), norm)
    assert radius.tolist() == [torch.inf, 0.0]  # the second is misclassified, wherever one looks


@pytest.mark.parametrize("norm", NORMS)
def test_a_class_that_cannot_be_reached_does_not_hide_one_that_can(norm: Norm) -> None:
    network = linear(3)
    with torch.no_grad():
        network.get_parameter("1.weight").copy_(torch.tensor([[1.0], [1.0], [-1.0]]).expand(3, D))
        network.get_parameter("1.bias").copy_(torch.tensor([1.0, 0.0, 0.0]))
    radius = first_order_radius(network, torch.zeros(1, *SHAPE).double(), torch.tensor([0]), norm)
    assert radius.item() == pytest.approx(1 / {"Linf": 2 * D, "L2": 2 * D**0.5, "L1": 2}[norm])


def test_the_radius_of_each_example_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.SiLU(), nn.Linear(8, 3)).double()
    x = points(5)
    y = network(x).argmax(1)
    alone = torch.cat([first_order_radius(network, x[i : i + 1], y[i : i + 1], "L2") for i in range(5)])
    torch.testing.assert_close(first_order_radius(network, x, y, "L2"), alone, rtol=1e-12, atol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
