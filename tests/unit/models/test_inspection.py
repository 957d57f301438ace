"""What a model file is said to be, whatever wraps it, and what has to be said beside it."""

import os
import shlex
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch

from kdcompress.errors import CheckpointError
from kdcompress.models.checkpoints import save_model
from kdcompress.models.inspection import inspect
from kdcompress.models.layouts import LAYOUTS, UNREADABLE, build_layout
from kdcompress.models.students import create_student
from kdcompress.training.pruning import pruned_student


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", LAYOUTS)  # those of the CIFAR-10 leaderboard's common architectures
def test_a_layout_is_recognised_and_nothing_more_is_asked_for(tmp_path: Path, name: str) -> None:
    with torch.device("meta"):
        shapes = build_layout(name, {UNREADABLE[name]: "silu"} if name in UNREADABLE else {}).state_dict()
    state = {f"module.{key}": torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}
    found = inspect(saved(tmp_path / "m.pt", {"state_dict": state}))
    assert (found.arch, found.origin, found.classes, found.normalised) == (name, "state_dict", 10, False)
    assert "--teacher-arch" not in found.command and "--teacher-mean MEAN" in found.command
    assert ("activation=NAME" in found.command) == name.startswith("deepmind")


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_timms_networks_are_found_by_their_weights(tmp_path: Path, name: str) -> None:
    network = timm.create_model(name, num_classes=7)
    found = inspect(saved(tmp_path / "m.pt", network.state_dict()))
    assert name in (found.arch, *found.others) and found.classes == 7
    assert f"--teacher-arch {found.arch}" in found.command
    assert found.parameters == sum(weight.numel() for weight in network.parameters())


def test_averaged_weights_and_stored_normalisation_are_said(tmp_path: Path) -> None:
    state = build_layout("cifar_resnet", {}).state_dict()
    buffers = {"normalize.mean": torch.tensor([0.5, 0.4, 0.3]), "normalize.std": torch.tensor([0.2, 0.2, 0.1])}
    found = inspect(saved(tmp_path / "m.pt", {"model_ema": {f"model.{k}": v for k, v in state.items()} | buffers}))
    assert found.averaged and found.normalised and found.missing == ()
    assert found.mean == pytest.approx((0.5, 0.4, 0.3)) and "MEAN" not in found.command


def test_what_is_not_recognised_asks_for_its_architecture(tmp_path: Path) -> None:
    found = inspect(saved(tmp_path / "my file.pt", {"a.weight": torch.zeros(4, 3), "b.weight": torch.zeros(2, 4)}))
    assert found.arch is None and found.classes == 2 and len(found.missing) == 2
    assert "--teacher-arch ARCH" in found.command and shlex.split(found.command)[3] == str(tmp_path / "my file.pt")


def test_a_file_of_ours_asks_for_nothing() -> None:
    found = inspect(Path(str(files("kdcompress") / "assets" / "digits_teacher.safetensors")))
    assert found.kdcompress and found.missing == () and found.input_size == (1, 16, 16) and found.classes == 10


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pt").write_text("<!doctype html>")
    with pytest.raises(CheckpointError, match="probably a failed download"):
        inspect(tmp_path / "page.pt")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match="found a pipe or device"):
        inspect(tmp_path / "pipe.pt")


def test_a_pruned_network_is_said_to_be_one(tmp_path: Path) -> None:
    whole, record = create_student(
        "resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}, classes="ab", input_size=(3, 8, 8), **HALF
    )
    save_model(tmp_path / "whole.safetensors", whole, record)
    assert not inspect(tmp_path / "whole.safetensors").pruned
    settings = SimpleNamespace(student=tmp_path / "whole.safetensors", ratio=0.5)
    data = SimpleNamespace(classes=("a", "b"), input_size=(3, 8, 8))
    left, smaller, _ = pruned_student(settings, data)  # type: ignore[arg-type]
    save_model(tmp_path / "left.safetensors", left, smaller)
    assert inspect(tmp_path / "left.safetensors").pruned


HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
