"""Reports against a baseline: what is paired, what is not, and what is not compared at all."""

from pathlib import Path
from typing import Any

import pytest

from kdcompress.comparison import Column
from kdcompress.errors import UsageError
from kdcompress.evaluation.baseline import against, compare, labels, right, stood
from kdcompress.evaluation.compare import paired
from kdcompress.maths.intervals import mcnemar, paired_difference, unpaired_difference
from kdcompress.report import ModelReport, Rate, Report, RobustAt, ThreatRecord
from kdcompress.settings import CompareSettings
from tests.reports import masked, network, report

BASE = "....................0000000000xx"
WORSE = "..................00000000000xxx"
N = len(BASE)


def column(figures: ModelReport, label: str = "other.json", **changes: Any) -> Column:
    made = report(figures, **changes)
    return Column(
        label=label,
        file=label,
        name="student",
        threat_model=made.threat_model,
        data=made.data,
        device=made.device,
        versions=made.versions,
        figures=figures,
    )


FIRST = column(network(BASE), "base.json")
OTHER_IMAGES = report(network(BASE)).data.model_copy(update={"sha256": "images 2", "seed": 1})


def test_on_the_same_images_both_accuracies_are_compared_in_pairs() -> None:
    found = against(FIRST, column(network(WORSE)), 0.03)
    clean, robust = found.clean_drop, found.robust_drop
    assert clean is not None and robust is not None and found.not_comparable == found.notes == ()
    assert (clean.method, clean.baseline_only, clean.other_only, clean.p_value) == ("paired", 1, 0, 1.0)
    assert (robust.method, robust.baseline_only, robust.other_only) == ("paired", 2, 0)
    assert robust.value == pytest.approx(2 / N)
    assert (robust.low, robust.high) == paired_difference(2, 0, N)
    assert robust.p_value == mcnemar(2, 0)
    assert found.preserved is False


def test_a_pair_of_reports_says_what_one_report_of_both_says() -> None:
    robust = against(FIRST, column(network(WORSE)), 0.2).robust_drop
    together = paired(stood(BASE), stood(WORSE), 0.2)
    assert robust is not None
    assert (robust.value, robust.low, robust.high) == pytest.approx((together.drop, together.low, together.high))
    assert robust.p_value == together.p_value


def test_on_other_images_the_difference_is_unpaired_and_wider() -> None:
    found = against(FIRST, column(network(WORSE), data=OTHER_IMAGES), 0.03)
    drop = found.robust_drop
    assert drop is not None and drop.method == "unpaired"
    assert (drop.baseline_only, drop.other_only, drop.p_value) == (None, None, None)
    assert (drop.low, drop.high) == unpaired_difference(20, N, 18, N)
    same = against(FIRST, column(network(WORSE)), 0.03).robust_drop
    assert same is not None and same.high - same.low < drop.high - drop.low
    assert any("unpaired: judged on other images" in note and "seed 1" in note for note in found.notes)


@pytest.mark.parametrize("verdicts", ["", BASE[:-1], BASE[::-1].replace("0", ".")])
def test_verdicts_that_are_not_what_was_counted_are_not_paired(verdicts: str) -> None:
    found = against(FIRST, column(network(BASE).model_copy(update={"verdicts": verdicts}), data=FIRST.data), 0.03)
    assert found.robust_drop is not None and found.robust_drop.method == "unpaired"
    assert any("does not say which images" in note for note in found.notes)


def test_a_missing_fingerprint_is_no_fingerprint() -> None:
    data = FIRST.data.model_copy(update={"sha256": ""})
    found = against(column(network(BASE), data=data), column(network(BASE), data=data), 0.03)
    assert found.robust_drop is not None and found.robust_drop.method == "unpaired"


