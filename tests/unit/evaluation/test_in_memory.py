"""Networks and images in memory are judged as those in files are."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdcompress import (
    CertifySettings,
    CleverSettings,
    CompareSettings,
    DataSettings,
    EvaluateSettings,
    EvaluationSettings,
    GateSettings,
    KdcompressError,
    Listener,
    ModelFile,
    ThreatSettings,
    certify,
    certify_model,
    compare,
    evaluate,
    evaluate_model,
    load_data,
    load_model,
)

TEACHER = Path(str(files("kdcompress") / "assets" / "digits_teacher.safetensors"))
HOW = EvaluationSettings(images=24, attack="pgd-4", certify_images=8, masking=False, device="cpu", n=50, n0=10)
OF_ITS_OWN = {"file_bytes", "latency_ms", "arch", "sha256"}


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    test = load_data("digits", splits=["test"]).test
    assert test is not None
    (batch,) = test.batches(len(test))
    return batch


def test_the_report_is_the_one_of_files_where_images_have_the_same_names(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    named = load_data("digits", splits=["test"]).test
    assert named is not None
    file, data = ModelFile(path=TEACHER), DataSettings(data="digits")
    of_file = evaluate(
        EvaluateSettings(student=file, teacher=None, data=data, threat=ThreatSettings(eps=0.15), evaluation=HOW)
    )
    loaded = load_model(TEACHER)
    for model in (loaded, loaded.model):
        found = evaluate_model(model, digits, eps=0.15, ids=named.ids, evaluation=HOW)
        one, other = (report.models["student"].model_dump(exclude=OF_ITS_OWN) for report in (found, of_file))
        assert one == other
        assert found.data.sha256 == of_file.data.sha256


def test_teacher_and_student_are_compared_image_by_image_and_gates_judged(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    teacher = load_model(TEACHER)
    loader = DataLoader(TensorDataset(*digits), batch_size=100)
    heard: list[str] = []
    report = evaluate_model(
        teacher.model,
        loader,
        eps=["38/255", 0.05],
        teacher=teacher,
        evaluation=HOW,
        gates=GateSettings(max_robust_drop=0.5),
        listener=Listener(attack=lambda name, now: heard.append(name)),
    )
    assert report.paired is not None and report.paired.drop == 0 and report.paired.n == 24
    assert report.gates_met and [gate.name for gate in report.gates] == ["--max-robust-drop"]
    assert [rate.eps for rate in report.models["student"].over_eps] == [0.05, 38 / 255]
    assert set(heard) == {"student", "teacher"}


def test_radii_in_memory_are_those_of_files(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    how = EvaluationSettings(attack="none", device="cpu")
    named = load_data("digits", splits=["test"]).test
    assert named is not None
    found = certify_model(load_model(TEACHER), digits, eps=0.1, ids=named.ids, kinds=["first-order"], evaluation=how)
    settings = CertifySettings(
        student=ModelFile(path=TEACHER),
        teacher=None,
        data=DataSettings(data="digits"),
        threat=ThreatSettings(eps=0.1),
        kinds=("first-order",),
        clever=CleverSettings.for_radii([0.1]),
        evaluation=how,
    )
    everywhere = certify(settings).models["student"].first_order
    here = found.models["student"].first_order
    assert here is not None and here == everywhere and max(here.radii) > 0


@pytest.mark.parametrize(
    ("eps", "classes", "said"),
    [
        ([], None, "a radius or several"),
        (8, None, "did you mean 8/255"),
        (0.1, ["a", "b"], "a different name for each of the 10 classes"),
        (0.1, ["a"] * 10, "a different name"),
    ],
)
def test_what_cannot_be_is_refused(
    digits: tuple[torch.Tensor, torch.Tensor], eps: float, classes: list[str] | None, said: str
) -> None:
    with pytest.raises(KdcompressError, match=said):
        evaluate_model(load_model(TEACHER), digits, eps=eps, classes=classes, evaluation=HOW)


def test_a_student_of_fewer_classes_than_its_teacher_is_refused(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(256, 11))
    with pytest.raises(KdcompressError, match=r"the teacher tells 10 classes apart .* the student 11"):
        evaluate_model(small, digits, eps=0.1, teacher=load_model(TEACHER), evaluation=HOW)


def test_what_was_loaded_is_judged_in_eval_mode_and_left_as_it_is(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    as_it_was = evaluate_model(load_model(TEACHER), digits, eps=0.15, evaluation=HOW).models["student"]
    loaded = load_model(TEACHER)
    loaded.model.train()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    found = evaluate_model(loaded, digits, eps=0.15, evaluation=HOW).models["student"]
    assert found.verdicts == as_it_was.verdicts and found.clean_accuracy == as_it_was.clean_accuracy
    assert loaded.model.training
    assert all(value.equal(before[name]) for name, value in loaded.model.state_dict().items())


def test_a_network_that_was_changed_after_loading_has_another_hash(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    loaded = load_model(TEACHER)
    quick = HOW.model_copy(update={"attack": "none", "certify_images": 0})
    first = evaluate_model(loaded, digits, eps=0.15, evaluation=quick).models["student"].sha256
    with torch.no_grad():
        next(iter(loaded.model.parameters()))[0] += 0.5
    assert evaluate_model(loaded, digits, eps=0.15, evaluation=quick).models["student"].sha256 != first


def test_nothing_is_kept_of_networks_that_only_their_code_tells_apart(
    digits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    kept = HOW.model_copy(update={"keep_dir": tmp_path})
    with pytest.raises(KdcompressError, match="keep_dir is for networks in files"):
        evaluate_model(load_model(TEACHER), digits, eps=0.1, evaluation=kept)


def test_a_student_of_numbers_takes_the_names_of_its_teachers_classes(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    teacher = load_model(TEACHER)
    names = tuple("abcdefghij")
    named = replace(teacher, record=teacher.record.model_copy(update={"classes": names}))
    quick = HOW.model_copy(update={"attack": "none", "certify_images": 0})
    report = evaluate_model(teacher.model, digits, eps=0.1, teacher=named, evaluation=quick)
    assert report.data.classes == names
    with pytest.raises(KdcompressError, match=r"was made for the classes a, b, c, d, \.\.\., got j, i, h, g"):
        evaluate_model(named, digits, eps=0.1, classes=names[::-1], evaluation=quick)


def test_radii_may_be_numbers_of_any_kind(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    quick = HOW.model_copy(update={"attack": "none", "certify_images": 0})
    for eps in (np.float32(0.125), torch.tensor(0.125), "1/8", [0.125]):
        assert evaluate_model(load_model(TEACHER), digits, eps=eps, evaluation=quick).threat_model.eps == 0.125  # type: ignore[arg-type]


def test_an_eps_whose_clever_radius_would_leave_the_ball_of_all_images(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    model = load_model(TEACHER)
    few = {"images": 4, "device": "cpu"}
    found = certify_model(model, digits, eps=0.6, kinds=("clever",), evaluation=EvaluationSettings(**few))  # type: ignore[arg-type]
    clever = found.models["student"].clever
    assert clever is not None and clever.R == 1.0
    with pytest.raises(KdcompressError, match=r"--clever-radius must be in \(0, 1\] under Linf, got 1.2"):
        certify_model(
            model,
            digits,
            eps=0.1,
            kinds=("clever",),
            clever=CleverSettings(clever_radius=1.2),
            evaluation=EvaluationSettings(**few),  # type: ignore[arg-type]
        )


class Blind(nn.Module):
    """A network without gradients."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = self.inner(x)
        return logits


