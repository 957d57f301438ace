import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyautoattack
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from kdcompress.errors import CheckpointError, KdcompressError, UsageError
from kdcompress.models.checkpoints import save_model
from kdcompress.models.layouts import build_layout
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.students import create_student
from kdcompress.models.teachers import LoadedModel, load_model

Randomise = Callable[[nn.Module], nn.Module]

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
LAYOUTS: dict[str, dict[str, Any]] = {
    "cifar_resnet": {"layers": [1, 1], "widths": [4, 6], "stem": 4},
    "cifar_preact_resnet": {"layers": [1, 1], "widths": [4, 6], "stem": 4, "shortcut_from": "input"},
    "cifar_wide_resnet": {"layers": [1, 1], "widths": [4, 6], "stem": 4},
    "deepmind_wide_resnet": {"layers": [1, 1], "widths": [4, 6], "stem": 4, "activation": "silu"},
    "deepmind_preact_resnet": {"layers": [1, 1], "widths": [4, 6], "stem": 4, "activation": "relu"},
}
FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, classes=3):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))
        self.model(torch.zeros(1, 3, 8, 8))

    def forward(self, x):
        return self.model(x)

class Normalised(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("sigma", torch.full((1, 3, 1, 1), 0.25))

    def forward(self, x):
        return self.model((x - self.mu) / self.sigma)

class Probabilities(Net):
    def forward(self, x):
        return self.model(x), x

def net(width=4, classes=3):
    return Net(width, classes)

def normalised():
    return Normalised()

def pair():
    return Probabilities()

def wrong():
    return Net

def broken():
    raise RuntimeError("no such GPU")

number = 3
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with networks in nets.py."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nets.py"
    path.write_text(FACTORY)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield path
    for name in ("nets", "_kdcompress_factory_nets"):
        sys.modules.pop(name, None)


def built(path: Path, name: str, **args: Any) -> nn.Module:
    space: dict[str, Any] = {"__name__": "nets_in_test"}
    exec(path.read_text(), space)
    network = space[name](**args)
    assert isinstance(network, nn.Module)
    return network.eval()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def assert_same_logits(loaded: LoadedModel, network: nn.Module, size: tuple[int, int, int] = (3, 16, 16)) -> None:
    inputs = torch.rand(2, *size)
    mean, std = loaded.record.mean, loaded.record.std
    expected = network.eval()(NormalisedModel(nn.Identity(), mean, std)(inputs))
    assert torch.equal(loaded.model(inputs), expected)


def layout(name: str, randomised: Randomise) -> nn.Module:
    return randomised(build_layout(name, LAYOUTS[name]))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_loads_from_any_wrapping_with_the_same_logits(
    tmp_path: Path, name: str, prefix: str, wrapper: str | None, randomised: Randomise
) -> None:
    network = layout(name, randomised)
    state = {prefix + key: value for key, value in network.state_dict().items()}
    path = saved(tmp_path / "t.pt", state if wrapper is None else {wrapper: state, "epoch": 1})
    told = {key: value for key, value in LAYOUTS[name].items() if key == "activation"}
    loaded = load_model(path, args=told, mean=MEAN, std=STD, input_size=(3, 16, 16))
    assert (loaded.record.source, loaded.record.arch) == ("layout", name)
    assert (loaded.record.mean, loaded.record.std) == (MEAN, STD)
    assert loaded.record.classes == tuple("0123456789")
    assert any(name in note for note in loaded.notes)
    assert any("average" in note for note in loaded.notes) == (wrapper == "model_ema")
    assert_same_logits(loaded, network)


def test_a_loaded_model_is_in_eval_mode_without_gradients(tmp_path: Path, randomised: Randomise) -> None:
    path = saved(tmp_path / "t.pt", layout("cifar_resnet", randomised).state_dict())
    model = load_model(path, mean="none").model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    # The input's gradient still flows.
    inputs = torch.rand(1, 3, 16, 16, requires_grad=True)
    assert torch.autograd.grad(model(inputs).sum(), inputs)[0].abs().sum() > 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_foreign_model_saved_again_needs_nothing_but_its_file(
    tmp_path: Path, name: str, randomised: Randomise
) -> None:
    network = layout(name, randomised)
    told = {key: value for key, value in LAYOUTS[name].items() if key in ("activation", "shortcut_from")}
    first = load_model(saved(tmp_path / "t.pt", network.state_dict()), args=told, mean=MEAN, std=STD)
    save_model(tmp_path / "t.safetensors", first.model, first.record)
    again = load_model(tmp_path / "t.safetensors")
    assert again.record == first.record
    assert_same_logits(again, network)


def test_a_student_is_rebuilt_from_its_file(tmp_path: Path) -> None:
    args = {"layers": (1, 1, 1, 1), "channels": (4, 4, 6, 8)}
    model, record = create_student("resnet18", args, classes="abc", input_size=(1, 16, 16), mean=(0.5,), std=(0.5,))
    sha256 = save_model(tmp_path / "s.safetensors", model, record)
    loaded = load_model(tmp_path / "s.safetensors", classes=("a", "b", "c"))
    assert loaded.record == record
    assert loaded.sha256 == sha256
    assert_same_logits(loaded, model.network, (1, 16, 16))


def test_the_attack_packages_network_loads_without_being_named() -> None:
    path = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    loaded = load_model(path, mean="none", classes=tuple("0123456789"))
    assert loaded.record.arch == "cifar_resnet"
    assert loaded.record.args["layers"] == [2, 2, 2, 2]


# Normalisation


def test_without_a_normalisation_the_user_is_asked(tmp_path: Path, randomised: Randomise) -> None:
    path = saved(tmp_path / "t.pt", layout("cifar_resnet", randomised).state_dict())
    with pytest.raises(UsageError, match=r"--teacher-mean and --teacher-std, or --teacher-mean none"):
        load_model(path)
    with pytest.raises(UsageError, match=r"give --mean and --std"):
        load_model(path, option="")


def test_a_wrong_architecture_is_told_before_the_normalisation_is_asked_for(
    tmp_path: Path, randomised: Randomise
) -> None:
    path = saved(tmp_path / "t.pt", layout("cifar_resnet", randomised).state_dict())
    with pytest.raises(CheckpointError, match="expected the weights of ResNet"):
        load_model(path, arch="resnet18")


def test_one_number_stands_for_all_channels(tmp_path: Path, randomised: Randomise) -> None:
    path = saved(tmp_path / "t.pt", layout("cifar_resnet", randomised).state_dict())
    assert load_model(path, mean=[0.5], std=[0.25]).record.std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        (MEAN, None, "--teacher-std must be given together with --teacher-mean"),
        ("none", STD, "both be numbers or both none"),
        ("imagenet", "imagenet", "numbers or none, got imagenet"),
        ((0.5, 0.5), (0.5, 0.5), "one number or 3"),
        ((123.7,), (58.4,), "divide by 255"),
        ((0.5,), (0.0,), "positive"),
        ((float("nan"),), (0.5,), "finite"),
    ],
)
def test_a_normalisation_that_makes_no_sense_is_refused(
    tmp_path: Path, mean: Any, std: Any, told: str, randomised: Randomise
) -> None:
    path = saved(tmp_path / "t.pt", layout("cifar_resnet", randomised).state_dict())
    with pytest.raises(UsageError, match=told):
        load_model(path, mean=mean, std=std)


