"""Tables: every figure with its interval, estimates and certificates under their own names."""

import io
import re

import pytest
from rich.console import Console, RenderableType

from kdcompress.models.record import ModelRecord
from kdcompress.progress import Epoch, Validation
from kdcompress.render.console import comparison, evaluation, gate_line, run_summary, show
from kdcompress.render.progress import listening
from kdcompress.report import (
    Certified,
    CertifiedRate,
    DataRecord,
    FirstOrder,
    Gate,
    ModelReport,
    Paired,
    Rate,
    Report,
    RobustRate,
    Smoothing,
    ThreatRecord,
)
from kdcompress.training.run_record import Compression, Cost, RunRecord, ValidationRecord


def printed(what: RenderableType) -> str:
    out = io.StringIO()
    show(Console(file=out), what)
    return out.getvalue()


def model(arch: str, robust: float, certified: bool) -> ModelReport:
    curve = (CertifiedRate(value=0.375, low=0.2, high=0.5, n=8, radius=0.125),)
    return ModelReport(
        arch=arch,
        params=123_734,
        macs=1_200_000,
        file_bytes=504_281,
        latency_ms=1.234,
        sha256="0",
        clean_accuracy=Rate(value=0.975, low=0.95, high=0.99, n=360),
        robust_accuracy=RobustRate(value=robust, low=robust - 0.05, high=robust + 0.05, n=360, attack="PGD-3"),
        certified=Certified(
            first_order=FirstOrder(norm="Linf", median=0.0123, n=8),
            smoothing=Smoothing(sigma=0.25, n0=10, n=20, alpha=0.001, cap=0.3, abstained=3, at=curve),
        )
        if certified
        else None,
    )


def report(certified: bool = True, arch: str = "resnet18") -> Report:
    return Report(
        threat_model=ThreatRecord(norm="Linf", eps=8 / 255),
        data=DataRecord(name="digits", images=360, of=400, seed=0, classes=("0", "1")),
        device="cpu (1 threads)",
        models={"student": model(arch, 0.5, certified), "teacher": model("big", 0.75, certified)},
        paired=PAIRED,
        ratios={"params": 4.0, "macs": 3.5},
        gates=(GATE,),
        notes=("mind the [gap]",),
        settings={},
        versions={},
        seconds=75,
    )


PAIRED = Paired(both_kept=1, teacher_only=2, student_only=3, both_lost=4, drop=0.25, low=0.1, high=0.4, n=10)
GATE = Gate(
    name="--min-robust-accuracy",
    model="student",
    threshold=0.52,
    value=0.5,
    low=0.45,
    high=0.55,
    decided_by="point",
    met=False,
    undecided=True,
)


def test_the_table_has_every_figure_with_its_interval() -> None:
    text = printed(evaluation(report()))
    for part in (
        *("digits: 360 of 400 test images, Linf 8/255, cpu (1 threads)", "resnet18", "big", "124k", "1.20M", "504 kB"),
        *("1.23 ms", "4.00x", "3.50x", "97.5% [95.0, 99.0]", "robust accuracy, PGD-3", "50.0% [45.0, 55.0]"),
        *("75.0% [70.0, 80.0]", "first-order radius, Linf: estimate, median of 8", "0.0123"),
        *("smoothed classifier: certified at L2 0.125", "37.5% [20.0, 50.0]", "3 of 8", "at most 0.300"),
        *("MISSED --min-robust-accuracy", "note: mind the [gap]", "1 min 15 s"),
    ):
        assert part in text, f"{part!r} is not in\n{text}"


def test_columns_stand_under_their_models() -> None:
    lines = printed(evaluation(report())).splitlines()
    head = next(line for line in lines if "student" in line and "teacher" in line)
    robust = next(line for line in lines if line.startswith("robust accuracy"))
    assert head.index("student") < head.index("teacher")
    assert robust.index("50.0%") < robust.index("75.0%")


def test_an_architecture_with_brackets_is_shown_as_it_is() -> None:
    assert "[red]/nets.py:f" in printed(evaluation(report(arch="[red]/nets.py:f")))


