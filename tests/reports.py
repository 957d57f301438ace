"""Reports made by hand, for tests that read them."""

from typing import Any

from kdcompress.maths.intervals import clopper_pearson
from kdcompress.report import (
    Certified,
    CertifiedRate,
    DataRecord,
    FirstOrder,
    Masking,
    MaskingCheck,
    ModelReport,
    Rate,
    Report,
    RobustRate,
    Smoothing,
    ThreatRecord,
)


def rate(successes: int, n: int) -> Rate:
    low, high = clopper_pearson(successes, n)
    return Rate(value=successes / n, low=low, high=high, n=n)


def network(verdicts: str, *, attack: str | None = "PGD-3", latency_ms: float = 2.0, **changes: Any) -> ModelReport:
    """A network with these verdicts, one an image; its rates are their counts."""
    n, clean, robust = len(verdicts), len(verdicts) - verdicts.count("x"), verdicts.count(".")
    values: dict[str, Any] = {
        "arch": "resnet18",
        "params": 1000,
        "macs": 20_000,
        "file_bytes": 4000,
        "latency_ms": latency_ms,
        "sha256": "ab",
        "clean_accuracy": rate(clean, n),
        "robust_accuracy": None
        if attack is None
        else RobustRate(**rate(robust, n).model_dump(), attack=attack, stages=(attack.lower(),), chunk=50),
        "certified": Certified(
            first_order=FirstOrder(norm="Linf", median=0.1, n=10),
            smoothing=Smoothing(
                sigma=0.25,
                n0=10,
                n=100,
                alpha=0.001,
                cap=0.4,
                abstained=1,
                at=(CertifiedRate(**rate(6, 10).model_dump(), radius=0.25),),
            ),
        ),
        "verdicts": verdicts,
    }
    return ModelReport(**(values | changes))


def masked(reason: str) -> Masking:
    check = MaskingCheck(name="zeros", statistic=0.9, threshold=0.1, flagged=True, finding=reason, source="us")
    return Masking(checks=(check,), n=10, seconds=1.0)


def report(student: ModelReport, teacher: ModelReport | None = None, **changes: Any) -> Report:
    """A report of a student, and of its teacher."""
    n = len(student.verdicts) or student.clean_accuracy.n
    values: dict[str, Any] = {
        "threat_model": ThreatRecord(norm="Linf", eps=8 / 255),
        "data": DataRecord(name="digits", images=n, of=10_000, seed=0, classes=("0", "1"), sha256="images 1"),
        "device": "cpu (2 threads)",
        "models": {"student": student} | ({} if teacher is None else {"teacher": teacher}),
        "settings": {},
        "versions": {"torch": "2.15", "kdcompress": "0.1.0"},
        "seconds": 1.5,
    }
    return Report(**(values | changes))