def test_a_stored_normalisation_is_used_and_must_not_be_contradicted(tmp_path: Path, randomised: Randomise) -> None:
    network = layout("cifar_resnet", randomised)
    buffers = {"mu": torch.tensor(MEAN).view(1, 3, 1, 1), "sigma": torch.tensor(STD).view(1, 3, 1, 1)}
    path = saved(tmp_path / "t.pt", {**network.state_dict(), **buffers})
    assert_same_logits(load_model(path), network)
    assert load_model(path, mean=[m + 4e-4 for m in MEAN], std=STD).record.mean == MEAN
    for mean, std in (((0.5,), (0.5,)), ("none", None)):
        with pytest.raises(UsageError, match="leave them out"):
            load_model(path, mean=mean, std=std)  # type: ignore[arg-type]


# Architectures


def test_unknown_keys_are_shown_with_the_ways_to_name_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {"stem.weight": torch.zeros(2, 3), "out.weight": torch.zeros(2, 3)})
    with pytest.raises(UsageError, match=r"stem\.weight, out\.weight.*--teacher-arch"):
        load_model(path)


def test_a_timm_name_takes_classes_and_channels_from_the_weights(tmp_path: Path, randomised: Randomise) -> None:
    args = {"layers": [1, 1, 1, 1], "channels": [4, 4, 6, 8]}
    network = randomised(
        timm.create_model("resnet18", layers=(1, 1, 1, 1), channels=(4, 4, 6, 8), num_classes=7, in_chans=1)
    )
    path = saved(tmp_path / "t.pt", network.state_dict())
    loaded = load_model(path, arch="resnet18", args=args, mean="none", input_size=(1, 32, 32))
    assert (loaded.record.source, loaded.record.args, len(loaded.record.classes)) == ("timm", args, 7)
    assert_same_logits(loaded, network, (1, 32, 32))
    save_model(tmp_path / "again.safetensors", loaded.model, loaded.record)
    assert_same_logits(load_model(tmp_path / "again.safetensors"), network, (1, 32, 32))


