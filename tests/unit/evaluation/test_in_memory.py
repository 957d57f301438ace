"""Networks and images in memory are judged as those in files are."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdcompress import (
    CertifySettings,
    CleverSettings,
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
    digits: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdcompress.evaluation import in_memory

    named = load_data("digits", splits=["test"]).test
    assert named is not None
    split_of = in_memory.split_from_arrays
    monkeypatch.setattr(in_memory, "split_from_arrays", lambda data: split_of(data, named.ids))
    file, data = ModelFile(path=TEACHER), DataSettings(data="digits")
    of_file = evaluate(
        EvaluateSettings(student=file, teacher=None, data=data, threat=ThreatSettings(eps=0.15), evaluation=HOW)
    )
    loaded = load_model(TEACHER)
    for model in (loaded, loaded.model):
        found = evaluate_model(model, digits, eps=0.15, evaluation=HOW)
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
    few = digits[0][:12], digits[1][:12]
    found = certify_model(load_model(TEACHER), few, eps=0.1, kinds=["first-order"], evaluation=how)
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
    assert here is not None and everywhere is not None
    assert here.n == 12 and everywhere.n == 360
    assert max(here.radii) <= max(everywhere.radii)


@pytest.mark.parametrize(
    ("eps", "classes", "said"),
    [
        ([], None, "a radius or several"),
        (8, None, "did you mean 8/255"),
        (0.1, ["a", "b"], "10 classes apart, the data has 10|tells 10 classes"),
    ],
)
def test_what_cannot_be_is_refused(
    digits: tuple[torch.Tensor, torch.Tensor], eps: float, classes: list[str] | None, said: str
) -> None:
    with pytest.raises(KdcompressError, match=said):
        evaluate_model(load_model(TEACHER), digits, eps=eps, classes=classes, evaluation=HOW)


def test_a_student_of_fewer_classes_than_its_teacher_is_refused(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(256, 11))
    with pytest.raises(KdcompressError, match="the teacher tells 10 classes apart, the data has 11"):
        evaluate_model(small, digits, eps=0.1, teacher=load_model(TEACHER), evaluation=HOW)
