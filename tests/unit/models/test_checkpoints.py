import io
import json
import os
import pickle
import random
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kdcompress.errors import CheckpointError
from kdcompress.models.checkpoints import load_state, read_checkpoint, save_model
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
RECORD = ModelRecord(source="layout", arch="cifar_resnet", input_size=(3, 8, 8), classes=("a", "b"), mean=MEAN, std=STD)


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (4, 3, 3, 3), "bn.running_mean": (4,), "fc.weight": (2, 4), "fc.bias": (2,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def assert_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights().items()}


# What scripts keep beside the weights.
BESIDE = {
    "epoch": 3,
    "best": np.float64(0.5),
    "history": np.arange(3.0),
    "args": Namespace(lr=0.1, out=Path("runs/a"), seed=np.int64(1)),
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
    "torch": torch.__version__,
}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "module.model.", "network."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model", "net", "state_dict_ema"])
def test_weights_are_found_in_every_usual_wrapping(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = prefixed(prefix)
    content = state if wrapper is None else {wrapper: state, **BESIDE}
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", content))
    assert_weights(checkpoint.state, weights())
    assert checkpoint.record is None
    assert not checkpoint.has_normalisation
    assert checkpoint.origin == (wrapper or "")


def test_wrappers_may_lie_in_each_other(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", {"model": {"state_dict": weights()}}))
    assert_weights(checkpoint.state, weights())
    assert checkpoint.origin == "model.state_dict"


def test_files_in_the_legacy_layout_load(tmp_path: Path) -> None:
    content = {"state_dict": weights(), **BESIDE}
    path = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=False)
    assert_weights(read_checkpoint(path).state, weights())


def test_an_average_is_preferred_to_the_plain_weights(tmp_path: Path) -> None:
    plain = {key: value + 1 for key, value in weights().items()}
    for name in ("state_dict_ema", "model_ema", "ema"):
        path = saved(tmp_path / "a.pt", {"state_dict": plain, name: prefixed("module.")})
        assert_weights(read_checkpoint(path).state, weights())


def test_an_average_without_batchnorm_statistics_is_passed_over(tmp_path: Path) -> None:
    partial = {key: value + 1 for key, value in weights().items() if "running" not in key}
    path = saved(tmp_path / "a.pt", {"state_dict": weights(), "ema": {"decay": 0.99, "shadow": partial}})
    assert_weights(read_checkpoint(path).state, weights())


def test_parameters_arrays_and_bookkeeping_in_a_state_dict_are_taken_or_left(tmp_path: Path) -> None:
    state: dict[str, Any] = {key: nn.Parameter(value) for key, value in weights().items()}
    state["fc.bias"] = state["fc.bias"].detach().numpy()
    path = saved(
        tmp_path / "a.pt",
        {"n_averaged": torch.tensor(3), "version": "x", **{f"module.{k}": v for k, v in state.items()}},
    )
    found = read_checkpoint(path).state
    found.pop("n_averaged")
    assert_weights(found, weights())
    assert not any(value.requires_grad for value in found.values())


def test_safetensors_are_told_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    safetensors.torch.save_file(prefixed("module."), path)
    assert_weights(read_checkpoint(path).state, weights())


def test_a_torch_file_may_be_called_safetensors(tmp_path: Path) -> None:
    assert_weights(read_checkpoint(saved(tmp_path / "a.safetensors", weights())).state, weights())


@pytest.mark.parametrize("names", ["normalize.mean normalize.std", "normalizer.mean normalizer.std", "mu sigma",
                                   "mean std", "_mean _std", "normalizer.new_mean normalizer.new_std"])  # fmt: skip
@pytest.mark.parametrize("prefixes", [("", ""), ("", "model."), ("module.", "module."), ("module.", "module.model.")])
@pytest.mark.parametrize("shape", [(3,), (1, 3, 1, 1)], ids=str)
def test_normalisation_buffers_are_taken_out_of_the_weights(
    tmp_path: Path, names: str, prefixes: tuple[str, str], shape: tuple[int, ...]
) -> None:
    outer, inner = prefixes
    mean, std = names.split()
    buffers = {outer + mean: torch.tensor(MEAN).view(shape), outer + std: torch.tensor(STD).view(shape)}
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", {**buffers, **prefixed(inner)}))
    assert_weights(checkpoint.state, weights())
    assert checkpoint.has_normalisation
    assert (checkpoint.mean, checkpoint.std) == (MEAN, STD)


def test_a_sequence_of_normalisation_and_network_is_taken_apart(tmp_path: Path) -> None:
    buffers = {"0.mean": torch.tensor(MEAN), "0.std": torch.tensor(STD)}
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", {**buffers, **prefixed("1.")}))
    assert_weights(checkpoint.state, weights())
    assert checkpoint.mean == MEAN


def test_the_second_copy_inside_an_attacker_is_left_out(tmp_path: Path) -> None:
    new = {"normalizer.new_mean": torch.tensor(MEAN), "normalizer.new_std": torch.tensor(STD)}
    inside = {f"attacker.{key}": value for key, value in {**new, **prefixed("model.")}.items()}
    state = {f"module.{key}": value for key, value in {**new, **prefixed("model."), **inside}.items()}
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", {"model": state}))
    assert_weights(checkpoint.state, weights())
    assert checkpoint.mean == MEAN


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "divide by 255"),
        (MEAN, (0.2, 0.0, 0.2), "positive"),
        (MEAN, (0.2, 0.2), "as many"),
    ],
)
def test_a_normalisation_that_pixels_cannot_have_is_refused(
    tmp_path: Path, mean: tuple[float, ...], std: tuple[float, ...], told: str
) -> None:
    path = saved(tmp_path / "a.pt", {"mean": torch.tensor(mean), "std": torch.tensor(std), **weights()})
    with pytest.raises(CheckpointError, match=told):
        read_checkpoint(path)


