"""The demo's verdict and sentence, its picture, and the whole of it with budgets that take seconds."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kdcompress.demo import LEAST_SHARE, demo, share_gate
from kdcompress.errors import UsageError
from kdcompress.render.console import sentence
from kdcompress.render.plots import draw_accuracies, refuse_format
from kdcompress.report import DataRecord, ModelReport, Rate, Report, RobustRate, ThreatRecord
from kdcompress.settings import DemoSettings, EvaluationSettings, RunSettings, ThreatSettings


def model(params: int, robust: float) -> ModelReport:
    return ModelReport(
        arch="resnet18",
        params=params,
        macs=1_000_000,
        file_bytes=500_000,
        latency_ms=1.0,
        sha256="0",
        clean_accuracy=Rate(value=0.98, low=0.93, high=0.99, n=100),
        robust_accuracy=RobustRate(
            value=robust,
            low=robust - 0.08,
            high=robust + 0.08,
            n=100,
            attack="AutoAttack standard",
            stages=("apgd-ce",),
            chunk=100,
        ),
        certified=None,
    )


def report(teacher: float = 0.6, kd: float = 0.05, kdiga: float = 0.48) -> Report:
    return Report(
        threat_model=ThreatRecord(norm="Linf", eps=0.15),
        data=DataRecord(name="digits", images=100, of=360, seed=0, classes=("0", "1"), sha256="0"),
        device="cpu",
        models={"teacher": model(240_000, teacher), "kd": model(60_000, kd), "kdiga": model(60_000, kdiga)},
        paired=None,
        gates=(),
        notes=(),
        settings={},
        versions={},
        seconds=300,
    )


@pytest.mark.parametrize(
    ("kdiga", "met", "undecided"),
    [(0.60, True, False), (0.43, True, True), (0.42, True, True), (0.41, False, True), (0.30, False, False)],
)
def test_the_gate_asks_for_a_share_of_the_teachers_robust_accuracy(kdiga: float, met: bool, undecided: bool) -> None:
    gate = share_gate(report(kdiga=kdiga).models)
    assert gate.value == pytest.approx(kdiga / 0.6)
    assert (gate.low, gate.high) == (pytest.approx((kdiga - 0.08) / 0.6), pytest.approx((kdiga + 0.08) / 0.6))
    assert (gate.threshold, gate.met, gate.undecided) == (LEAST_SHARE, met, undecided)


def test_the_sentence_has_the_figures_of_the_table() -> None:
    text = sentence(report())
    assert re.findall(r"[\d.]+(?:%| times)", text) == ["4.0 times", "5%", "48%", "80%", "60%"]


def test_a_teacher_without_any_robustness_gives_a_sentence_and_a_missed_gate() -> None:
    lost = report(teacher=0.0, kdiga=0.0)
    assert "0% of the teacher's 0%" in sentence(lost)
    assert not share_gate(lost.models).met


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_the_picture_is_drawn_in_the_format_of_its_name(suffix: str) -> None:
    assert draw_accuracies(report(), suffix)[:5] == {".svg": b"<?xml", ".png": b"\x89PNG\r", ".pdf": b"%PDF-"}[suffix]


def test_the_picture_names_models_attack_and_threat() -> None:
    comments = draw_accuracies(
        report(), ".svg"
    ).decode()  # matplotlib draws text as paths and keeps the words in comments
    assert ElementTree.fromstring(comments).tag.endswith("svg")
    for words in ("under AutoAttack standard", "60,000 parameters", "Linf 0.15", "100 test images", "48%"):
        assert words in comments, words


def test_a_picture_of_no_known_format_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"--picture must end in \.png"):
        refuse_format(Path("demo.bmp"))


def test_the_whole_demo_measures_three_networks_and_compares_two() -> None:
    defaults = DemoSettings()
    brief = DemoSettings(
        threat=ThreatSettings(eps=0.02),
        run=RunSettings.of(**(defaults.run.model_dump() | {"epochs": 1, "device": "cpu"})),
        evaluation=EvaluationSettings(images=48, attack="pgd-3", certify_images=0, device="cpu"),
    )
    result = demo(brief)
    assert list(result.models) == ["teacher", "kd", "kdiga"]
    assert {found.robust_accuracy.attack for found in result.models.values() if found.robust_accuracy} == {"PGD-3"}
    teacher, kd, kdiga = result.models.values()
    assert teacher.clean_accuracy.value > 0.9 and teacher.params > 1.5 * kdiga.params
    assert (kd.params, kd.macs) == (kdiga.params, kdiga.macs) and kd.sha256 != kdiga.sha256
    assert result.paired is not None and result.paired.n == 48
    kept = {
        name: round(48 * found.robust_accuracy.value) for name, found in result.models.items() if found.robust_accuracy
    }
    assert kept["kd"] != kept["kdiga"], "the comparison could be with either"
    assert result.paired.both_kept + result.paired.teacher_only == kept["teacher"]
    assert result.paired.both_kept + result.paired.student_only == kept["kdiga"]
    assert [gate.model for gate in result.gates] == ["kdiga"] and not result.gates_met
