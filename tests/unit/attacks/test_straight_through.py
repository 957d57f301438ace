import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.straight_through import StraightThrough


class Steps(nn.Module):
    """A linear network behind a step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.step, self.linear = step, nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        stepped = {
            "round": lambda: torch.round(x * 15) / 15,
            "method": lambda: (x * 15).round() / 15,
            "decimals": lambda: torch.round(x, decimals=1),
            "keyword": lambda: torch.round(input=x * 15) / 15,
            "floor": lambda: (x * 15).floor() / 15,
            "sign": lambda: torch.sign(x - 0.5),
            "none": lambda: x,
        }[self.step]()
        logits: Tensor = self.linear(stepped)
        return logits


@pytest.mark.parametrize("step", ["round", "method", "keyword", "decimals", "floor", "sign", "none"])
def test_the_outputs_are_the_networks_own(step: str) -> None:
    model = Steps(step).eval()
    x = torch.rand(5, 1, 3, 4)
    torch.testing.assert_close(StraightThrough(model)(x), model(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", ["round", "method", "keyword", "decimals", "floor", "sign"])
def test_gradients_are_those_without_the_step(step: str) -> None:
    x = torch.rand(5, 1, 3, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(StraightThrough(Steps(step))(x)[:, 1].sum(), x)
    (expected,) = torch.autograd.grad(Steps("none")(x)[:, 1].sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


def test_sign_passes_nothing_on_beyond_one() -> None:
    class Far(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sign(4 * x - 2)

    x = torch.tensor([[0.1, 0.4, 0.6, 0.9]]).requires_grad_()
    (gradient,) = torch.autograd.grad(StraightThrough(Far())(x).sum(), x)
    assert gradient.tolist() == [[0.0, 4.0, 4.0, 0.0]]


def test_steps_in_place_keep_their_effect() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 3
            y.round_()
            return y

    x = torch.rand(2, 3)
    assert torch.equal(StraightThrough(InPlace())(x), InPlace()(x))
