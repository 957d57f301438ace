import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyautoattack
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.errors import UsageError
from kdcompress.models.layouts import LAYOUTS, UNREADABLE, build_layout, layout_state, read_arguments, recognise

Randomise = Callable[[nn.Module], nn.Module]

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("cifar_resnet", {"layers": [1, 2, 1, 1], "widths": [4, 6, 8, 10], "stem": 4}),
    "resnet of bottlenecks": (
        "cifar_resnet",
        {"block": "bottleneck", "layers": [1, 1, 2], "widths": [2, 4, 6], "stem": 4, "classes": 7},
    ),
    "resnet in torchvision's names": (
        "cifar_resnet",
        {"layers": [1, 1, 1], "widths": [4, 4, 8], "stem": 4, "shortcut": "downsample", "head": "fc", "channels": 1},
    ),
    "resnet without weights in shortcuts": (
        "cifar_resnet",
        {"layers": [1, 2, 1], "widths": [4, 8, 16], "stem": 4, "shortcut": "pad"},
    ),
    "preact": ("cifar_preact_resnet", {"layers": [1, 1, 1], "widths": [4, 6, 8], "stem": 4, "shortcut_from": "input"}),
    "preact with a final norm": (
        "cifar_preact_resnet",
        {"layers": [2, 1], "widths": [4, 6], "stem": 4, "final_norm": True, "channels": 2},
    ),
    "preact of bottlenecks": (
        "cifar_preact_resnet",
        {"block": "bottleneck", "layers": [1, 1], "widths": [2, 3], "stem": 4, "classes": 3},
    ),
    "wide": ("cifar_wide_resnet", {"layers": [2, 1, 1], "widths": [4, 6, 8], "stem": 4}),
    "deepmind wide": ("deepmind_wide_resnet", {"layers": [2, 1, 1], "widths": [4, 6, 8], "stem": 4}),
    "deepmind preact": ("deepmind_preact_resnet", {"layers": [2, 1], "widths": [4, 6], "stem": 4}),
}


def complete(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    return {**args, UNREADABLE[name]: "silu"} if name in UNREADABLE else dict(args)


@pytest.mark.parametrize("case", TINY)
def test_a_layout_is_rebuilt_from_its_keys_with_the_same_logits(case: str, randomised: Randomise) -> None:
    name, args = TINY[case]
    original = randomised(build_layout(name, complete(name, args)))
    recognised = recognise(original.state_dict())
    assert recognised is not None
    assert recognised[0] == name
    assert args.items() <= recognised[1].items()
    again = build_layout(name, complete(name, recognised[1])).eval()
    again.load_state_dict(original.state_dict())
    inputs = torch.rand(2, args.get("channels", 3), 16, 16)
    assert torch.equal(again(inputs), original(inputs))


@pytest.mark.parametrize("case", TINY)
def test_a_layout_can_be_differentiated_twice(case: str, randomised: Randomise) -> None:
    name, args = TINY[case]
    network = randomised(build_layout(name, complete(name, args)))
    inputs = torch.rand(2, args.get("channels", 3), 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(inputs).square().sum(), inputs, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_no_layout_has_the_name_of_a_timm_model() -> None:
    assert not set(LAYOUTS) & set(timm.list_models())


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_resnet_equals_timms_with_a_small_stem(arch: str, randomised: Randomise) -> None:
    block = "bottleneck" if arch == "resnet50" else "basic"
    reference = timm.create_model(arch, layers=(1, 2, 1, 1), channels=(4, 6, 8, 10), num_classes=5)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    randomised(reference)
    recognised = recognise(reference.state_dict())
    assert recognised is not None
    assert recognised[1]["block"] == block
    network = build_layout(*recognised).eval()
    network.load_state_dict(reference.state_dict())
    inputs = torch.rand(2, 3, 32, 32)
    # Another order of the mean over positions: a few roundings.
    torch.testing.assert_close(network(inputs), reference(inputs), rtol=1e-5, atol=1e-5)


def test_the_published_resnet18_of_the_attack_package_gives_its_own_logits() -> None:
    folder = Path(pyautoattack.__file__).parent / "examples"
    spec = importlib.util.spec_from_file_location("published_resnet", folder / "resnet.py")
    assert spec is not None
    assert spec.loader is not None
    published = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(published)
    state = torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True)
    recognised = recognise(state)
    assert recognised is not None
    network = build_layout(*recognised).eval()
    network.load_state_dict(state)
    reference = published.ResNet18().eval()
    reference.load_state_dict(state)
    inputs = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(inputs), reference(inputs), rtol=1e-5, atol=1e-5)


