"""Tables: every figure with its interval, estimates and certificates under their own names."""

import io
import re
import time

import pytest
from rich.console import Console, RenderableType

from kdcompress.models.record import ModelRecord
from kdcompress.progress import Epoch, Validation
from kdcompress.render.console import evaluation, run_summary, show
from kdcompress.render.gates import gate_line
from kdcompress.render.html.page import page
from kdcompress.render.markdown import markdown
from kdcompress.render.progress import listening
from kdcompress.render.sentences import comparison, preserved
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
from kdcompress.training.run_record import Compression, Cost, LastRecord, RunRecord, ValidationRecord
from tests import sample_report as samples


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
        robust_accuracy=RobustRate(
            value=robust, low=robust - 0.05, high=robust + 0.05, n=360, attack="PGD-3", stages=("pgd",), chunk=250
        ),
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
        data=DataRecord(name="digits", images=360, of=400, seed=0, classes=("0", "1"), sha256="1"),
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


PAIRED = Paired(
    both_kept=1,
    teacher_only=2,
    student_only=3,
    both_lost=4,
    drop=0.25,
    low=0.1,
    high=0.4,
    p_value=0.0123,
    within=0.03,
    preserved=False,
    n=10,
)
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
    ("kept", "low", "said"),
    [
        (True, -0.01, "Robustness preserved within 3.0 points at 95%."),
        (False, 0.03, "Robustness not shown to be preserved within"),
        (False, 0.031, "Robustness shown not to be preserved within 3.0 points at 95%."),
    ],
)
def test_the_comparison_ends_with_what_it_shows(kept: bool, low: float, said: str) -> None:
    found = report().model_copy(update={"paired": PAIRED.model_copy(update={"preserved": kept, "low": low})})
    assert preserved(found).startswith(said)
    assert "p = 0.012" in comparison(PAIRED)
    assert said in printed(evaluation(found))


@pytest.mark.parametrize("flagged", [("student",), ("teacher",), ("student", "teacher")])
@pytest.mark.parametrize("kept", [True, False])
def test_where_a_network_is_flagged_nothing_is_said_of_preserved_robustness(
    flagged: tuple[str, ...], kept: bool
) -> None:
    models = {name: samples.model(masking=samples.masking(name in flagged)) for name in ("student", "teacher")}
    found = samples.report(models=models, paired=samples.PAIRED.model_copy(update={"preserved": kept}))
    said = (
        "Whether robustness is preserved within 3.0 points cannot be told: the robust accuracy of "
        f"{' and '.join(flagged)} is not to be trusted."
    )
    assert preserved(found) == said
    for text in (printed(evaluation(found)), markdown(found), page(found, samples.evidence())):
        assert said in text
        assert not re.search(r"(?i)robustness (not shown to be |shown not to be )?preserved", text)


def test_the_interval_of_the_drop_has_the_digits_that_tell_it_from_what_was_allowed() -> None:
    assert "+10.00 to +3.04 points" in comparison(PAIRED.model_copy(update={"high": 0.0304}))


def test_accuracy_at_several_radii_has_a_row_each() -> None:
    text = printed(evaluation(samples.report()))
    assert "robust at eps 2/255" in text and "81.4% [78.4, 84.4]" in text


def test_masking_is_one_quiet_line_where_all_is_well_and_a_loud_one_where_it_is_not() -> None:
    assert "student: masking checks: 6 passed, 1 not applicable" in printed(evaluation(samples.report()))
    flagged = samples.report(models={"student": samples.model(masking=samples.masking(True))})
    said = "student: robust accuracy NOT TO BE TRUSTED, because: 62 of 200 images have an input gradient of zero"
    assert said in printed(evaluation(flagged))


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (
            "no gradients, so in place of PGD-5: square",
            "has no gradients of its own; white-box attacks were made on its parent",
        ),
        (
            "PGD-5, then pgd-100 on surrogate",
            "attacked by its own gradients; what breaks its parent was tried on it too",
        ),
    ],
)
def test_what_a_surrogate_was_for_depends_on_whether_the_network_has_gradients(attack: str, said: str) -> None:
    found = samples.robust_rate(0.5, surrogate="its parent", attack=attack)
    assert said in printed(evaluation(samples.report(models={"student": samples.model(robust_accuracy=found)})))


