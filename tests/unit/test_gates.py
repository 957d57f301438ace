"""Gates: met, missed and undecided, by the point estimate and by the conservative end of the interval."""

from pathlib import Path
from typing import Any

import pytest

from kdcompress.certification import CertifiedModel
from kdcompress.errors import UsageError
from kdcompress.gates import certification_gates, judge, refuse_impossible, refuse_uncertifiable
from kdcompress.maths.intervals import clopper_pearson, paired_difference
from kdcompress.maths.sequential import decide
from kdcompress.report import (
    Certified,
    CertifiedRate,
    DataRecord,
    FirstOrder,
    Gate,
    Masking,
    MaskingCheck,
    ModelReport,
    Paired,
    Rate,
    Report,
    RobustRate,
    Smoothing,
    ThreatRecord,
    Verified,
    VerifiedAt,
)
from kdcompress.settings import (
    CertifyGates,
    CertifySettings,
    CleverSettings,
    DataSettings,
    EvaluateSettings,
    EvaluationSettings,
    GateSettings,
    ModelFile,
    ThreatSettings,
)


def model(clean: Rate, robust: Rate) -> ModelReport:
    half = CertifiedRate(value=0.6, low=0.5, high=0.7, n=100, radius=0.3)
    return ModelReport(
        arch="net",
        params=1000,
        macs=500,
        file_bytes=1,
        latency_ms=2.5,
        sha256="0",
        clean_accuracy=clean,
        robust_accuracy=RobustRate(**robust.model_dump(), attack="PGD-3", stages=("pgd",), chunk=100),
        certified=Certified(
            first_order=FirstOrder(norm="Linf", median=0.1, n=100),
            smoothing=Smoothing(
                sigma=0.25,
                n0=10,
                n=100,
                alpha=0.001,
                cap=0.4,
                abstained=0,
                at=(half.model_copy(update={"value": 0.9, "radius": 0.0}), half),
            ),
        ),
    )


NET = model(Rate(value=0.8, low=0.7, high=0.9, n=100), Rate(value=0.5, low=0.4, high=0.6, n=100))
DROP = Paired(
    both_kept=50,
    teacher_only=10,
    student_only=0,
    both_lost=40,
    drop=0.1,
    low=0.05,
    high=0.2,
    p_value=0.002,
    within=0.03,
    preserved=False,
    n=100,
)
CHECK = MaskingCheck(
    name="zero gradients", statistic=0.9, threshold=0.1, flagged=True, finding="90% of gradients are zero", source="us"
)
MASKED = NET.model_copy(update={"masking": Masking(checks=(CHECK,), n=100, seconds=1.0)})


def only(**asked: object) -> Gate:
    (gate,) = judge(GateSettings.of(**asked), "student", {"student": NET, "teacher": NET}, DROP)
    return gate


# The rate is .8 in [.7, .9]; there are 1000 parameters.
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
        ("max_params", 1000, True, True, False),
        ("max_params", 999, False, False, False),
        ("max_macs", 500, True, True, False),
        ("max_macs", 499, False, False, False),
        ("max_latency_ms", 2.5, True, True, False),
        ("max_latency_ms", 2.4, False, False, False),
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


# The drop is .1 in [.05, .2].
@pytest.mark.parametrize("gate_on", ["point", "bound"])
@pytest.mark.parametrize(
    ("threshold", "met", "undecided"),
    [(0.21, True, False), (0.2, True, False), (0.19, False, True), (0.05, False, True), (0.04, False, False)],
)
def test_the_robust_drop_is_judged_by_its_upper_end_whatever_gate_on_says(
    gate_on: str, threshold: float, met: bool, undecided: bool
) -> None:
    gate = only(max_robust_drop=threshold, gate_on=gate_on)
    assert (gate.met, gate.undecided, gate.decided_by) == (met, undecided, "bound")