class Functions:
    """A state dict's layers as functions: what a layout computes, written down a second time without modules."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def norm(self, key: str, inputs: Tensor) -> Tensor:
        s = self.state
        mean, var = s[f"{key}.running_mean"], s[f"{key}.running_var"]
        return F.batch_norm(inputs, mean, var, s[f"{key}.weight"], s[f"{key}.bias"])

    def conv(self, key: str, inputs: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.conv2d(inputs, weight, stride=stride, padding=weight.shape[-1] // 2)

    def same_conv(self, key: str, inputs: Tensor, stride: int = 1) -> Tensor:
        """TensorFlow's padding SAME: output ceil(n / stride), the odd row and column at the end."""
        weight = self.state[f"{key}.weight"]
        size, kernel = inputs.shape[-1], weight.shape[-1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        low, high = total // 2, total - total // 2
        return F.conv2d(F.pad(inputs, (low, high, low, high)), weight, stride=stride)

    def linear(self, key: str, inputs: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(inputs, 1).flatten(1)
        return F.linear(pooled, self.state[f"{key}.weight"], self.state[f"{key}.bias"])


def preact_reference(
    state: Mapping[str, Tensor], *, final_norm: bool, shortcut_from: str
) -> Callable[[Tensor], Tensor]:
    f = Functions(state)

    def forward(x: Tensor) -> Tensor:
        x = f.conv("conv1", x)
        for stage, stride in (("layer1", 1), ("layer2", 2)):
            a = F.relu(f.norm(f"{stage}.0.bn1", x))
            seen = a if shortcut_from == "activation" else x
            projects = f"{stage}.0.shortcut.0.weight" in state
            carried = f.conv(f"{stage}.0.shortcut.0", seen, stride) if projects else x
            h = f.conv(f"{stage}.0.conv1", a, stride)
            x = f.conv(f"{stage}.0.conv2", F.relu(f.norm(f"{stage}.0.bn2", h))) + carried
        return f.linear("linear", F.relu(f.norm("bn", x)) if final_norm else x)

    return forward


@pytest.mark.parametrize("shortcut_from", ["input", "activation"])
@pytest.mark.parametrize("final_norm", [False, True])
def test_preact_resnet_is_its_equation(shortcut_from: str, final_norm: bool, randomised: Randomise) -> None:
    args = {"layers": [1, 1], "widths": [4, 6], "stem": 4, "final_norm": final_norm, "shortcut_from": shortcut_from}
    network = randomised(build_layout("cifar_preact_resnet", args))
    reference = preact_reference(network.state_dict(), final_norm=final_norm, shortcut_from=shortcut_from)
    inputs = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(network(inputs), reference(inputs), rtol=1e-5, atol=1e-5)


WIDE_KEYS = {  # stem, blocks, parts of a block, last norm, classifier
    "cifar_wide_resnet": ("conv1", "block{}.layer.0", "bn1 conv1 bn2 conv2 convShortcut", "bn1", "fc"),
    "deepmind_wide_resnet": (
        "init_conv",
        "layer.{}.block.0",
        "batchnorm_0 conv_0 batchnorm_1 conv_1 shortcut",
        "batchnorm",
        "logits",
    ),
}


@pytest.mark.parametrize("name", WIDE_KEYS)
def test_a_wide_resnet_is_its_equation(name: str, randomised: Randomise) -> None:
    stem, block, parts, last, head = WIDE_KEYS[name]
    args = complete(name, {"layers": [1, 1], "widths": [4, 6], "stem": 4})
    network = randomised(build_layout(name, args))
    f = Functions(network.state_dict())
    act, conv, first = (F.silu, f.same_conv, 0) if name in UNREADABLE else (F.relu, f.conv, 1)
    inputs = torch.rand(2, 3, 16, 16)
    x = conv(stem, inputs)
    for number, stride in ((first, 1), (first + 1, 2)):
        bn1, conv1, bn2, conv2, shortcut = (f"{block.format(number)}.{part}" for part in parts.split())
        a = act(f.norm(bn1, x))
        carried = conv(shortcut, a, stride) if f"{shortcut}.weight" in f.state else x
        x = conv(conv2, act(f.norm(bn2, conv(conv1, a, stride)))) + carried
    torch.testing.assert_close(network(inputs), f.linear(head, act(f.norm(last, x))), rtol=1e-5, atol=1e-5)


def test_deepminds_preact_resnet_is_its_equation(randomised: Randomise) -> None:
    args = {"layers": [1, 1], "widths": [4, 6], "stem": 4, "activation": "silu"}
    network = randomised(build_layout("deepmind_preact_resnet", args))
    f = Functions(network.state_dict())
    inputs = torch.rand(2, 3, 16, 16)
    x = f.same_conv("conv_2d", inputs)
    for stage, stride in (("layer_0.0", 1), ("layer_1.0", 2)):
        a = F.silu(f.norm(f"{stage}.batchnorm_0", x))
        carried = f.same_conv(f"{stage}.shortcut", x, stride) if f"{stage}.shortcut.weight" in f.state else x
        h = F.silu(f.norm(f"{stage}.batchnorm_1", f.same_conv(f"{stage}.conv_2d_1", a, stride)))
        x = f.same_conv(f"{stage}.conv_2d_2", h) + carried
    torch.testing.assert_close(
        network(inputs), f.linear("logits", F.silu(f.norm("batchnorm", x))), rtol=1e-5, atol=1e-5
    )


def test_a_shortcut_without_weights_takes_every_second_pixel_and_fills_channels_with_zeros(
    randomised: Randomise,
) -> None:
    args = {"layers": [1, 1], "widths": [4, 8], "stem": 4, "shortcut": "pad"}
    network = randomised(build_layout("cifar_resnet", args))
    block = network.get_submodule("layer2.0")
    with torch.no_grad():
        for key, value in block.state_dict().items():
            if key.startswith("bn2"):
                value.fill_(1.0 if key.endswith("var") else 0.0)
    inputs = torch.rand(2, 4, 6, 6)
    expected = torch.zeros(2, 8, 3, 3)
    expected[:, 2:6] = inputs[:, :, ::2, ::2]
    assert torch.equal(block(inputs), expected)


def test_the_group_that_trades_never_runs_is_left_out() -> None:
    state = build_layout("cifar_wide_resnet", {"layers": [1, 1], "widths": [4, 6], "stem": 4}).state_dict()
    twice = {**state, **{f"sub_{key}": value for key, value in state.items() if key.startswith("block1")}}
    recognised = recognise(twice)
    assert recognised is not None
    assert recognised[0] == "cifar_wide_resnet"
    assert layout_state("cifar_wide_resnet", twice).keys() == state.keys()


def test_batchnorms_counters_are_not_needed() -> None:
    state = build_layout("cifar_resnet", {"layers": [1], "widths": [4], "stem": 4}).state_dict()
    assert recognise({key: value for key, value in state.items() if "num_batches" not in key}) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("layer1.0.bn2.weight"),
        lambda state: state.update({"layer1.0.se.weight": torch.zeros(3)}),
        lambda state: state.update({"conv1.weight": torch.zeros(4, 3, 7, 7)}),
        lambda state: state.update({"layer999999999.0.conv1.weight": torch.zeros(1)}),
    ],
    ids=["a weight missing", "a weight more", "a larger stem", "a stage out of order"],
)
def test_what_does_not_fit_in_every_weight_is_not_recognised(change: Callable[[dict[str, Tensor]], Any]) -> None:
    state = dict(build_layout("cifar_resnet", {"layers": [1, 1], "widths": [4, 6], "stem": 4}).state_dict())
    change(state)
    assert recognise(state) is None


def test_arguments_of_another_layout_are_not_read() -> None:
    state = build_layout("cifar_wide_resnet", {"layers": [1], "widths": [4], "stem": 4}).state_dict()
    assert read_arguments("cifar_resnet", state) is None


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("cifar_resnets", {}, "did you mean cifar_resnet"),
        ("cifar_resnet", {"depth": 18}, "depth"),
        ("cifar_resnet", {"block": "fancy"}, "basic, bottleneck"),
        ("cifar_preact_resnet", {"shortcut_from": "output"}, "input, activation"),
        ("cifar_resnet", {"layers": [1], "widths": [4, 8]}, "cannot be built"),
        ("deepmind_wide_resnet", {}, "activation"),
        ("deepmind_wide_resnet", {"activation": "swish"}, "silu, relu"),
    ],
)
def test_wrong_arguments_are_named(name: str, args: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        build_layout(name, args)
