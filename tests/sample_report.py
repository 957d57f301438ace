"""A full and varied report with its evidence, made by hand: what the renderers are shown."""

from typing import Any

import numpy as np

from kdcompress.evidence import Attacked, Evidence, ImageRow, ModelRow, ShownImage
from kdcompress.report import (
    Certified,
    CertifiedRate,
    ClassRate,
    DataRecord,
    FirstOrder,
    Gate,
    Masking,
    MaskingCheck,
    ModelReport,
    Paired,
    Rate,
    Report,
    RobustAt,
    RobustRate,
    Smoothing,
    ThreatRecord,
)

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HOSTILE = "<script>alert(1)</script> \"quoted\" 'single' & a|b `c` [x](javascript:alert(2)) \x00\u202e\n# end"
STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")

CHECKS = (
    ("zero gradients", 0.0, 0.2, "0 of 200 images have an input gradient of zero", "Athalye et al. 2018"),
    ("iterations help", 0.031, 0.0, "100 steps break 3.1% more images than one", "Athalye et al. 2018"),
    ("white box beats black box", 0.0, 0.0, "Square breaks no image that APGD leaves", "Carlini et al. 2019"),
    ("unbounded attack", 0.0, 0.05, "an attack without a ball breaks all images", "Athalye et al. 2018"),
    ("random directions", 0.004, 0.02, "noise in the ball breaks 0.4% of what stood", "Athalye et al. 2018"),
    ("transfer", 0.0, 0.0, "nothing that stood falls to the teacher's answers", "Carlini et al. 2019"),
    ("loss saturates", None, 0.1, "does not apply: no image is saturated", "Croce and Hein 2020"),
)


def rate(value: float, n: int = 1000, width: float = 0.03) -> Rate:
    return Rate(value=value, low=max(0.0, value - width), high=min(1.0, value + width), n=n)


def robust_rate(value: float, **changes: Any) -> RobustRate:
    values = rate(value).model_dump() | {"attack": "AutoAttack standard", "stages": STAGES, "chunk": 250}
    return RobustRate(**(values | changes))


def masking(flagged: bool = False) -> Masking:
    return Masking(
        checks=tuple(
            MaskingCheck(
                name=name,
                statistic=0.31 if flagged and number == 0 else statistic,
                threshold=threshold,
                flagged=flagged and number == 0,
                finding="62 of 200 images have an input gradient of zero" if flagged and number == 0 else finding,
                source=source,
            )
            for number, (name, statistic, threshold, finding, source) in enumerate(CHECKS)
        ),
        n=200,
        seconds=12.5,
    )


def certified(scale: float, median: float | None = 0.0213) -> Certified:
    radii = (0.0, 0.125, 0.25, 0.375, 0.5)
    return Certified(
        first_order=FirstOrder(norm="Linf", median=median, n=100),
        smoothing=Smoothing(
            sigma=0.25,
            n0=100,
            n=1000,
            alpha=0.001,
            cap=0.615,
            abstained=7,
            at=tuple(
                CertifiedRate(**rate(scale * 0.75**step, 100, 0.09).model_dump(), radius=radius)
                for step, radius in enumerate(radii)
            ),
        ),
    )


def classes_rates(names: tuple[str, ...], clean: float, robust: float | None) -> tuple[ClassRate, ...]:
    """Classes that differ, in no order."""
    shifts = [0.13 * np.sin(1.7 * number) for number in range(len(names))]
    return tuple(
        ClassRate(
            name=name,
            clean=rate(min(1.0, clean + shift / 2), 100, 0.07),
            robust=None if robust is None else rate(max(0.0, robust + shift), 100, 0.09),
        )
        for name, shift in zip(names, shifts, strict=True)
    )


def model(clean: float = 0.93, robust: float = 0.54, names: tuple[str, ...] = CLASSES, **changes: Any) -> ModelReport:
    values: dict[str, Any] = {
        "arch": "resnet18",
        "params": 1_237_346,
        "macs": 141_204_992,
        "file_bytes": 4_981_204,
        "latency_ms": 2.417,
        "sha256": "9e9aeeb9d5530fc57015acb687a6075482c7e9027ef418ea0bad37f67e8f522c",
        "clean_accuracy": rate(clean, 1000, 0.017),
        "robust_accuracy": robust_rate(robust),
        "over_eps": tuple(
            RobustAt(**rate(clean - (clean - robust) * step / 8).model_dump(), eps=step / 255) for step in (2, 4, 8, 12)
        ),
        "classes": classes_rates(names, clean, robust),
        "certified": certified(clean - 0.2),
        "masking": masking(),
        "verdicts": "x.?0123"[: len(names)],
    }
    return ModelReport(**(values | changes))


def gate(name: str = "--min-robust-accuracy", threshold: float = 0.5, **changes: Any) -> Gate:
    values: dict[str, Any] = {
        "name": name,
        "model": "student",
        "threshold": threshold,
        "value": 0.52,
        "low": 0.49,
        "high": 0.55,
        "decided_by": "point",
        "met": True,
        "undecided": False,
    }
    return Gate(**(values | changes))


def counted(name: str, threshold: float, value: float, **changes: Any) -> Gate:
    return gate(name, threshold, **({"value": value, "low": value, "high": value} | changes))


GATES = (
    gate("--min-clean-accuracy", 0.9, value=0.912, low=0.893, high=0.929, undecided=True),
    gate("--min-robust-accuracy", 0.55, value=0.521, low=0.49, high=0.552, met=False, undecided=True),
    gate("--min-certified-accuracy", 0.4, value=0.38, low=0.285, high=0.482, met=False, undecided=True),
    gate("--max-robust-drop", 0.03, value=0.021, low=0.004, high=0.038, decided_by="bound", met=False),
    counted("--max-params", 1_500_000, 1_237_346),
    counted("--max-macs", 200_000_000, 141_204_992),
    gate("--max-latency-ms", 3.0, value=2.417, low=2.38, high=2.52),
)