# At radius .3 the rate is .6 in [.5, .7].
@pytest.mark.parametrize(
    ("demand", "by_point", "by_bound"),
    [("0.3:0.5", True, True), ("0.3:0.6", True, False), ("0.3:0.65", False, False), ("0:0.65", True, False)],
)
def test_certified_accuracy_is_judged_at_the_radius_that_is_asked_for(
    demand: str, by_point: bool, by_bound: bool
) -> None:
    point, bound = only(min_certified_accuracy=demand), only(min_certified_accuracy=demand, gate_on="bound")
    assert (point.met, bound.met) == (by_point, by_bound)
    assert point.name == f"--min-certified-accuracy {demand}"


def test_a_radius_that_was_not_measured_is_a_bug_and_no_met_gate() -> None:
    with pytest.raises(LookupError, match=r"radius 0\.2"):
        only(min_certified_accuracy="0.2:0.5")


def robust_on(successes: int, n: int, **asked: object) -> Gate:
    rate = RobustRate(value=successes / n, low=0.0, high=1.0, n=n, attack="a", stages=("a",), chunk=50)
    net = NET.model_copy(update={"robust_accuracy": rate})
    (gate,) = judge(GateSettings.of(**asked), "student", {"student": net}, None)
    return gate


@pytest.mark.parametrize("gate_on", ["point", "bound"])
@pytest.mark.parametrize(
    ("successes", "met", "undecided"), [(170, True, False), (60, False, False), (120, False, True)]
)
def test_with_confidence_the_sequential_test_decides_and_an_open_end_is_missed(
    successes: int, met: bool, undecided: bool, gate_on: str
) -> None:
    gate = robust_on(successes, 250, min_robust_accuracy=0.45, confidence=0.99, gate_on=gate_on)
    assert decide(successes, 250, 0.45, 0.99) == (None if undecided else "met" if met else "missed")
    assert (gate.met, gate.undecided, gate.decided_by) == (met, undecided, "bound")
    assert gate.why is not None and "0.99 confidence after" in gate.why and "250 images" in gate.why
    assert ("missed" in gate.why) == undecided


@pytest.mark.parametrize(
    "asked", [{"min_robust_accuracy": 0.1}, {"max_robust_drop": 0.9}, {"min_robust_accuracy": 0.1, "confidence": 0.9}]
)
def test_a_masked_model_misses_the_gates_on_robustness_unless_they_are_to_be_believed(asked: dict[str, object]) -> None:
    models = {"student": MASKED, "teacher": NET}
    (gate,) = judge(GateSettings.of(**asked), "student", models, DROP)
    (believed,) = judge(GateSettings.of(**asked, allow_untrusted=True), "student", models, DROP)
    assert believed.met and not gate.met
    assert gate.why == "not to be trusted: student: 90% of gradients are zero"


@pytest.mark.parametrize(("n", "too_few"), [(124, True), (125, False)])
def test_a_drop_that_so_few_images_cannot_prove_says_how_many_can(n: int, too_few: bool) -> None:
    low, high = paired_difference(0, 0, n)
    equal = DROP.model_copy(update={"drop": 0.0, "low": low, "high": high, "n": n})
    (gate,) = judge(GateSettings(max_robust_drop=0.03), "student", {"student": NET, "teacher": NET}, equal)
    assert gate.met != too_few
    assert ("124 images cannot show it where nothing differs, 125 can" in (gate.caution or "")) == too_few


def test_few_images_are_enough_where_the_student_is_better() -> None:
    low, high = paired_difference(0, 10, 100)
    better = DROP.model_copy(update={"drop": -0.1, "low": low, "high": high, "n": 100})
    (gate,) = judge(GateSettings(max_robust_drop=0.03), "student", {"student": NET, "teacher": NET}, better)
    assert gate.met and "images cannot" not in (gate.caution or "")


def test_a_drop_of_nothing_cannot_be_shown_by_networks_that_never_differ() -> None:
    low, high = paired_difference(0, 0, 100)
    equal = DROP.model_copy(update={"drop": 0.0, "low": low, "high": high, "n": 100})
    (gate,) = judge(GateSettings(max_robust_drop=0.0), "student", {"student": NET, "teacher": NET}, equal)
    assert not gate.met and "no number can" in (gate.caution or "")