def test_what_was_not_measured_is_not_in_the_table() -> None:
    text = printed(evaluation(report(certified=False)))
    assert "smoothed" not in text and "first-order" not in text


def test_an_infinite_median_is_named() -> None:
    found = report()
    net = found.models["student"]
    assert net.certified is not None
    infinite = net.certified.model_copy(update={"first_order": FirstOrder(norm="Linf", median=None, n=8)})
    models = found.models | {"student": net.model_copy(update={"certified": infinite})}
    assert "infinite" in printed(evaluation(found.model_copy(update={"models": models})))


@pytest.mark.parametrize(("drop", "word"), [(0.25, "25.0 points below"), (-0.25, "25.0 points above")])
def test_the_comparison_says_which_way_the_difference_goes(drop: float, word: str) -> None:
    text = comparison(PAIRED.model_copy(update={"drop": drop}))
    assert word in text and "teacher only 2" in text and "student only 3" in text and "+10.0 to +40.0" in text


@pytest.mark.parametrize(
    ("change", "there", "not_there"),
    [
        ({}, ["MISSED", "undecided", "point estimate", "0.52", "0.500 [0.450, 0.550]"], ["met   "]),
        ({"met": True, "undecided": False}, ["met"], ["MISSED", "undecided"]),
        ({"decided_by": "bound"}, ["conservative bound"], ["point estimate"]),
        ({"name": "--max-params", "value": 123456, "threshold": 100000}, ["123,456", "100,000"], ["["]),
    ],
)
def test_a_gates_line_says_what_was_asked_found_and_decided(
    change: dict[str, object], there: list[str], not_there: list[str]
) -> None:
    line = gate_line(GATE.model_copy(update=change))
    assert all(part in line for part in there) and not any(part in line for part in not_there), line


def test_a_runs_summary_says_that_its_figures_chose_the_weights() -> None:
    record = RunRecord(
        model=ModelRecord(source="timm", arch="resnet18", input_size=(3, 8, 8), classes=("a",), mean=None, std=None),
        sha256="0",
        threat_model={},
        data={},
        settings={},
        iga_weight=None,
        gradient=None,
        teacher=None,
        compression=Compression(params=1000, macs=2000, file_bytes=1, params_ratio=4.0, macs_ratio=3.0, file_ratio=1.0),
        selected=ValidationRecord(epoch=7, clean_accuracy=0.5, robust_accuracy=0.25, images=24),
        cost=Cost(seconds=61, steps=10, device="cpu"),
        versions={},
    )
    text = printed(run_summary(record))
    for part in ("4.00x", "3.00x", "24 images, epoch 7", "clean 50.0%", "PGD-10 25.0%", "kdcompress evaluate", "1 min"):
        assert part in text
    alone = record.compression.model_copy(update={"params_ratio": None, "macs_ratio": None})
    assert "teacher" not in printed(run_summary(record.model_copy(update={"compression": alone})))


EPOCH = Epoch(3, 30, 1.0, {"ce": 0.5}, {"ce": 1.0}, 0.1, 1.0, Validation(0.75, 0.5, 8), True)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_notes_and_validated_epochs(terminal: bool) -> None:
    out = io.StringIO()
    with listening(Console(file=out, force_terminal=terminal, width=200)) as listener:
        listener.note("mind the [red]gap")
        listener.count("decode", 1, 2)
        listener.count("decode", 2, 2)
        listener.epoch(EPOCH)
        listener.epoch(Epoch(4, 40, 1.0, {}, {}, 0.1, 1.0, None, False))
    text = out.getvalue()
    assert "mind the [red]gap" in text
    assert "epoch 3: ce 0.5  held-out clean 0.750, PGD-10 0.500  best so far" in text
    assert "epoch 4" not in text


def test_without_a_terminal_there_are_plain_lines_one_a_stage_and_no_bars() -> None:
    out = io.StringIO()
    with listening(Console(file=out, force_terminal=False, width=20)) as listener:
        for done in range(5):
            listener.count("decoding all of the training images", done, 4)
    assert out.getvalue() == "decoding all of the training images\n"
    assert not re.search(r"\x1b|\r", out.getvalue())