def test_the_propositions_are_not_audited_where_a_network_has_no_gradients(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Every search would stay where it is, and every premise seem to hold."""
    teacher = load_model(TEACHER)
    how = EvaluationSettings(images=8, device="cpu", n=50, n0=10)
    found = certify_model(
        Blind(teacher.model).eval(), digits, eps=0.1, teacher=teacher, kinds=("smoothing",), evaluation=how
    )
    assert found.audit is None and found.models["student"].smoothing is not None
    assert "the propositions: not measured: no gradients of the student" in found.notes


def test_what_was_made_for_images_of_another_size_is_refused_as_it_is_from_files(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    x, y = digits
    larger = nn.functional.interpolate(x[:8], scale_factor=2)
    how = EvaluationSettings(attack="none", certify_images=0, device="cpu")
    with pytest.raises(KdcompressError, match="images of 1x16x16, which it was made for, found 1x32x32; resize them"):
        evaluate_model(load_model(TEACHER), (larger, y[:8]), eps=0.1, evaluation=how)


def test_reports_on_other_images_in_memory_are_not_compared(
    digits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    x, y = digits
    how = EvaluationSettings(attack="none", certify_images=0, device="cpu")
    paths = []
    for name, part in (("a", slice(0, 20)), ("b", slice(20, 40)), ("c", slice(0, 20))):
        paths.append(tmp_path / f"{name}.json")
        found = evaluate_model(load_model(TEACHER), (x[part], y[part]), eps=0.1, evaluation=how)
        paths[-1].write_text(found.model_dump_json())
    other, same = (compare(CompareSettings(reports=(paths[0], one))).against_baseline[0] for one in paths[1:])
    assert other.clean_drop is None and "other images in memory" in " ".join(other.not_comparable)
    assert same.clean_drop is not None