def test_an_attack_that_stopped_early_says_on_how_many_images_and_what_its_interval_is() -> None:
    stopped = samples.robust_rate(0.5, n=340, interval="anytime-valid", confidence=0.99)
    text = printed(evaluation(samples.report(models={"student": samples.model(robust_accuracy=stopped)})))
    assert "after 340 of 1000 images" in text and "anytime-valid at 99%" in text
    through = samples.robust_rate(0.5, n=1000, interval="anytime-valid")
    text = printed(evaluation(samples.report(models={"student": samples.model(robust_accuracy=through)})))
    assert "a gate was free to stop the attack, which took all 1000 images; the interval" in text
    assert "stopped" not in text
    fewer = samples.report(models={"student": samples.model(robust_accuracy=samples.robust_rate(0.5, n=340))})
    assert "student: robust accuracy on 340 of 1000 images" in printed(evaluation(fewer))


def test_a_figure_that_one_model_lacks_leaves_its_cell_empty() -> None:
    full = samples.model()
    lacking = samples.report(models={"student": full, "teacher": full.model_copy(update=samples.attacked_only(full))})
    text = printed(evaluation(lacking))
    assert "robust accuracy, AutoAttack standard" in text and "certified at L2 0.125" in text and "None" not in text


@pytest.mark.parametrize(
    ("change", "there", "not_there"),
    [
        ({}, ["MISSED", "undecided", "point estimate", "0.52", "50.0% [45.0, 55.0]"], ["met   "]),
        ({"met": True, "undecided": False}, ["met"], ["MISSED", "undecided"]),
        ({"decided_by": "bound"}, ["conservative bound"], ["point estimate"]),
        ({"why": "masking: 3 checks flagged"}, ["masking: 3 checks flagged"], ["point estimate"]),
        (
            {"name": "--max-params", "value": 123456, "threshold": 100000},
            ["123,456 parameters", "100,000", "counted"],
            ["[", "estimate"],
        ),
        ({"name": "--max-macs", "value": 2e8, "threshold": 1e8}, ["200,000,000 MACs", "100,000,000"], ["["]),
        ({"name": "--max-latency-ms", "value": 2.5, "low": 2.4, "high": 2.6}, ["2.50 ms [2.40, 2.60]"], ["%"]),
        ({"name": "--max-latency-ms", "value": 2.5, "low": 2.5, "high": 2.5}, ["2.50 ms,"], ["["]),
        (
            {"name": "--max-robust-drop", "value": 0.02, "low": -0.01, "high": 0.05},
            ["+2.0 points [-1.0, +5.0]"],
            ["%"],
        ),
        ({"name": "--min-certified-accuracy"}, ["--min-certified-accuracy", "50.0% [45.0, 55.0]"], []),
        # Rounding does not contradict the verdict: more digits are shown where it would.
        ({"threshold": 0.5, "value": 0.4996}, ["MISSED --min-robust-accuracy 0.5", "49.96% [45.00, 55.00]"], []),
        (
            {"threshold": 0.45, "value": 0.5, "low": 0.4499, "decided_by": "bound"},
            ["MISSED", "50.00% [44.99, 55.00]"],
            [],
        ),
        (
            {"name": "--max-robust-drop", "threshold": 0.03, "value": 0.02, "low": -0.01, "high": 0.0304}
            | {"decided_by": "bound"},
            ["MISSED --max-robust-drop 0.03", "+2.00 points [-1.00, +3.04]"],
            [],
        ),
        (
            {"name": "--max-latency-ms", "threshold": 2.5, "value": 2.5004, "low": 2.5004, "high": 2.5004},
            ["MISSED --max-latency-ms 2.5:", "2.5004 ms,"],
            [],
        ),
        ({"name": "--max-latency-ratio", "threshold": 1.1, "value": 1.1004}, ["1.1004x"], []),
    ],
)
def test_a_gates_line_says_what_was_asked_found_and_decided(
    change: dict[str, object], there: list[str], not_there: list[str]
) -> None:
    line = gate_line(GATE.model_copy(update=change))
    assert all(part in line for part in there) and not any(part in line for part in not_there), line


RECORD = RunRecord(
    model=ModelRecord(source="timm", arch="resnet18", input_size=(3, 8, 8), classes=("a",), mean=None, std=None),
    sha256="0",
    threat_model={},
    data={},
    settings={},
    iga_weight=None,
    gradient=None,
    teacher=None,
    compression=Compression(params=1000, macs=2000, file_bytes=1, params_ratio=4.0, macs_ratio=3.0, file_ratio=1.0),
    selected=ValidationRecord(epoch=7, weights="raw", clean_accuracy=0.5, robust_accuracy=0.25, images=24),
    last=LastRecord(epoch=9, weights="averaged", clean_accuracy=0.75, robust_accuracy=0.125, images=24, sha256="1"),
    cost=Cost(seconds=61, steps=10, device="cpu", student_passes=6.0, teacher_passes=2.0),
    versions={},
)