def test_two_normalisations_that_differ_are_refused(tmp_path: Path) -> None:
    one = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    other = {"mu": torch.tensor(STD), "sigma": torch.tensor(STD)}
    with pytest.raises(CheckpointError, match="several that differ"):
        read_checkpoint(saved(tmp_path / "a.pt", {**one, **other, **weights()}))


class Code:
    """Unpickled, it leaves a file behind."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def torch_bytes(content: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 0", "pickle 2", "pickle 5", "beside weights"])
def test_code_in_a_pickle_is_named_and_never_run(tmp_path: Path, form: str) -> None:
    witness, path = tmp_path / "witness", tmp_path / "a.pt"
    code = Code(witness)
    path.write_bytes(
        {
            "zip": lambda: torch_bytes(code),
            "legacy": lambda: torch_bytes(code, _use_new_zipfile_serialization=False),
            "pickle 0": lambda: pickle.dumps(code, protocol=0),
            "pickle 2": lambda: pickle.dumps(code, protocol=2),
            "pickle 5": lambda: pickle.dumps(code, protocol=5),
            "beside weights": lambda: torch_bytes({"state_dict": weights(), "x": code}),
        }[form]()
    )
    with pytest.raises(CheckpointError, match=f"{os.system.__module__}.system.*refused"):
        read_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_pickled_network_is_refused_with_advice(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "a.pt", {"model": nn.Linear(2, 2)}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"whole pickled network \(torch.nn.modules.linear.Linear"):
        read_checkpoint(path)


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def numpy_archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.arange(3))
    return stream.getvalue()


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "a web page": (lambda: b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page, probably a failed"),
    "a git-lfs pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "git lfs pull",
    ),
    "the sidecar": (lambda: json.dumps({"arch": "resnet18"}).encode(), "JSON"),
    "noise": (lambda: bytes(range(7, 256)) * 9, "found neither"),
    "text": (lambda: b"hello", "found neither"),
    "a truncated zip": (lambda: truncated(torch_bytes(weights())), "truncated or damaged"),
    "a truncated legacy file": (
        lambda: truncated(torch_bytes(weights(), _use_new_zipfile_serialization=False)),
        "truncated or damaged",
    ),
    "truncated safetensors": (lambda: safetensors.torch.save(weights())[:-4], "truncated"),
    "safetensors cut in the header": (lambda: safetensors.torch.save(weights())[:40], "truncated"),
    "another zip": (numpy_archive, "found neither"),
    "another pickle": (lambda: pickle.dumps([1, 2], protocol=5), "another program's pickle"),
    "a list": (lambda: torch_bytes([torch.zeros(2)]), r"found no weights \(list"),
    "no tensors": (lambda: torch_bytes({"epoch": 1, "lr": 0.1}), r"found no weights \(epoch, lr"),
    "only scalars": (lambda: torch_bytes({"loss": torch.tensor(0.1)}), "found no weights"),
    "NaN": (lambda: torch_bytes({**weights(), "fc.bias": torch.tensor([0.0, float("nan")])}), "NaN or infinity in fc"),
    "sparse": (
        lambda: torch_bytes({"w": torch.sparse_coo_tensor(torch.eye(2).long(), torch.ones(2), check_invariants=True)}),
        "plain dense weights",
    ),
}


@pytest.mark.parametrize(("name", "kind"), [("s.onnx", "an ONNX file"), ("s.PT2", "a torch.export file")])
def test_exported_programs_are_told_from_weights(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(numpy_archive() if name == "s.PT2" else b"\x08\x0a\x12\x07pytorch" + bytes(64))
    with pytest.raises(CheckpointError, match=f"found {kind}; name the safetensors or torch file"):
        read_checkpoint(tmp_path / name)


def test_the_weights_in_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="name the file inside it"):
        read_checkpoint(tmp_path)
    (tmp_path / "student.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"found a folder; name \S+student\.safetensors$"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_model_file_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    make, told = DAMAGED[case]
    path = tmp_path / "teacher.pt"
    path.write_bytes(make())
    with pytest.raises(CheckpointError, match=told) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damage_anywhere_is_told_in_one_line_or_does_no_harm(tmp_path: Path, form: str) -> None:
    whole = {
        "zip": lambda: torch_bytes({"state_dict": weights()}),
        "legacy": lambda: torch_bytes({"state_dict": weights()}, _use_new_zipfile_serialization=False),
        "safetensors": lambda: safetensors.torch.save(weights()),
    }[form]()
    chance, path = random.Random(0), tmp_path / "a.pt"
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_a_file_that_contains_itself_and_keys_that_are_numbers_do_no_harm(tmp_path: Path) -> None:
    content: dict[Any, Any] = {0: torch.zeros(2)}
    content["model"] = content
    assert read_checkpoint(saved(tmp_path / "a.pt", content)).state.keys() == {"0"}


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing there"):
        read_checkpoint(tmp_path / "no.pt")
    with pytest.raises(CheckpointError, match="a folder"):
        read_checkpoint(tmp_path)


def model() -> NormalisedModel:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    return NormalisedModel(network, MEAN, STD)


def test_a_saved_model_is_read_back_with_its_record(tmp_path: Path) -> None:
    path, original = tmp_path / "s.safetensors", model()
    sha256 = save_model(path, original, RECORD)
    checkpoint = read_checkpoint(path)
    assert checkpoint.record == RECORD
    assert checkpoint.sha256 == sha256
    assert (checkpoint.mean, checkpoint.std, checkpoint.has_normalisation) == (MEAN, STD, True)
    # The prefix "1." and all other keys of our own files stay as they are.
    assert_weights(checkpoint.state, dict(original.network.state_dict()))


def test_saving_leaves_no_other_file_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    path.write_text("old")
    save_model(path, model(), RECORD)
    assert list(tmp_path.iterdir()) == [path]
    assert read_checkpoint(path).record == RECORD


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.safetensors"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(path, model(), RECORD)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    save_model(tmp_path / "s", NormalisedModel(network, MEAN, STD), RECORD)
    assert read_checkpoint(tmp_path / "s").state.keys() == network.state_dict().keys()


def test_a_record_of_another_normalisation_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record"):
        save_model(tmp_path / "s", model(), RECORD.model_copy(update={"mean": None, "std": None}))


def test_a_record_of_a_later_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    later = RECORD.model_dump_json().replace('"format_version":1', '"format_version":2')
    safetensors.torch.save_file(weights(), path, metadata={"kdcompress": later})
    with pytest.raises(CheckpointError, match=r"format_version.*update kdcompress"):
        read_checkpoint(path)


class Net(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)


class Wrapped(nn.Module):
    """A network that normalises its inputs itself and keeps another inside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))
        self.model = Net()


