"""Gates: met, missed and undecided, by the point estimate and by the conservative end of the interval."""

from pathlib import Path

import pytest

from kdcompress.errors import UsageError
from kdcompress.gates import judge, refuse_impossible
from kdcompress.report import DataRecord, Gate, ModelReport, Paired, Rate, Report, RobustRate, ThreatRecord
from kdcompress.settings import (
    DataSettings,
    EvaluateSettings,
    EvaluationSettings,
    GateSettings,
    ModelFile,
    ThreatSettings,
)


def model(clean: Rate, robust: Rate) -> ModelReport:
    return ModelReport(
        arch="net",
        params=1000,
        macs=1,
        file_bytes=1,
        latency_ms=1.0,
        sha256="0",
        clean_accuracy=clean,
        robust_accuracy=RobustRate(**robust.model_dump(), attack="PGD-3"),
        certified=None,
    )


NET = model(Rate(value=0.8, low=0.7, high=0.9, n=100), Rate(value=0.5, low=0.4, high=0.6, n=100))
DROP = Paired(both_kept=50, teacher_only=10, student_only=0, both_lost=40, drop=0.1, low=0.05, high=0.2, n=100)


def only(**asked: object) -> Gate:
    (gate,) = judge(GateSettings.of(**asked), "student", NET, DROP)
    return gate


# The rate is .8 in [.7, .9]; the drop is .1 in [.05, .2]; there are 1000 parameters.
@pytest.mark.parametrize(
    ("name", "threshold", "by_point", "by_bound", "undecided"),
    [
        ("min_clean_accuracy", 0.69, True, True, False),
        ("min_clean_accuracy", 0.7, True, True, False),
        ("min_clean_accuracy", 0.71, True, False, True),
        ("min_clean_accuracy", 0.8, True, False, True),
        ("min_clean_accuracy", 0.81, False, False, True),
        ("min_clean_accuracy", 0.9, False, False, True),
        ("min_clean_accuracy", 0.91, False, False, False),
        ("min_robust_accuracy", 0.4, True, True, False),
        ("min_robust_accuracy", 0.5, True, False, True),
        ("min_robust_accuracy", 0.51, False, False, True),
        ("min_robust_accuracy", 0.61, False, False, False),
        ("max_robust_drop", 0.21, True, True, False),
        ("max_robust_drop", 0.2, True, True, False),
        ("max_robust_drop", 0.19, True, False, True),
        ("max_robust_drop", 0.1, True, False, True),
        ("max_robust_drop", 0.09, False, False, True),
        ("max_robust_drop", 0.05, False, False, True),
        ("max_robust_drop", 0.04, False, False, False),
        ("max_params", 1000, True, True, False),
        ("max_params", 999, False, False, False),
    ],
)
def test_a_gate_is_judged_at_its_edges(
    name: str, threshold: float, by_point: bool, by_bound: bool, undecided: bool
) -> None:
    point, bound = only(**{name: threshold}), only(**{name: threshold}, gate_on="bound")
    assert (point.met, bound.met) == (by_point, by_bound)
    assert (point.undecided, bound.undecided) == (undecided, undecided)
    assert (point.decided_by, bound.decided_by) == ("point", "bound")
    assert point.name == f"--{name}".replace("_", "-")
    assert point.threshold == threshold


def test_a_gate_reports_the_figure_it_was_judged_on() -> None:
    assert [
        (gate.value, gate.low, gate.high, gate.model)
        for gate in judge(
            GateSettings(min_clean_accuracy=0.1, min_robust_accuracy=0.1, max_robust_drop=0.9, max_params=5),
            "student",
            NET,
            DROP,
        )
    ] == [
        (0.8, 0.7, 0.9, "student"),
        (0.5, 0.4, 0.6, "student"),
        (0.1, 0.05, 0.2, "student"),
        (1000, 1000, 1000, "student"),
    ]


def test_without_gates_nothing_is_judged_and_a_report_counts_as_met() -> None:
    assert judge(GateSettings(), "student", NET, DROP) == ()
    assert report(()).gates_met


def test_one_missed_gate_among_met_ones_misses() -> None:
    met, missed = only(max_params=1000), only(max_params=999)
    assert report((met,)).gates_met
    assert not report((met, missed)).gates_met
    assert not report((missed, met)).gates_met


def report(gates: tuple[Gate, ...]) -> Report:
    return Report(
        threat_model=ThreatRecord(norm="Linf", eps=0.1),
        data=DataRecord(name="digits", images=1, of=1, seed=0, classes=("0", "1")),
        device="cpu",
        models={"student": NET},
        gates=gates,
        settings={},
        versions={},
        seconds=0,
    )


def asked(attack: str, student: bool, teacher: bool, **gates: object) -> EvaluateSettings:
    file = ModelFile(path=Path("model.pt"))
    return EvaluateSettings(
        student=file if student else None,
        teacher=file if teacher else None,
        data=DataSettings(data="digits"),
        threat=ThreatSettings(eps=0.1),
        evaluation=EvaluationSettings.of(attack=attack),
        gates=GateSettings.of(**gates),
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (asked("none", True, True, min_robust_accuracy=0.0), "--min-robust-accuracy"),
        (asked("none", True, True, max_robust_drop=0.5), "--max-robust-drop"),
        (asked("pgd-3", True, False, max_robust_drop=0.5), "--max-robust-drop"),
        (asked("pgd-3", False, True, max_robust_drop=0.5), "--max-robust-drop"),
    ],
)
def test_a_gate_on_a_figure_that_will_not_be_measured_is_refused(settings: EvaluateSettings, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        refuse_impossible(settings)


@pytest.mark.parametrize(
    "settings",
    [
        asked("none", True, False, min_clean_accuracy=0.5, max_params=3),
        asked("autoattack", True, False, min_robust_accuracy=0.5),
        asked("pgd-3", True, True, max_robust_drop=0.5),
    ],
)
def test_a_gate_on_a_figure_that_will_be_measured_is_not(settings: EvaluateSettings) -> None:
    refuse_impossible(settings)