def test_a_runs_summary_says_that_its_figures_chose_the_weights() -> None:
    text = printed(run_summary(RECORD))
    for part in ("4.00x", "3.00x", "24 images", "kdcompress evaluate", "1 min", "2.0 times plain KD"):
        assert part in text
    assert "best, epoch 7: clean 50.0%, PGD-10 25.0% (raw weights)" in text
    (last,) = (line for line in text.splitlines() if "last" in line)
    assert last.strip() == "last, epoch 9, in last.safetensors: clean 75.0%, PGD-10 12.5% (averaged weights)"
    alone = RECORD.compression.model_copy(update={"params_ratio": None, "macs_ratio": None})
    skipping = RECORD.model_copy(update={"cost": RECORD.cost.model_copy(update={"skipped": 3})})
    assert "left out" not in text and "10 steps, of which 3 were not finite and left out, in" in printed(
        run_summary(skipping)
    )
    assert "teacher" not in printed(run_summary(RECORD.model_copy(update={"compression": alone})))


@pytest.mark.parametrize(
    ("robust", "images", "guesses"), [(0.125, 240, True), (0.0, 240, True), (0.25, 240, False), (0.25, 8, True)]
)
def test_a_runs_summary_says_where_nothing_tells_its_network_from_one_that_guesses(
    robust: float, images: int, guesses: bool
) -> None:
    model, best = RECORD.model.model_copy(update={"classes": tuple("0123456789")}), RECORD.selected
    reached = best.model_copy(update={"robust_accuracy": robust, "images": images})
    text = " ".join(printed(run_summary(RECORD.model_copy(update={"model": model, "selected": reached}))).split())
    assert ("Under PGD-10 it is no better than guessing one of 10 classes" in text) == guesses


@pytest.mark.parametrize(("clean", "weight", "said"), [(0.1, 4.8, True), (0.8, 4.8, False), (0.1, 0.0, False)])
def test_a_student_that_the_gradient_term_flattened_is_told_what_helps(clean: float, weight: float, said: bool) -> None:
    model = RECORD.model.model_copy(update={"classes": tuple("0123456789")})
    best = RECORD.selected.model_copy(update={"robust_accuracy": 0.1, "clean_accuracy": clean, "images": 240})
    record = RECORD.model_copy(update={"model": model, "selected": best, "iga_weight": weight})
    told = (
        "begin with --student-weights of a run of --recipe kd, with a third of --iga-weight 4.8 and --iga-norm l2-log"
    )
    assert (told in " ".join(printed(run_summary(record)).split())) == said


EPOCH = Epoch(3, 30, 1.0, {"ce": 0.5}, {"ce": 1.0}, 0.1, 1.0, Validation(0.75, 0.5, 8), True, "raw")


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
    assert "epoch 3: ce 0.5  held-out clean 0.750, PGD-10 0.500 (raw weights)  best so far" in text
    assert "epoch 4" not in text


def test_without_a_terminal_there_are_plain_lines_one_a_stage_and_no_bars() -> None:
    out = io.StringIO()
    with listening(Console(file=out, force_terminal=False, width=20)) as listener:
        for done in range(5):
            listener.count("decoding all of the training images", done, 4)
    assert out.getvalue() == "decoding all of the training images\n"
    assert not re.search(r"\x1b|\r", out.getvalue())


def test_where_stderr_is_no_terminal_a_slow_count_is_told_again_with_the_time_left() -> None:
    out = io.StringIO()
    with listening(Console(file=out, width=200), every=0.05) as listener:
        listener.count("student: sound bounds", 0, 4)
        time.sleep(0.2)
        listener.count("student: sound bounds", 1, 4)
        time.sleep(0.2)
        listener.count("student: sound bounds", 4, 4)
        said = out.getvalue()
        time.sleep(0.2)
    assert out.getvalue() == said  # nothing is said of what is done
    assert said.startswith("student: sound bounds\n")
    assert "student: sound bounds: 0 of 4\n" in said
    assert re.search(r"student: sound bounds: 1 of 4, \d+ s left\n", said)