def test_loading_fills_every_weight() -> None:
    network, state = Net(), {key: value + 1 for key, value in Net().state_dict().items()}
    load_state(network, state, what="f")
    assert_weights(dict(network.state_dict()), state)


def test_counters_may_be_missing_or_left_over() -> None:
    state = {key: value for key, value in Net().state_dict().items() if "num_batches" not in key}
    load_state(Net(), {**state, "conv.total_ops": torch.zeros(1)}, what="f")


def test_a_prefix_of_the_network_itself_need_not_be_in_the_file() -> None:
    network, state = Wrapped(), {key: value + 1 for key, value in Net().state_dict().items()}
    load_state(network, {**state, "mean": torch.ones(3), "std": torch.ones(3)}, what="f")
    assert_weights(dict(network.model.state_dict()), state)
    assert torch.equal(network.state_dict()["mean"], torch.ones(3))


def test_what_differs_is_named_with_both_shapes() -> None:
    state = dict(Net().state_dict())
    state["head.weight"] = state.pop("fc.weight")
    state["conv.weight"] = torch.zeros(4, 3, 5, 5)
    network = Net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_state(network, state, what="teacher.pt")
    for told in ("teacher.pt", "missing from the file (fc.weight)", "(head.weight)", "(4, 3, 5, 5)", "(4, 3, 3, 3)"):
        assert told in str(caught.value)
    assert_weights(dict(network.state_dict()), before)


def test_a_wrong_class_count_is_told_as_such() -> None:
    with pytest.raises(CheckpointError, match="the file has 10 classes, the network 2"):
        load_state(Net(), Net(classes=10).state_dict(), what="f")
