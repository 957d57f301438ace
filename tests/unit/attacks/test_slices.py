import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.slices import Sliced


class Sizes(nn.Module):
    """Two layers that note how many images they see at once."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        logits: Tensor = self.layers(x)
        return logits


@pytest.fixture
def model() -> Sizes:
    torch.manual_seed(0)
    return Sizes().eval().requires_grad_(False)


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_logits_and_input_gradients_are_those_of_the_whole_batch(model: Sizes, size: int) -> None:
    x = torch.rand(10, 1, 3, 4).requires_grad_()
    whole, parts = model(x), Sliced(model, size)(x)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)  # other batches round otherwise
    for k in range(3):  # FAB goes back several times
        expected, found = (torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for y in (whole, parts))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_no_forward_sees_more_images_than_the_size_with_gradients_or_without(model: Sizes) -> None:
    sliced = Sliced(model, 4)
    x = torch.rand(10, 1, 3, 4)
    with torch.no_grad():
        sliced(x)
    (gradient,) = torch.autograd.grad(sliced(x.requires_grad_()).sum(), x)
    assert max(model.seen) == 4
    assert gradient.shape == x.shape


def test_a_batch_that_fits_is_one_forward_and_nothing_is_computed_twice(model: Sizes) -> None:
    x = torch.rand(4, 1, 3, 4).requires_grad_()
    torch.autograd.grad(Sliced(model, 4)(x).sum(), x)
    assert model.seen == [4]


def test_work_counts_forwards_and_every_backward_twice(model: Sizes) -> None:
    sliced = Sliced(model, 3)
    with torch.no_grad():
        sliced(torch.rand(5, 1, 3, 4))
    assert sliced.work == 5
    total = sliced(torch.rand(5, 1, 3, 4).requires_grad_()).sum()
    assert sliced.work == 5 + 5
    total.backward(retain_graph=True)
    total.backward()
    assert sliced.work == 5 + 5 + 2 * 10


def test_between_slices_the_graph_holds_the_inputs_and_not_the_activations(model: Sizes) -> None:
    held: list[int] = []
    x = torch.rand(8, 1, 3, 4).requires_grad_()

    def note(tensor: Tensor) -> Tensor:
        held.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        Sliced(model, 4)(x)
    with_slices = sum(held)
    held.clear()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        Sliced(model, 8)(x)
    assert with_slices <= x.numel() < sum(held) + x.numel()
