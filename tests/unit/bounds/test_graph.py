"""Networks however they are written, and those that are refused."""

import operator
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.bounds.graph import trace
from kdcompress.bounds.steps import Convolution, Dense, Relu
from kdcompress.errors import UnsupportedLayerError
from kdcompress.models.normalised import NormalisedModel
from tests.bounded import Residual, ready, seeded


class Written(nn.Module):
    """A network whose forward is the function that is given."""

    def __init__(self, forward: Callable[["Written", Tensor], Tensor]) -> None:
        super().__init__()
        self.how = forward
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.even = nn.Conv2d(4, 4, 2, padding="same")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.uneven = nn.AdaptiveAvgPool2d((4, 3))
        self.drop = nn.Dropout(0.5)
        self.nothing = nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.wide = nn.Linear(4 * 36, 3)
        self.fc = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("mean", torch.tensor([0.4, 0.5]).view(1, 2, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3]).view(2, 1, 1))
        self.factor = torch.linspace(0.5, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def modules(net: Written, x: Tensor) -> Tensor:
    x = net.relu(net.nothing(net.conv((x - net.mean) / net.std)))
    return net.fc(net.norm(net.drop(net.pool(x).flatten(1)))) * 3 - 1


def functions(net: Written, x: Tensor) -> Tensor:
    y = F.relu(net.conv(x), inplace=True)
    z = operator.add(torch.relu(-y), torch.add(y, y, alpha=0.5))
    z += F.avg_pool2d(y, 3, stride=1, padding=1)
    return F.linear(F.dropout(torch.flatten(z, 1), 0.5, net.training), net.wide.weight)


def methods(net: Written, x: Tensor) -> Tensor:
    y = net.conv(x).relu().clamp(min=0)
    shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
    y = net.even(y)[:, :, ::2, 1::2].relu() - shortcut.add(1).div(2)
    return net.fc((y.mean((2, 3)) * net.factor).view(x.size(0), -1))


def shapes(net: Written, x: Tensor) -> Tensor:
    y = net.uneven(net.conv(x)).relu().permute(0, 2, 3, 1).reshape(x.shape[0], 12, -1)
    y = 1 - y.transpose(1, 2).sum(2).squeeze() / 12
    return torch.addmm(net.fc.bias, y, net.fc.weight.t()).unsqueeze(1).flatten(1).neg()


def grey(net: Written, x: Tensor) -> Tensor:
    coloured = (x[:, :1] - net.mean) / net.std  # one channel becomes two
    if coloured.shape[1] == 2:  # Python that looks at shapes alone
        coloured = net.conv(coloured)
    return net.fc(coloured.relu().mean([-1, -2], keepdim=True)[:, :, 0, 0])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("how", [modules, functions, methods, shapes, grey])
def test_a_network_is_traced_however_its_forward_is_written(how: Callable[[Written, Tensor], Tensor]) -> None:
    model = seeded(lambda: Written(how))
    network = trace(model, (2, 6, 6))
    x = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    # The model's float32 against float64: a few hundred terms of order one.
    torch.testing.assert_close(network.values(x.double())[-1], model(x).double(), rtol=1e-4, atol=1e-5)


def test_batch_norm_goes_into_the_convolution_before_it_and_dead_steps_go() -> None:
    network = trace(seeded(Residual), (1, 6, 6))
    kinds = [type(step).__name__ for step in network.steps]
    assert kinds.count("Scale") == 1  # the normalisation of the input
    assert kinds.count("Convolution") == 4 and kinds.count("Relu") == 4 and kinds.count("Add") == 1


def test_weights_are_kept_in_float64_and_can_be_had_in_float32() -> None:
    network = trace(seeded(Residual), (1, 6, 6))
    for dtype in (torch.float64, torch.float32):
        weights = [step.weight for step in network.to(dtype).steps if isinstance(step, Convolution | Dense)]
        assert {weight.dtype for weight in weights} == {dtype}


def test_a_hook_that_pads_is_part_of_the_network() -> None:
    def build() -> nn.Module:
        conv = nn.Conv2d(1, 3, 3)
        conv.register_forward_pre_hook(lambda module, inputs: (F.pad(inputs[0], (1, 0, 2, 1)),))
        return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(3 * 5 * 3, 2))

    network = trace(seeded(build), (1, 4, 4))
    assert network.shape_of(len(network.steps)) == (2,)


def test_a_timm_resnet_without_max_pooling_traces_behind_its_normalisation() -> None:
    def build() -> nn.Module:
        # Average pooling in its shortcuts, a stem of three convolutions.
        network = timm.create_model(
            "resnet18d", layers=[1, 1, 1, 1], channels=[4, 4, 8, 8], stem_width=4, num_classes=10, act_layer="relu"
        )
        network.maxpool = nn.Identity()
        return NormalisedModel(network, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3))

    network = trace(seeded(build), (3, 16, 16))
    relus = [step for step in network.steps if isinstance(step, Relu)]
    assert len(relus) == 3 + 4 * 2


