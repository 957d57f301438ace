"""A whole export: what is written, what is refused, and what int8 is said to cost."""

from pathlib import Path

import pytest
import torch

from kdcompress.data import Data
from kdcompress.errors import ExportError, UsageError
from kdcompress.export import exporting
from kdcompress.export.exporting import export_model
from kdcompress.export.programs import Program, onnx_runtime
from kdcompress.export.record import Export
from kdcompress.settings import DataSettings, EvaluationSettings, ExportSettings, ModelFile, ThreatSettings

from .conftest import TEACHER  # type: ignore[import-not-found]

FEW = EvaluationSettings(images=24, attack="pgd-5", certify_images=0, masking=False, device="cpu")


def settings(**changes: object) -> ExportSettings:
    given = {"model": ModelFile(path=TEACHER), "data": DataSettings(data="digits"), "evaluation": FEW}
    return ExportSettings.model_validate(given | changes)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, Path]:
    out = tmp_path_factory.mktemp("int8") / "net.onnx"
    return export_model(settings(int8=True, threat=ThreatSettings(eps=0.2), max_robust_drop=0.5), out), out


def test_what_is_not_kept_where_int8_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is at its place when all that was asked for is known of it."""
    (tmp_path / "net.onnx").write_bytes(b"before")
    asked = settings(int8=True, threat=ThreatSettings(eps=0.2))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_beside_float", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(asked, tmp_path / "net.onnx")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"before"]


def test_a_device_that_is_not_there_is_refused_before_anything_is_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "quantised", lambda *_: pytest.fail("rounded"))
    away = FEW.model_copy(update={"device": "cuda:99"})
    with pytest.raises(UsageError, match="--device"):
        export_model(settings(int8=True, threat=ThreatSettings(eps=0.2), evaluation=away), tmp_path / "net.onnx")


def test_what_was_not_measured_is_noted(tmp_path: Path) -> None:
    found = export_model(settings(threat=ThreatSettings(eps=0.2)), tmp_path / "net.onnx")
    assert any(note.startswith("--eps is for --int8: nothing was attacked") for note in found.notes)
    quiet = settings(int8=True, calibration_images=20, evaluation=FEW.model_copy(update={"attack": "none"}))
    found = export_model(quiet, tmp_path / "net.onnx")
    assert any("was not measured" in note for note in found.notes)


def test_how_much_is_rounded_and_how_large_both_files_are(int8: tuple[Export, Path]) -> None:
    found = int8[0].int8
    assert found is not None
    assert found.rounded == (15, 15)  # three convolutions of the stem, two a block, three shortcuts, and the classifier
    assert found.int8.file_bytes == int8[1].stat().st_size < found.float.file_bytes


def test_a_copy_that_is_another_function_is_no_surrogate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "straight_through", lambda rounded: Program(lambda x: rounded(x) + 0.5))
    with pytest.raises(ExportError, match=r"straight-through copy differs from the rounded network by up to 0\.5"):
        export_model(settings(int8=True, threat=ThreatSettings(eps=0.2)), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_a_file_is_written_and_said_to_answer_as_the_network(form: str, tmp_path: Path) -> None:
    found = export_model(settings(format=form), tmp_path / "net")
    assert (tmp_path / "net").stat().st_size == found.file_bytes
    assert [(one.on, one.n, one.labels_differ) for one in found.agreements] == [("real", 24, 0), ("random", 10, 0)]
    assert (found.opset, found.input) == (
        18 if form == "onnx" else None,
        "images: float32 (batch, 1, 16, 16), in [0,1]",
    )
    assert found.tolerance is not None and found.int8 is None and found.gates_met


def test_a_file_that_answers_otherwise_is_not_kept_and_what_was_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wrong(content: bytes, settings: ExportSettings) -> Program:
        return Program(lambda x: onnx_runtime(content)(x) + 0.1)

    monkeypatch.setattr(exporting, "_runtime", wrong)
    (tmp_path / "net.onnx").write_bytes(b"before")
    with pytest.raises(ExportError, match=r"logits differ by up to 0\.1"):
        export_model(settings(), tmp_path / "net.onnx")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"before"]


def test_int8_is_measured_beside_its_parent_on_the_same_images(int8: tuple[Export, Path]) -> None:
    found = int8[0].int8
    assert found is not None and found.robust is not None
    assert found.float.robust_accuracy is not None and found.int8.robust_accuracy is not None
    assert found.clean.n == found.robust.n == found.float.robust_accuracy.n == 24
    assert found.float.params == found.int8.params and found.float.macs == found.int8.macs
    assert found.robust.drop == pytest.approx(found.float.robust_accuracy.value - found.int8.robust_accuracy.value)
    assert [gate.met for gate in int8[0].gates] == [True]


def test_what_has_no_gradients_is_attacked_by_way_of_what_has(int8: tuple[Export, Path]) -> None:
    """What the copy and the parent give away breaks the file nearly as often as the parent itself is broken."""
    found = int8[0].int8
    assert found is not None and found.int8.robust_accuracy is not None and found.float.robust_accuracy is not None
    stages = found.int8.robust_accuracy.stages
    copied = ["pgd-5 on surrogate 1", "pgd-100 on surrogate 1"]
    assert stages == (*copied, "pgd-5 on surrogate 2", "pgd-100 on surrogate 2", "square")
    assert "straight-through copy" in (found.int8.robust_accuracy.surrogate or "")
    by_transfer = sum(found.int8.verdicts.count(str(stage)) for stage in range(4))
    broken = sum(found.float.verdicts.count(str(stage)) for stage in range(3))
    assert broken >= 6  # or there is nothing to see
    assert by_transfer >= broken - 2


def test_masking_is_looked_for_on_the_copy_which_has_gradients(tmp_path: Path) -> None:
    looking = FEW.model_copy(update={"masking": True, "images": 8})
    found = export_model(
        settings(int8=True, threat=ThreatSettings(eps=0.2), evaluation=looking), tmp_path / "net.pt2"
    ).int8
    assert found is not None and found.int8.masking is not None
    assert not any("differentiably" in reason for reason in found.int8.masking.reasons)


def test_an_attack_that_treats_the_two_unlike_is_noted(int8: tuple[Export, Path]) -> None:
    assert any("Square attacks int8 alone" in note for note in int8[0].notes)


def test_ranges_are_read_from_training_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits: Data) -> None:
    seen: list[torch.Tensor] = []
    real = exporting.quantised

    def watched(program: object, calibration: object) -> object:
        seen.extend(calibration)  # type: ignore[arg-type]
        return real(program, seen)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "quantised", watched)
    quiet = FEW.model_copy(update={"attack": "none"})
    export_model(settings(int8=True, calibration_images=40, evaluation=quiet), tmp_path / "net.onnx")
    images = torch.cat(seen)
    assert digits.test is not None and len(images) == 40
    test = next(digits.test.batches(len(digits.test)))[0]
    assert not any((image == test).flatten(1).all(1).any() for image in images)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"int8": True}, "name --eps"),
        ({"max_robust_drop": 0.1}, "--max-robust-drop is for --int8"),
        (
            {"int8": True, "max_robust_drop": 0.1, "evaluation": EvaluationSettings(attack="none")},
            "--max-robust-drop needs an attack",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settings(**changes)