def free_to_stop(figures: ModelReport, after: int | None = None) -> ModelReport:
    """The same network where a gate may stop the attack, and stopped it after so many images, or let it go on."""
    rate = figures.robust_accuracy
    assert rate is not None
    verdicts = figures.verdicts if after is None else figures.verdicts[:after].ljust(len(figures.verdicts), "?")
    stood = verdicts.count(".")
    values = {"n": after or rate.n, "value": stood / (after or rate.n), "interval": "anytime-valid"}
    return figures.model_copy(update={"verdicts": verdicts, "robust_accuracy": rate.model_copy(update=values)})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (column(network(WORSE, attack="PGD-20")), "attacked by PGD-20 (pgd-20), the baseline by PGD-3 (pgd-3)"),
        (column(network(WORSE, attack=None)), "other.json was not attacked"),
        (
            column(network(WORSE), threat_model=ThreatRecord(norm="Linf", eps=4 / 255)),
            "attacked within Linf 4/255, the baseline within Linf 8/255",
        ),
        (
            column(network(WORSE), threat_model=ThreatRecord(norm="L2", eps=8 / 255)),
            "attacked within L2 8/255, the baseline within Linf 8/255",
        ),
        (column(free_to_stop(network(WORSE), 20)), "other.json stopped after 20 of 32 images"),
    ],
)
def test_robust_accuracies_of_other_kinds_are_not_compared_but_clean_ones_are(other: Column, said: str) -> None:
    for first, second in ((FIRST, other), (other, FIRST)):
        found = against(first, second, 0.03)
        assert found.robust_drop is None and found.preserved is None
        assert any("robust accuracy" in reason for reason in found.not_comparable)
        assert found.clean_drop is not None
    assert any(said in reason for reason in against(FIRST, other, 0.03).not_comparable)


@pytest.mark.parametrize("which", [0, 1])
def test_clean_accuracy_is_compared_even_where_the_attack_stopped_since_it_is_of_all_images(which: int) -> None:
    pair = [FIRST, FIRST]
    pair[which] = column(free_to_stop(network(BASE), 20))
    found = against(pair[0], pair[1], 0.03)
    assert found.clean_drop is not None and found.clean_drop.value == 0
    assert found.robust_drop is None and any("20 of 32" in reason for reason in found.not_comparable)


@pytest.mark.parametrize("which", [0, 1])
def test_an_attack_that_was_free_to_stop_and_took_all_images_is_compared_as_any_other_and_noted(which: int) -> None:
    plain = [FIRST, column(network(WORSE))]
    freed = [*plain]
    freed[which] = column(free_to_stop(plain[which].figures), plain[which].label)
    found, usual = against(freed[0], freed[1], 0.03), against(plain[0], plain[1], 0.03)
    assert found.robust_drop == usual.robust_drop and found.clean_drop == usual.clean_drop
    assert found.not_comparable == ()
    (note,) = found.notes
    assert note.startswith(f"{plain[which].label} was free to stop early and took all 32 images: ")


@pytest.mark.parametrize(
    ("change", "said"), [({"name": "cifar10"}, "on cifar10, the baseline on digits"), ({"classes": ("0",)}, "classes")]
)
def test_accuracies_on_other_data_are_not_compared(change: dict[str, object], said: str) -> None:
    found = against(FIRST, column(network(WORSE), data=OTHER_IMAGES.model_copy(update=change)), 0.03)
    assert found.clean_drop is found.robust_drop is None
    assert said in found.not_comparable[0]


def test_the_same_images_in_another_folder_are_the_same_images() -> None:
    moved = FIRST.data.model_copy(update={"name": "copy-of-digits"})
    found = against(FIRST, column(network(WORSE), data=moved), 0.03)
    assert found.clean_drop is not None and found.clean_drop.method == "paired"


def test_what_else_differs_is_noted() -> None:
    figures = network(WORSE)
    assert figures.robust_accuracy is not None
    rate = figures.robust_accuracy.model_copy(update={"chunk": 25, "surrogate": "the float network"})
    other = column(
        figures.model_copy(update={"robust_accuracy": rate}), device="cuda:0 (H200)", versions={"torch": "2.16"}
    )
    found = against(FIRST, other, 0.03)
    notes = " | ".join(found.notes)
    for part in ("25 images at once, the baseline 50", "by way of the float network"):
        assert part in notes
    assert found.not_comparable == ("latency: measured on cuda:0 (H200), the baseline's on cpu (2 threads)",)
    assert "latency_ms" not in found.ratios and found.robust_drop is not None
    assert "kdcompress none (0.1.0), torch 2.16 (2.15)" in notes