def softmax(net: Written, x: Tensor) -> Tensor:
    return net.fc(net.pool(net.conv(x)).flatten(1)).softmax(1)


def product(net: Written, x: Tensor) -> Tensor:
    y = net.pool(net.conv(x)).flatten(1)
    return net.fc(y * y)


def mixed(net: Written, x: Tensor) -> Tensor:
    y = net.pool(net.conv(x)).flatten(1)
    return net.fc(y - y.mean(0, keepdim=True))


def branch(net: Written, x: Tensor) -> Tensor:
    y = net.fc(net.pool(net.conv(x)).flatten(1))
    return y if y.sum() > 0 else -y


def drawn(net: Written, x: Tensor) -> Tensor:
    return net.fc(net.pool(net.conv(x)).flatten(1)) + torch.randn(3)


def reversed_batch(net: Written, x: Tensor) -> Tensor:
    return net.fc(net.pool(net.conv(x)).flatten(1).permute(1, 0).permute(1, 0))


def ceiling(net: Written, x: Tensor) -> Tensor:
    return net.fc(net.pool(net.conv(x)).flatten(1).clamp(0, 6))


def negative_mean(net: Written, x: Tensor) -> Tensor:
    return net.fc(F.avg_pool2d(net.conv(x), 6, divisor_override=-36).flatten(1))


def in_fives(net: Written, x: Tensor) -> Tensor:
    return net.fc(net.pool(net.conv(x)).view(5, 4))


def alone(net: Written, x: Tensor) -> Tensor:
    return net.fc(net.pool(net.conv(x)).view(1, 4))


def fives_added(net: Written, x: Tensor) -> Tensor:
    return net.fc(net.pool(net.conv(x)).flatten(1) + torch.ones(5, 4))


def in_a_list(net: Written, x: Tensor) -> list[Tensor]:
    return [net.fc(net.pool(net.conv(x)).flatten(1))]


def in_a_dict(net: Written, x: Tensor) -> dict[str, Tensor]:
    return {"logits": net.fc(net.pool(net.conv(x)).flatten(1))}


def in_a_pair(net: Written, x: Tensor) -> tuple[Tensor, Tensor]:
    features = net.pool(net.conv(x)).flatten(1)
    return net.fc(features), features


def nothing(net: Written, x: Tensor) -> None:
    net.conv(x)


RETURNED = (in_a_list, in_a_dict, in_a_pair, nothing)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(4), nn.Flatten()),
            r"not supported: 1 \(MaxPool2d\): max_pool2d",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.GELU()), r"not supported: 2 \(GELU\): gelu"),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.LayerNorm(3)), r"not supported: 2 \(LayerNorm\)"),
        (Written(softmax), r"not supported: network \(Written\): softmax"),
        (Written(product), r"not supported: network \(Written\): a product of two values"),
        (Written(mixed), r"not supported: network \(Written\): it mixes images"),
        (Written(branch), r"not supported: Written: torch.export cannot follow its forward"),
        (Written(drawn), r"not supported: Written: what it computes depends on more"),
        (Written(reversed_batch), r"not supported: network \(Written\): it mixes images"),
        (Written(ceiling), r"not supported: network \(Written\): a clamp other than at zero"),
        (Written(negative_mean), r"not supported: network \(Written\): a mean with a divisor that is not positive"),
        (Written(in_fives), r"not supported: Written: it answers for 5 images and not for 2: shape"),
        (Written(alone), r"not supported: Written: torch.export cannot follow its forward: shape"),
        (Written(fives_added), r"not supported: Written: it answers for 5 images and not for 2"),
        *((Written(how), r"not supported: Written: its output must be logits") for how in RETURNED),  # type: ignore[arg-type]
        (nn.Sequential(nn.Conv2d(2, 3, 3)), r"not supported: Sequential: its output must be logits"),
    ],
    ids=lambda value: value.how.__name__ if isinstance(value, Written) else "",
)
def test_what_bounds_cannot_pass_is_refused_by_name(model: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=message):
        trace(ready(model), (2, 6, 6))


def test_batch_norm_in_training_mode_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten()).train()
    with pytest.raises(UnsupportedLayerError, match=r"not supported: 1 \(BatchNorm2d\)"):
        trace(model, (2, 6, 6))


def test_tracing_leaves_the_network_and_shared_randomness_as_they_were() -> None:
    model = seeded(Residual)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    trace(model, (1, 6, 6))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and not model.training