def test_a_named_layout_gets_the_keys_that_differ_from_it_told(tmp_path: Path, randomised: Randomise) -> None:
    state = dict(layout("cifar_resnet", randomised).state_dict())
    state["layer1.0.se.weight"] = torch.zeros(1)
    path = saved(tmp_path / "t.pt", state)
    with pytest.raises(CheckpointError, match=r"does not have \(layer1\.0\.se\.weight\)"):
        load_model(path, arch="cifar_resnet", mean="none")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"arch": "resnet81"}, "--teacher-arch must be .* got resnet81; did you mean resnet18"),
        ({"arch": "cifar_resnett"}, "did you mean cifar_resnet"),
        ({"arch": "cifar_wide_resnet"}, "expected the keys of cifar_wide_resnet, found conv1.weight"),
        ({"arch": "resnet18"}, "expected the weights of ResNet, found .* missing .* another shape"),
        ({"arch": "resnet18", "args": {"layerz": 1}}, "--teacher-arch resnet18 cannot be built.*layerz"),
        ({"arch": "resnet18", "args": {"pretrained": True}}, "--teacher-arg pretrained cannot be set"),
        ({"args": {"depth": 18}}, "--teacher-arch cifar_resnet, --teacher-arg: .*depth"),
        ({"args": {"layers": [1, 2]}}, "missing from the file"),
        ({"classes": tuple("abc")}, "expected 3 classes as in the data, found a network with 10"),
        ({"input_size": (1, 16, 16)}, "for images of 1x16x16, but it failed"),
        ({"args": {"width": nn.ReLU()}}, "--teacher-arg width must be"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(
    tmp_path: Path, options: dict[str, Any], told: str, randomised: Randomise
) -> None:
    path = saved(tmp_path / "t.pt", layout("cifar_resnet", randomised).state_dict())
    with pytest.raises(KdcompressError, match=told) as caught:
        load_model(path, **{"mean": "none", **options})
    assert "\n" not in str(caught.value)


def test_an_activation_that_the_weights_do_not_tell_is_asked_for(tmp_path: Path, randomised: Randomise) -> None:
    path = saved(tmp_path / "t.pt", layout("deepmind_wide_resnet", randomised).state_dict())
    with pytest.raises(UsageError, match="--teacher-arg activation=silu"):
        load_model(path, mean="none")


def test_what_had_to_be_assumed_is_noted_until_it_is_given(tmp_path: Path, randomised: Randomise) -> None:
    network = layout("cifar_preact_resnet", randomised)
    path = saved(tmp_path / "t.pt", network.state_dict())
    assert any("shortcut_from=input" in note for note in load_model(path, mean="none").notes)
    other = load_model(path, args={"shortcut_from": "activation"}, mean="none")
    assert not any("shortcut_from" in note for note in other.notes)
    inputs = torch.rand(2, 3, 16, 16)
    assert not torch.equal(other.model(inputs), network(inputs))


def test_outputs_that_are_not_finite_are_refused(tmp_path: Path, randomised: Randomise) -> None:
    state = layout("cifar_resnet", randomised).state_dict()
    state["bn1.bias"].fill_(3e38)
    state["layer1.0.conv1.weight"].fill_(1)
    with pytest.raises(CheckpointError, match="finite logits"):
        load_model(saved(tmp_path / "t.pt", state), mean="none")


# Factories


@pytest.mark.parametrize("place", ["nets", "nets.py", "folder/nets.py", "package.nets"])
def test_a_users_function_builds_the_network(tmp_path: Path, factory: Path, place: str) -> None:
    if "folder" in place or "package" in place:
        (tmp_path / place[: place.index("nets") - 1]).mkdir()
        target = tmp_path / (place if place.endswith(".py") else place.replace(".", "/") + ".py")
        target.write_text(factory.read_text())
    network = built(factory, "net", width=5)
    path = saved(tmp_path / "t.pt", {"state_dict": network.state_dict()})
    before = list(sys.path)
    loaded = load_model(path, arch=f"{place}:net", args={"width": 5}, mean=MEAN, std=STD, input_size=(3, 8, 8))
    assert (loaded.record.source, loaded.record.arch, loaded.record.args) == ("factory", f"{place}:net", {"width": 5})
    assert_same_logits(loaded, network, (3, 8, 8))
    assert sys.path == before


@pytest.mark.parametrize(
    ("arch", "args", "told"),
    [
        ("nets:nett", {}, "expected a function nett in nets, found none; did you mean net"),
        ("nets:number", {}, "expected a function, found int"),
        ("nets:net", {"widht": 3}, r"expected arguments \(width=4, classes=3\), got widht"),
        ("nets:wrong", {}, "got the class Net; call it"),
        ("nets:broken", {}, "the call failed with RuntimeError: no such GPU"),
        ("nets:pair", {}, r"expected outputs of shape \(2, classes\) for two images, found tuple"),
        ("nets:net", {"width": 7}, "of another shape"),
        ("nets:net", {"classes": 9}, "the file has 3 classes, the network 9"),
        ("nots:net", {}, "expected an importable module, found ModuleNotFoundError: No module named 'nots'"),
        ("nots.py:net", {}, "expected a Python file, found none at nots.py"),
        ("exits.py:net", {}, "found SystemExit"),
        ("nets:", {}, "must be package.module:function or path/to/file.py:function"),
    ],
)
def test_a_function_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, factory: Path, arch: str, args: dict[str, Any], told: str
) -> None:
    (tmp_path / "exits.py").write_text("raise SystemExit(2)")
    path = saved(tmp_path / "t.pt", built(factory, "net").state_dict())
    with pytest.raises(KdcompressError, match=told) as caught:
        load_model(path, arch=arch, args=args, mean="none", input_size=(3, 8, 8))
    assert "\n" not in str(caught.value)