def test_a_masked_teacher_spoils_the_drop_and_nothing_else() -> None:
    asked = GateSettings.of(min_robust_accuracy=0.1, max_robust_drop=0.9, min_clean_accuracy=0.1, max_params=9999)
    gates = judge(asked, "student", {"student": NET, "teacher": MASKED}, DROP)
    assert {gate.name: gate.met for gate in gates} == {
        "--min-clean-accuracy": True,
        "--min-robust-accuracy": True,
        "--max-robust-drop": False,
        "--max-params": True,
    }


def test_a_gate_on_robustness_says_that_nobody_looked_for_masking() -> None:
    unchecked = {"student": NET.model_copy(update={"masking": None})}
    robust, clean = judge(GateSettings(min_clean_accuracy=0.1, min_robust_accuracy=0.1), "student", unchecked, None)[
        ::-1
    ]
    assert robust.met and robust.caution == "not checked for masking: student"
    assert clean.caution is None


def test_checks_that_found_nothing_spoil_nothing() -> None:
    quiet = Masking(checks=(CHECK.model_copy(update={"flagged": False}),), n=100, seconds=1.0)
    net = NET.model_copy(update={"masking": quiet})
    (gate,) = judge(GateSettings(min_robust_accuracy=0.1), "student", {"student": net}, None)
    assert gate.met and gate.why is None


def test_a_gate_reports_the_figure_it_was_judged_on() -> None:
    assert [
        (gate.value, gate.low, gate.high, gate.model)
        for gate in judge(
            GateSettings(min_clean_accuracy=0.1, min_robust_accuracy=0.1, max_robust_drop=0.9, max_params=5),
            "student",
            {"student": NET},
            DROP,
        )
    ] == [
        (0.8, 0.7, 0.9, "student"),
        (0.5, 0.4, 0.6, "student"),
        (0.1, 0.05, 0.2, "student"),
        (1000, 1000, 1000, "student"),
    ]


def test_without_gates_nothing_is_judged_and_a_report_counts_as_met() -> None:
    assert judge(GateSettings(), "student", {"student": NET}, DROP) == ()
    assert report(()).gates_met


def test_one_missed_gate_among_met_ones_misses() -> None:
    met, missed = only(max_params=1000), only(max_params=999)
    assert report((met,)).gates_met
    assert not report((met, missed)).gates_met
    assert not report((missed, met)).gates_met


def report(gates: tuple[Gate, ...]) -> Report:
    return Report(
        threat_model=ThreatRecord(norm="Linf", eps=0.1),
        data=DataRecord(name="digits", images=1, of=1, seed=0, classes=("0", "1"), sha256="0"),
        device="cpu",
        models={"student": NET},
        gates=gates,
        settings={},
        versions={},
        seconds=0,
    )


def asked(
    attack: str, student: bool, teacher: bool, certify_images: int = 5, smoothing: str = "fixed", **gates: object
) -> EvaluateSettings:
    file = ModelFile(path=Path("model.pt"))
    return EvaluateSettings(
        student=file if student else None,
        teacher=file if teacher else None,
        data=DataSettings(data="digits"),
        threat=ThreatSettings(eps=0.1),
        evaluation=EvaluationSettings.of(
            attack=attack, certify_images=certify_images, smoothing=smoothing, n=1000, sigma=0.25
        ),
        gates=GateSettings.of(**gates),
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (asked("none", True, True, min_robust_accuracy=0.0), "--min-robust-accuracy"),
        (asked("none", True, True, max_robust_drop=0.5), "--max-robust-drop"),
        (asked("pgd-3", True, False, max_robust_drop=0.5), "--max-robust-drop"),
        (asked("pgd-3", False, True, max_robust_drop=0.5), "--max-robust-drop"),
        (asked("pgd-3", True, False, confidence=0.99), "--confidence stops .* give one"),
        (asked("pgd-3", True, True, confidence=0.9, min_robust_accuracy=0.4, max_robust_drop=0.5), "one of the two"),
        (asked("none", True, False, certify_images=0, min_certified_accuracy="0:0.4"), "got --certify-images 0"),
        (asked("none", True, False, min_certified_accuracy="0.62:0.4"), "radius 0.62, but --n 1000 .* 0.616 at most"),
        (
            asked("none", True, False, smoothing="sequential", min_certified_accuracy="0.59:0.4"),
            r"radius 0.59, but --n 1000 .* 0.588 at most \(sequential\)",
        ),
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
        asked("pgd-3", True, False, confidence=0.99, min_robust_accuracy=0.4),
        asked("none", True, False, min_certified_accuracy="0.61:0.4"),
        asked("none", True, False, smoothing="sequential", min_certified_accuracy="0.58:0.4"),
    ],
)
def test_a_gate_on_a_figure_that_will_be_measured_is_not(settings: EvaluateSettings) -> None:
    refuse_impossible(settings)


