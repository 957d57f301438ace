"""Rounding to int8, and the copy by which it is attacked."""

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from kdcompress.data import Data
from kdcompress.errors import ExportError
from kdcompress.export.int8 import quantised, straight_through
from kdcompress.export.programs import onnx_runtime, program_of, to_bytes, to_onnx
from kdcompress.models.teachers import LoadedModel

SIZE = (1, 16, 16)


@pytest.fixture(scope="module")
def images(digits: Data) -> torch.Tensor:
    assert digits.train is not None
    return next(digits.train.batches(64))[0]


@pytest.fixture(scope="module")
def rounded(robust: LoadedModel, images: torch.Tensor) -> GraphModule:
    return quantised(program_of(robust.model, SIZE), [images])


def test_rounding_moves_logits_little_and_does_move_them(
    robust: LoadedModel, rounded: GraphModule, images: torch.Tensor
) -> None:
    away = (rounded(images) - robust.model(images)).abs()
    assert 1e-4 < away.mean() < 0.1  # measured .018, of logits up to 8


def test_the_copy_gives_the_same_logits_bit_by_bit(rounded: GraphModule, images: torch.Tensor) -> None:
    copy = straight_through(rounded)
    for x in (images, torch.rand(16, *SIZE)):
        assert torch.equal(copy(x), rounded(x))


def test_the_rounded_network_has_no_gradients_and_the_copy_has_its_parents(
    robust: LoadedModel, rounded: GraphModule, images: torch.Tensor
) -> None:
    x = images.clone().requires_grad_()
    assert not rounded(x).requires_grad
    gradients = [
        torch.autograd.grad(f(x)[:, 3].sum(), x)[0].flatten(1) for f in (straight_through(rounded), robust.model)
    ]
    # Rounding moves some ReLUs; direction and length stay near.
    assert torch.cosine_similarity(*gradients).median() > 0.95


def test_outside_the_range_that_was_seen_the_copy_passes_no_gradient() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    copy = straight_through(quantised(program_of(network, (1, 2, 2)), [torch.rand(8, 1, 2, 2)]))
    x = torch.full((1, 1, 2, 2), 5.0, requires_grad=True)
    assert (torch.autograd.grad(copy(x).sum(), x)[0] == 0).all()


def test_a_file_holds_int8_weights_and_no_float_ones_beside_them(robust: LoadedModel, rounded: GraphModule) -> None:
    whole = program_of(robust.model, SIZE)
    small = program_of(rounded, SIZE)
    assert len(to_onnx(small, 18, {})) < 0.5 * len(to_onnx(whole, 18, {}))
    assert len(to_bytes(small)) < 0.5 * len(to_bytes(whole))


def test_a_file_read_literally_is_the_rounded_network(
    robust: LoadedModel, rounded: GraphModule, images: torch.Tensor
) -> None:
    """But for values that divide to the other side of a rounding boundary: measured .3 of what rounding itself does."""
    found = onnx_runtime(to_onnx(program_of(rounded, SIZE), 18, {}), literal=True)(images)
    meant = rounded(images)
    assert (found - meant).abs().mean() < 0.6 * (meant - robust.model(images)).abs().mean()


def test_a_network_with_nothing_to_round_is_refused() -> None:
    with pytest.raises(ExportError, match="no convolution or linear layer"):
        quantised(program_of(nn.Flatten(), SIZE), [torch.rand(2, *SIZE)])