def test_a_network_that_normalises_itself_is_left_to_it(tmp_path: Path, factory: Path) -> None:
    network = built(factory, "normalised")
    network.state_dict()["mu"].fill_(0.4)
    path = saved(tmp_path / "t.pt", network.state_dict())
    loaded = load_model(path, arch="nets:normalised", input_size=(3, 8, 8))
    assert loaded.record.mean is None
    assert any("normalises its inputs itself" in note for note in loaded.notes)
    assert_same_logits(loaded, network, (3, 8, 8))
    with pytest.raises(UsageError, match="--teacher-mean must be none"):
        load_model(path, arch="nets:normalised", mean=MEAN, std=STD, input_size=(3, 8, 8))


# Records


def test_a_function_named_only_by_the_file_is_never_started(tmp_path: Path, factory: Path) -> None:
    network = built(factory, "net")
    first = load_model(
        saved(tmp_path / "t.pt", network.state_dict()), arch="nets:net", mean="none", input_size=(3, 8, 8)
    )
    sys.modules.pop("nets", None)
    path = tmp_path / "t.safetensors"
    save_model(path, first.model, first.record)
    with pytest.raises(UsageError, match=r"built by a function, nets:net; name it with --teacher-arch"):
        load_model(path)
    assert "nets" not in sys.modules
    assert_same_logits(load_model(path, arch="nets:net"), network, (3, 8, 8))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arch": "hf-hub:someone/net"}, "expected a timm model, found hf-hub:someone/net"),
        ({"args": {"checkpoint_path": "/etc/passwd"}}, "with checkpoint_path"),
        ({"args": {"layerz": 1}}, "layerz"),
        ({"source": "layout", "arch": "no_layout"}, "no_layout"),
        ({"args": {"layers": (1, 1, 1, 10**9), "channels": (4, 4, 6, 8)}}, "far more (tensors|modules) than the"),
        ({"args": {"layers": (1, 1, 1, 1), "channels": (4, 4, 6, 3000)}}, "far more numbers than the"),
        ({"source": "layout", "arch": "cifar_resnet", "args": {"layers": [10**9]}}, "far more numbers"),
        ({"changes": ({"module": "no.such", "action": "removed", "pad": (0, 0)},)}, "resnet18 cannot be changed"),
        ({"changes": ({"module": "fc", "action": "stride 2", "pad": (0, 0)},)}, "resnet18 cannot be changed"),
    ],
)
def test_a_record_cannot_make_timm_open_other_files_or_fill_the_memory(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    args = {"layers": (1, 1, 1, 1), "channels": (4, 4, 6, 8)}
    model, record = create_student("resnet18", args, classes="ab", input_size=(3, 16, 16), mean=(0.5,), std=(0.5,))
    path = tmp_path / "s.safetensors"
    said = json.dumps(record.model_dump(mode="json") | change)
    state = dict(model.network.state_dict())
    safetensors.torch.save_file(state, path, metadata={"kdcompress": said})
    with pytest.raises(CheckpointError, match=f"record cannot be followed: .*{told}"):
        load_model(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"arch": "resnet50"}, "says that it is resnet18 with its arguments; leave out --teacher-arch"),
        ({"args": {"layers": (2, 2, 2, 2)}}, "leave out --teacher-arch, --teacher-arg"),
        ({"mean": (0.1,), "std": (0.5,)}, "must be those in"),
        ({"classes": tuple("abcd")}, "expected 4 classes as in the data, found a network with 3"),
        ({"classes": ("b", "a", "c")}, "expected the classes in the order b, a, c"),
        ({"input_size": (3, 32, 32)}, "images of 3x16x16, which it was made for, found 3x32x32; add --image-size 16"),
        ({"input_size": (1, 16, 16)}, "found 1x16x16; bring images of as many channels"),
    ],
)
def test_options_must_not_contradict_a_record(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    args = {"layers": (1, 1, 1, 1), "channels": (4, 4, 6, 8)}
    mean = std = (0.5, 0.5, 0.5)
    model, record = create_student("resnet18", args, classes="abc", input_size=(3, 16, 16), mean=mean, std=std)
    path = tmp_path / "s.safetensors"
    save_model(path, model, record)
    with pytest.raises(KdcompressError, match=told):
        load_model(path, **options)


def test_class_names_that_differ_from_the_datas_are_noted(tmp_path: Path) -> None:
    args = {"layers": (1, 1, 1, 1), "channels": (4, 4, 6, 8)}
    model, record = create_student("resnet18", args, classes="abc", input_size=(1, 16, 16), mean=(0.5,), std=(0.5,))
    path = tmp_path / "s.safetensors"
    save_model(path, model, record)
    assert load_model(path, classes=("a", "b", "c")).notes == ()
    assert "named a, b, c, ..., the data's x, y, z" in load_model(path, classes=("x", "y", "z")).notes[0]