def several(figures: ModelReport, *radii: float) -> ModelReport:
    rate = figures.robust_accuracy
    assert rate is not None
    at = RobustAt(value=rate.value, low=rate.low, high=rate.high, n=rate.n, eps=0)
    return figures.model_copy(update={"over_eps": tuple(at.model_copy(update={"eps": eps}) for eps in radii)})


def test_smaller_radii_on_one_side_alone_are_noted_since_what_falls_there_counts_as_fallen() -> None:
    other = column(several(network(WORSE), 2 / 255, 4 / 255, 8 / 255, 12 / 255))
    for first, second in ((FIRST, other), (other, FIRST)):
        (note,) = against(first, second, 0.03).notes
        alone, listed = "at eps 8/255", "at eps 2/255, 4/255, 8/255"
        here, there = (listed, alone) if second is other else (alone, listed)
        assert note == (
            f"attacked {here}, the baseline {there}: an image that falls at a smaller eps counts as fallen at 8/255"
        )


@pytest.mark.parametrize("radii", [(), (8 / 255,), (8 / 255, 12 / 255)])
def test_larger_radii_change_nothing_at_the_gates_and_are_not_noted(radii: tuple[float, ...]) -> None:
    assert against(FIRST, column(several(network(WORSE), *radii)), 0.03).notes == ()
    both = column(several(network(WORSE), 2 / 255, *radii, 8 / 255))
    assert against(both, both, 0.03).notes == ()


def test_radii_of_another_threat_model_are_no_further_note() -> None:
    other = column(several(network(WORSE), 2 / 255, 4 / 255), threat_model=ThreatRecord(norm="Linf", eps=4 / 255))
    assert against(FIRST, other, 0.03).notes == ()


def test_ratios_are_over_the_baseline() -> None:
    other = column(network(WORSE, params=500, macs=40_000, file_bytes=1000, latency_ms=3.0))
    assert against(FIRST, other, 0.03).ratios == {"params": 0.5, "macs": 2, "file_bytes": 0.25, "latency_ms": 1.5}
    nothing = column(network(BASE, macs=0))
    assert "macs" not in against(nothing, other, 0.03).ratios


def test_verdicts_are_read_as_the_report_says() -> None:
    assert right("x.?03") == [False, True, True, True, True]
    assert stood("x.?03") == [False, True, False, False, False]


def test_labels_tell_every_file_from_the_others() -> None:
    assert labels([Path("a.json"), Path("b/c.json")]) == ["a.json", "c.json"]
    same = [Path("x/r.json"), Path("y/r.json"), Path("x/r.json")]
    assert len(set(labels(same))) == 3


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 3), (333, 1000), (9999, 10_000), (123_457, 999_983)])
def test_the_count_is_got_back_from_the_rate(successes: int, n: int) -> None:
    """A report keeps rates; the interval is of counts, and one more or less would be another."""
    value = successes / n
    counted = Rate(value=value, low=0, high=1, n=n)
    figures = network(BASE, attack=None).model_copy(update={"clean_accuracy": counted, "verdicts": ""})
    drop = against(column(figures), column(figures), 0.03).clean_drop
    assert drop is not None
    assert (drop.low, drop.high) == unpaired_difference(successes, n, successes, n)
    assert (drop.low, drop.high) != unpaired_difference(successes + 1, n, successes, n)


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def saved(name: str, made: Report) -> Path:
        path = tmp_path / name
        path.write_text(made.model_dump_json())
        return path

    return saved


def test_drops_are_gated_by_the_upper_end_of_their_interval(save: Any) -> None:
    paths = (save("a.json", report(network(BASE))), save("b.json", report(network(WORSE))))
    high = paired_difference(2, 0, N)[1]
    for most, met in ((high - 1e-9, False), (high, True)):
        found = compare(CompareSettings(reports=paths, max_robust_drop=most))
        (gate,) = found.gates
        assert (gate.met, found.gates_met, gate.decided_by, gate.model) == (met, met, "bound", "b.json")
        assert found.against_baseline[0].within == most
        assert found.against_baseline[0].preserved is met


