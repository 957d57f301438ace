"""First derivatives alone: the same gradient for smooth networks, the same masks, the same statistics."""

import pytest
import torch
from torch import nn

from kdcompress.engine import Alignment, exact
from kdcompress.engine.finite_difference import finite_difference, kinks
from tests.unit.engine.networks import Batch, student


def term(align: Alignment, network: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The distances, and the weights' gradient of their mean."""
    torch.manual_seed(7)
    _, distance = align(network, *batch)
    slopes = torch.autograd.grad(distance.mean(), list(network.parameters()))
    return distance.detach(), torch.cat([slope.flatten() for slope in slopes])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("smooth", [nn.SiLU, nn.GELU, nn.Tanh])
def test_for_a_smooth_network_value_and_gradient_are_the_exact_ones(
    smooth: type[nn.Module], dropout: float, batch: Batch
) -> None:
    """With dropout too: without the same masks in every pass the slope would be noise."""
    value, found = term(finite_difference(), student(smooth, dropout), batch)
    value_exact, expected = term(exact(2), student(smooth, dropout), batch)
    torch.testing.assert_close(value, value_exact, rtol=1e-5, atol=1e-6)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.9999  # O(h^2), h = 1e-2
    assert found.norm() == pytest.approx(float(expected.norm()), rel=1e-2)


def test_logits_lead_back_to_the_weights_for_the_other_terms(batch: Batch) -> None:
    network = student(nn.SiLU)
    f, _ = finite_difference()(network, *batch)
    assert torch.autograd.grad(f.sum(), network.get_parameter("0.weight"))[0].abs().max() > 0


def test_running_statistics_move_once(batch: Batch) -> None:
    network, plain = student(nn.SiLU), student(nn.SiLU)
    finite_difference()(network, *batch)
    plain(batch[0])
    torch.testing.assert_close(dict(network.named_buffers()), dict(plain.named_buffers()))


def test_where_student_is_teacher_the_distance_is_zero_and_nothing_is_nan(batch: Batch) -> None:
    network, (x, y, _) = student(nn.SiLU), batch
    inputs = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(network(inputs), y, reduction="sum"), inputs)
    value, slope = term(finite_difference(), network, (x, y, g))
    assert value.abs().max() < 1e-6
    assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (nn.ReLU, ("relu",)),
        (nn.ReLU6, ("hardtanh",)),
        (nn.Hardswish, ("hardswish",)),
        (nn.LeakyReLU, ("leaky_relu",)),
        (lambda: nn.MaxPool2d(3, 1, 1), ("max_pool2d_with_indices",)),
        (nn.SiLU, ()),
        (nn.GELU, ()),
    ],
)
def test_kinks_are_named(layer: type[nn.Module], names: tuple[str, ...], batch: Batch) -> None:
    assert kinks(student(layer), batch[0]) == names
