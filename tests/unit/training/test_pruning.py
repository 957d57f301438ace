"""Channels are taken as asked, and what is left is rebuilt from its file, taught, and taken up again."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdcompress.data import load_data
from kdcompress.errors import CheckpointError, UsageError
from kdcompress.models.checkpoints import save_model
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.students import create_student
from kdcompress.models.teachers import load_model
from kdcompress.settings import DistillSettings, PruneSettings, TeachingSettings
from kdcompress.training import pruning, runs
from kdcompress.training.pruning import pruned_student, without_channels
from kdcompress.training.run_record import RunRecord

FAMILIES = {
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)},
    "mobilenetv3_small_050": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)},
    "regnetx_002": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3},
}
STATISTICS = {"mean": (0.3, 0.3, 0.3), "std": (0.2, 0.2, 0.2)}


def written(path: Path, arch: str, side: int = 32, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model, record = create_student(arch, FAMILIES[arch], classes="012", input_size=(3, side, side), **STATISTICS)
    save_model(path, model, record)
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("student") / "student.safetensors", "resnet18", side=8)


@pytest.fixture
def pruning_of(distilling: Callable[..., DistillSettings], student: Path) -> Callable[..., PruneSettings]:
    def settings(ratio: float = 0.5, file: Path = student, **run: object) -> PruneSettings:
        own = distilling(**run)
        shared = {name: getattr(own, name) for name in TeachingSettings.model_fields}
        return PruneSettings(student=file, ratio=ratio, **shared)

    return settings


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_file_of_what_is_left_is_rebuilt_bit_by_bit(arch: str, tmp_path: Path) -> None:
    """In every family that is pruned, twice in a row."""
    path = written(tmp_path / "whole.safetensors", arch)
    images = SimpleNamespace(classes=("0", "1", "2"), input_size=(3, 32, 32))
    x = torch.rand(2, 3, 32, 32)
    costs = [macs(load_model(path).model, (3, 32, 32))]
    for turn in range(2):
        settings = SimpleNamespace(student=path, ratio=0.4)
        network, record, told = pruned_student(settings, images)  # type: ignore[arg-type]
        assert (told.macs_before, 0 < told.channels < 1) == (costs[-1], True)
        costs.append(macs(network, (3, 32, 32)))
        assert costs[-1] <= 0.6 * costs[-2]
        path = tmp_path / f"{turn}.safetensors"
        save_model(path, network, record)
        again = load_model(path)
        assert torch.equal(again.model(x), network.eval()(x))
        assert parameter_count(again.model) == parameter_count(network)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_as_much_is_taken_as_was_asked_and_hardly_more(
    pruning_of: Callable[..., PruneSettings], ratio: float, folder: Path
) -> None:
    settings = pruning_of(ratio)
    network, record, told = pruned_student(settings, load_data(str(folder), splits=["train"]))
    taken = 1 - macs(network, record.input_size) / told.macs_before
    assert ratio <= taken < ratio + 0.12  # layers of eight channels lose them one by one


def test_the_smallest_weights_go_first(student: Path) -> None:
    whole = load_model(student)
    conv = whole.model.network.get_submodule("layer1.0.conv1")  # type: ignore[union-attr]
    with torch.no_grad():
        conv.weight[[1, 4]] *= 1e-3  # type: ignore[index]
    left = without_channels(whole, 0.25).network.get_submodule("layer1.0.conv1").weight
    assert left.shape[0] == 6  # type: ignore[union-attr]
    assert left.flatten(1).norm(dim=1).min() > 1e-1  # type: ignore[union-attr, operator]


def test_what_is_left_is_taught_and_the_record_says_what_was_taken(
    pruning_of: Callable[..., PruneSettings], tmp_path: Path, student: Path
) -> None:
    record = runs.prune(pruning_of(), tmp_path / "out")
    assert record.pruned is not None and record.pruned.path == str(student)
    assert record.compression.macs <= 0.5 * record.pruned.macs_before
    assert record.compression.params == parameter_count(load_model(tmp_path / "out" / "student.safetensors").model)
    kept = RunRecord.model_validate_json((tmp_path / "out" / "student.json").read_bytes())
    assert kept.pruned == record.pruned
    assert (tmp_path / "out" / "run.toml").read_text().startswith("# kdcompress prune --config FILE")


def test_stopped_and_taken_up_again_it_ends_with_the_same_weights(
    pruning_of: Callable[..., PruneSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pruning_of()
    whole = runs.prune(settings, tmp_path / "whole")
    told: list[str] = []
    listener = runs.Listener(note=told.append)
    real, seen = runs.train_network, []

    def cut(*args: object, **more: object) -> object:
        seen.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train_network", cut)
    with pytest.raises(KeyboardInterrupt):
        runs.prune(settings, tmp_path / "again")
    monkeypatch.setattr(runs, "train_network", real)
    again = runs.prune(settings, tmp_path / "again", resume=True, listener=listener)
    assert seen and again.sha256 == whole.sha256


def test_another_student_is_not_gone_on_with(
    pruning_of: Callable[..., PruneSettings], tmp_path: Path, student: Path
) -> None:
    runs.prune(pruning_of(epochs=1), tmp_path / "out")
    other = written(tmp_path / "other.safetensors", "resnet18", side=8, seed=1)
    with pytest.raises(UsageError, match="already holds a run"):
        runs.prune(pruning_of(epochs=1, file=other), tmp_path / "out", resume=True)
    other.write_bytes(student.read_bytes())  # the same one at another place
    again = runs.prune(pruning_of(epochs=1, file=other), tmp_path / "out", resume=True)
    assert again.pruned is not None and again.pruned.path == str(student)


def test_what_cannot_be_made_so_small_is_said(pruning_of: Callable[..., PruneSettings], folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no more than 0\.\d\d of the multiply-accumulates"):
        pruned_student(pruning_of(0.9999), load_data(str(folder), splits=["train"]))


def test_pruned_again_and_again_a_student_is_refused_before_its_file_could_not_be_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = SimpleNamespace(classes=("0", "1", "2"), input_size=(3, 32, 32))
    model, record = create_student("resnet18", {}, classes="012", input_size=(3, 32, 32), **STATISTICS)
    path = tmp_path / "0.safetensors"
    save_model(path, model, record)
    for turn in range(1, 9):
        try:
            settings = SimpleNamespace(student=path, ratio=0.8)
            network, record, _ = pruned_student(settings, images)  # type: ignore[arg-type]
        except UsageError as error:
            assert "a 32th of the weights of resnet18 as it is before any pruning" in str(error)
            break
        path = tmp_path / f"{turn}.safetensors"
        save_model(path, network, record)
        load_model(path)
    assert 1 < turn < 8


def test_files_of_others_are_refused(pruning_of: Callable[..., PruneSettings], tmp_path: Path, folder: Path) -> None:
    torch.save({"weight": torch.rand(3, 3)}, tmp_path / "bare.pt")
    with pytest.raises(CheckpointError, match="expected a student that kdcompress trained"):
        pruned_student(pruning_of(file=tmp_path / "bare.pt"), load_data(str(folder), splits=["train"]))


def test_an_architecture_that_cannot_be_followed_is_refused_in_one_line(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_model(student)
    monkeypatch.setattr(pruning, "_classifiers", lambda network: [None.missing])  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"resnet18 cannot be pruned by torch-pruning: .*missing"):
        without_channels(whole, 0.5)