PAIRED = Paired(
    both_kept=498,
    teacher_only=44,
    student_only=23,
    both_lost=435,
    drop=0.021,
    low=0.004,
    high=0.038,
    p_value=0.0137,
    within=0.03,
    preserved=False,
    n=1000,
)

SETTINGS: dict[str, Any] = {
    "student": {"path": "runs/student/student.safetensors", "arch": None, "args": {}, "mean": None, "std": None},
    "teacher": {
        "path": "teachers/robust.pt",
        "arch": "wide_resnet28_10",
        "args": {"layers": [4, 4, 4], "act_layer": "silu"},
        "mean": [0.4914, 0.4822, 0.4465],
        "std": [0.2471, 0.2435, 0.2616],
    },
    "data": {"data": "cifar10/", "data_dir": None, "image_size": None, "train_images": None},
    "threat": {"norm": "Linf", "eps": 8 / 255},
    "evaluation": {"attack": "autoattack", "images": 1000, "seed": 0, "batch_size": 250, "alpha": 0.001},
    "gates": {"min_robust_accuracy": 0.55, "gate_on": "point"},
}


def report(**changes: Any) -> Report:
    """A student and its teacher; `changes` replace fields."""
    values: dict[str, Any] = {
        "threat_model": ThreatRecord(norm="Linf", eps=8 / 255),
        "data": DataRecord(name="cifar10", images=1000, of=10_000, seed=0, classes=CLASSES, sha256="c0ffee" * 10),
        "device": "cpu (2 threads)",
        "models": {
            "student": model(0.912, 0.521),
            "teacher": model(
                0.934, 0.542, arch="wide_resnet28_10", params=36_479_194, macs=5_245_000_000, latency_ms=88.1
            ),
        },
        "paired": PAIRED,
        "ratios": {"params": 29.48, "macs": 37.14, "file_bytes": 29.1, "latency_ms": 36.45},
        "gates": GATES,
        "notes": ("the teacher's normalisation is read from its file",),
        "settings": SETTINGS,
        "versions": {"python": "3.12.1", "kdcompress": "0.1.0", "torch": "2.15.0"},
        "seconds": 3725.4,
    }
    return Report(**(values | changes))


def attacked_only(found: ModelReport) -> dict[str, Any]:
    """The changes that leave a model with its clean accuracy alone."""
    return {
        "robust_accuracy": None,
        "over_eps": (),
        "classes": tuple(one.model_copy(update={"robust": None}) for one in found.classes),
        "certified": None,
        "masking": None,
    }


def bare_report() -> Report:
    """One network, no attack, no certificate, no gate: the least there is."""
    alone = model()
    return report(
        models={"student": alone.model_copy(update=attacked_only(alone) | {"classes": ()})},
        paired=None,
        ratios={},
        gates=(),
        notes=(),
        settings={},
        versions={},
    )


def hostile_report() -> Report:
    """Every name a stranger can choose is an attack on the page."""
    names = (HOSTILE, *CLASSES[1:])
    flagged = masking(True)
    checks = (flagged.checks[0].model_copy(update={"finding": HOSTILE, "name": HOSTILE}), *flagged.checks[1:])
    net = model(names=names, arch=HOSTILE, masking=flagged.model_copy(update={"checks": checks}))
    data = DataRecord(name=HOSTILE, images=1000, of=10_000, seed=0, classes=names, sha256="00")
    return report(
        models={"student": net, HOSTILE: net},
        data=data,
        device=HOSTILE,
        gates=(gate(HOSTILE, model=HOSTILE, why=HOSTILE), gate(met=False)),
        notes=(HOSTILE,),
        settings={HOSTILE: {"path": HOSTILE, "list": [HOSTILE]}},
        versions={HOSTILE: HOSTILE},
    )


def view(shape: tuple[int, int, int], seed: int, adversarial: bool = True, prediction: str = "cat") -> Attacked:
    random = np.random.RandomState(seed)
    return Attacked(
        prediction=prediction,
        adversarial=random.randint(0, 256, shape).astype(np.uint8) if adversarial else None,
        adversarial_prediction="dog" if adversarial else None,
        gradient=random.standard_normal(shape).astype(np.float32),
    )


def shown(shape: tuple[int, int, int] = (8, 8, 1), id: str = "test/cat/0007.png", label: str = "cat") -> ShownImage:
    image = np.linspace(0, 255, int(np.prod(shape))).reshape(shape).astype(np.uint8)
    return ShownImage(
        id=id, label=label, image=image, models={"student": view(shape, 0), "teacher": view(shape, 1, False)}
    )


def rows(id: str = "test/cat/0007.png", label: str = "cat") -> tuple[ImageRow, ...]:
    student = ModelRow(prediction=label, verdict="broken", broken_by="apgd-ce", stood_eps=2 / 255)
    teacher = ModelRow(prediction=label, verdict="stood", broken_by=None, stood_eps=8 / 255)
    wrong = ModelRow(prediction="dog", verdict="wrong", broken_by=None, stood_eps=None)
    return (
        ImageRow(id=id, label=label, models={"student": student, "teacher": teacher}),
        ImageRow(id="test/dog/1.png", label="dog", models={"student": wrong, "teacher": wrong}),
    )


def evidence(**changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "rows": rows(),
        "gallery": (shown(), shown((32, 32, 3), "b.png"), shown((224, 160, 3), "c.png"), shown((9, 7, 2), "d.png")),
    }
    return Evidence(**(values | changes))