def test_every_other_report_is_judged(save: Any) -> None:
    paths = [
        save(f"{name}.json", report(network(verdicts)))
        for name, verdicts in zip("abc", (BASE, BASE, WORSE), strict=True)
    ]
    found = compare(CompareSettings(reports=tuple(paths), max_clean_drop=0.15, max_latency_ratio=1.0))
    assert [(gate.name, gate.model, gate.met) for gate in found.gates] == [
        ("--max-clean-drop", "b.json", True),
        ("--max-latency-ratio", "b.json", True),
        ("--max-clean-drop", "c.json", False),
        ("--max-latency-ratio", "c.json", True),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_a_masked_report_on_either_side_misses_the_robust_gate_unless_allowed(save: Any, which: int) -> None:
    nets = [network(BASE), network(BASE)]
    nets[which] = network(BASE, masking=masked("gradients are zero"))
    paths = tuple(save(f"{name}.json", report(net)) for name, net in zip("ab", nets, strict=True))
    (gate,) = compare(CompareSettings(reports=paths, max_robust_drop=0.5)).gates
    (allowed,) = compare(CompareSettings(reports=paths, max_robust_drop=0.5, allow_untrusted=True)).gates
    assert not gate.met and allowed.met
    assert gate.why == f"not to be trusted: {'ab'[which]}.json: gradients are zero"
    (clean,) = compare(CompareSettings(reports=paths, max_clean_drop=0.5)).gates
    assert clean.met


@pytest.mark.parametrize("which", [0, 1])
def test_robustness_is_not_said_to_be_preserved_where_either_network_is_flagged(which: int) -> None:
    nets = [network(BASE), network(BASE)]
    assert against(column(nets[0]), column(nets[1]), 0.5).preserved is True
    nets[which] = network(BASE, masking=masked("gradients are zero"))
    found = against(column(nets[0]), column(nets[1]), 0.5)
    assert found.preserved is None and found.robust_drop is not None


@pytest.mark.parametrize(
    ("other", "gate", "said"),
    [
        (report(network(WORSE, attack=None)), {"max_robust_drop": 0.1}, "b.json: robust accuracy: b.json was not atta"),
        (report(network(WORSE), data=OTHER_IMAGES.model_copy(update={"name": "x"})), {"max_clean_drop": 0.1}, "on x"),
        (report(network(WORSE), device="cuda:0"), {"max_latency_ratio": 2.0}, "b.json: latency: measured on cuda:0"),
    ],
)
def test_a_gate_on_a_difference_that_cannot_be_computed_is_refused(
    save: Any, other: Report, gate: dict[str, Any], said: str
) -> None:
    paths = (save("a.json", report(network(BASE))), save("b.json", other))
    with pytest.raises(UsageError, match=said):
        compare(CompareSettings(reports=paths, **gate))
    assert compare(CompareSettings(reports=paths)).gates == ()


def test_the_network_is_the_student_or_the_one_there_is_or_the_one_named(save: Any) -> None:
    both = save("both.json", report(network(BASE), network(WORSE)))
    alone = save("alone.json", report(network(BASE), models={"teacher": network(WORSE)}))
    demo = save("demo.json", report(network(BASE), models={"kd": network(WORSE), "kdiga": network(BASE)}))
    names = [column.name for column in compare(CompareSettings(reports=(both, alone))).columns]
    assert names == ["student", "teacher"]
    named = compare(CompareSettings(reports=(both, alone), model="teacher"))
    assert [column.name for column in named.columns] == ["teacher", "teacher"]
    with pytest.raises(UsageError, match=r"demo.json has kd, kdiga; choose one with --model"):
        compare(CompareSettings(reports=(both, demo)))
    with pytest.raises(UsageError, match=r"--model kdiag: .*demo.json \(1\) has kd, kdiga; did you mean kdiga\?"):
        compare(CompareSettings(reports=(demo, demo), model="kdiag"))


def test_a_report_against_itself_has_lost_nothing(save: Any) -> None:
    path = save("a.json", report(network(BASE)))
    (found,) = compare(CompareSettings(reports=(path, path))).against_baseline
    assert found.robust_drop is not None and found.robust_drop.value == 0 and found.robust_drop.p_value == 1
    assert set(found.ratios.values()) == {1.0} and found.notes == found.not_comparable == ()
