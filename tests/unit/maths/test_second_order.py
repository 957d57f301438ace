"""Convolution and batch normalisation with their second derivative written down, beside PyTorch's own, in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.maths.gradients import double_backward, input_gradient, logits_and_input_gradient
from kdcompress.maths.second_order import Stage

CLASSES = 3


class AfterConvolution(nn.Module):
    """A layer between a smooth one before it and a smooth head, so that every derivative of it matters."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.before, self.layer, self.head = nn.Conv2d(2, channels, 1), layer, nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.layer(2 * torch.tanh(self.before(x)))).flatten(1))
        return logits


def network(layer: Callable[[], nn.Module], channels: int = 4) -> nn.Module:
    torch.manual_seed(0)
    built = AfterConvolution(layer(), channels).double().train()
    built(torch.rand(5, 2, 6, 5, dtype=torch.float64))
    for parameter in built.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return built


class ScaledWeights(nn.Module):
    """Weights brought to mean 0 and spread 1 by `F.batch_norm` without statistics or affine part, as timm's StdConv."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        flat = F.batch_norm(self.weight.reshape(1, 3, -1), None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, flat.reshape_as(self.weight))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Conv2d(4, 3, 3),
    "strided": lambda: nn.Conv2d(4, 3, 3, stride=2, padding=1),
    "stride and padding by side": lambda: nn.Conv2d(4, 3, (3, 1), stride=(2, 1), padding=(1, 0)),
    "dilated": lambda: nn.Conv2d(4, 3, 2, dilation=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1),
    "without bias": lambda: nn.Conv2d(4, 3, 3, bias=False),
    "padding by name": lambda: nn.Conv2d(4, 3, 3, padding="same"),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "batch norm without affine part": lambda: nn.BatchNorm2d(4, affine=False),
    "batch norm without running statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "standardised weights": ScaledWeights,
    "layer norm": lambda: nn.LayerNorm(5),
    "layer norm over three dimensions": lambda: nn.LayerNorm((4, 6, 5)),
    "layer norm without affine part": lambda: nn.LayerNorm(5, elementwise_affine=False),
    "layer norm without bias": lambda: nn.LayerNorm((6, 5), bias=False),
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU(approximate="tanh"),
}


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(5, 2, 6, 5, dtype=torch.float64), torch.arange(5) % CLASSES


def loss(f: Tensor, g: Tensor, y: Tensor) -> Tensor:
    """Both terms: a network's own CE, and a function of its input gradient that is not symmetric."""
    return F.cross_entropy(f, y) + (g - 0.1).square().sum(dim=(1, 2, 3)).sqrt().mean()


def written_out(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    f = model(x)
    return f, input_gradient(f, x, y, create_graph=True)


def assert_same_gradients(model: nn.Module) -> None:
    x, y = images()
    parameters = list(model.parameters())
    f, g = logits_and_input_gradient(model, x, y, create_graph=True)
    f_own, g_own = written_out(model, x, y)
    torch.testing.assert_close((f, g), (f_own, g_own), rtol=1e-10, atol=1e-12)
    found = torch.autograd.grad(loss(f, g, y), parameters)
    expected = torch.autograd.grad(loss(f_own, g_own, y), parameters)
    # float64, sums of some hundred terms: far above 1e-16 times their number, far below any wrong term.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_logits_input_gradient_and_the_weights_gradients_are_pytorchs(name: str) -> None:
    assert_same_gradients(network(LAYERS[name]))


@pytest.mark.parametrize("name", ["batch norm", "convolution", "layer norm"])
def test_they_are_with_weights_at_zero_where_residual_branches_start(name: str) -> None:
    model = network(LAYERS[name])
    nn.init.zeros_(model.get_parameter("layer.weight"))
    assert_same_gradients(model)


def test_they_are_in_eval_mode_and_with_frozen_weights() -> None:
    model = network(LAYERS["batch norm"])
    assert_same_gradients(model.eval())
    model.train().get_parameter("layer.weight").requires_grad_(False)
    x, y = images()
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found, expected = (
        torch.autograd.grad(loss(*answers, y), wanted)
        for answers in (logits_and_input_gradient(model, x, y, create_graph=True), written_out(model, x, y))
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_running_statistics_move_once_and_as_pytorchs() -> None:
    ours, own = network(LAYERS["batch norm"]), network(LAYERS["batch norm"])
    x, y = images()
    f, g = logits_and_input_gradient(ours, x, y, create_graph=True)
    loss(f, g, y).backward()
    own(x)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(own.named_buffers()), rtol=1e-12, atol=1e-14)


def test_a_batch_of_one_value_a_channel_is_refused_as_by_pytorch() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, CLASSES))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        logits_and_input_gradient(model, torch.rand(1, 2, 1, 1), torch.tensor([0]), create_graph=True)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_autocast_reaches_the_convolutions(kind: torch.dtype) -> None:
    model = network(LAYERS["batch norm"]).float()
    x, y = images()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
        f, g = logits_and_input_gradient(model, x.float(), y, create_graph=True)
    loss(f.float(), g, y).backward()
    slope = model.get_parameter("before.weight").grad
    exact = network(LAYERS["batch norm"])
    loss(*written_out(exact, x, y), y).backward()
    reference = exact.get_parameter("before.weight").grad
    assert slope is not None and reference is not None and slope.dtype == torch.float32
    cosine = F.cosine_similarity(slope.double().flatten(), reference.flatten(), dim=0)
    # 8 bits of mantissa, a handful of layers.
    assert cosine > (0.99 if kind is torch.bfloat16 else 1 - 1e-9)


def test_the_stem_is_recognised_and_spared_a_gradient_that_nobody_reads() -> None:
    pixels = torch.rand(2, 3, 4, 4, requires_grad=True)
    weight = torch.rand(3, 3, 1, 1, requires_grad=True)
    stage = Stage(pixels)
    assert stage.reads_pixels(pixels)
    assert stage.reads_pixels((pixels - 0.5) / 0.25)
    assert not stage.reads_pixels(F.conv2d(pixels, weight))
    assert not stage.reads_pixels(pixels * weight.sum())
    assert not stage.reads_pixels(torch.rand(2, 3, requires_grad=True) + 1)
    with double_backward(stage):
        y = F.conv2d((pixels - 0.5) / 0.25, weight)
    y.square().sum().backward()
    assert pixels.grad is None and weight.grad is not None


def test_the_stage_ends_with_an_error_too() -> None:
    stage = Stage(torch.zeros(1))
    with pytest.raises(KeyError), stage.inputs_only():
        assert stage.to_inputs
        raise KeyError
    assert not stage.to_inputs