def certified(verified: float, smoothed: float, n: int = 100) -> CertifiedModel:
    """A network with verified accuracy at .1 and .2 and certified accuracy at 0 and .25: half as much at the second."""

    def of(value: float) -> dict[str, float | int]:
        low, high = clopper_pearson(round(value * n), n)
        return {"value": value, "low": low, "high": high, "n": n}

    return CertifiedModel(
        arch="a",
        params=1,
        sha256="0",
        clean_accuracy=Rate(**of(1.0)),
        first_order=None,
        clever=None,
        smoothing=Smoothing(
            **{"sigma": 0.25, "n0": 10, "n": 100, "alpha": 0.001, "cap": 1.0, "abstained": 0},
            at=tuple(CertifiedRate(**of(smoothed / k), radius=radius) for k, radius in ((1, 0.0), (2, 0.25))),
        ),
        bounds=Verified(
            **{"norm": "Linf", "tolerance": 0.02, "n": n},
            at=tuple(
                VerifiedAt(**of(verified / k), eps=eps, verified=round(verified * n / k), broken=0, wrong=0, open=0)
                for k, eps in ((1, 0.1), (2, 0.2))
            ),
        ),
    )


def certifying(**gates: object) -> CertifySettings:
    return CertifySettings(
        student=ModelFile(path=Path("s")),
        teacher=None,
        data=DataSettings(data="digits"),
        threat=ThreatSettings(eps="0.1"),
        more_eps=("0.2",),
        clever=CleverSettings(clever_radius=0.4),
        evaluation=EvaluationSettings(attack="none", certify_images=0),
        gates=CertifyGates(**gates),
    )


@pytest.mark.parametrize(
    ("gates", "met"),
    [
        ({"min_verified_accuracy": 0.6}, True),
        ({"min_verified_accuracy": 0.61}, False),
        ({"min_verified_accuracy": 0.6, "gate_on": "bound"}, False),
        ({"min_verified_accuracy": 0.49, "gate_on": "bound"}, True),  # Clopper-Pearson of 60 in 100 begins at .497
        ({"min_certified_accuracy": "0.25:0.4"}, True),
        ({"min_certified_accuracy": "0.25:0.41"}, False),
        ({"min_certified_accuracy": "0:0.8"}, True),
        ({"min_certified_accuracy": "0:0.8", "gate_on": "bound"}, False),
    ],
)
def test_a_certificates_gate_is_judged_at_its_own_radius_and_by_what_it_says(gates: dict[str, Any], met: bool) -> None:
    (gate,) = certification_gates(certifying(**gates), "student", certified(0.6, 0.8))
    assert gate.met == met and gate.model == "student"


@pytest.mark.parametrize("gates", [{"min_verified_accuracy": 0.0}, {"min_certified_accuracy": "0:0"}])
def test_a_gate_on_a_figure_that_is_not_there_is_never_met(gates: dict[str, Any]) -> None:
    nothing = certified(0.6, 0.8).model_copy(
        update={
            "smoothing": None,
            "bounds": Verified(norm="Linf", unsupported="not supported: GELU", tolerance=0.02, n=4),
        }
    )
    with pytest.raises(LookupError):
        certification_gates(certifying(**gates), "student", nothing)


def test_a_certificates_gate_needs_its_kind_and_a_radius_within_reach() -> None:
    asked = certifying(min_verified_accuracy=0.5)
    refuse_uncertifiable(asked)
    with pytest.raises(UsageError, match="--min-verified-accuracy needs bounds among --kinds"):
        refuse_uncertifiable(asked.model_copy(update={"kinds": ("smoothing",)}))
