"""Teacher and student on the same images."""

import pytest
import torch

from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.compare import paired, ratios
from kdcompress.maths.intervals import mcnemar
from kdcompress.report import ModelReport


def kept(robust: str) -> list[bool]:
    return [one == "1" for one in robust]


def test_the_four_counts_add_up_and_the_drop_is_their_difference() -> None:
    found = paired(kept("1111100000"), kept("1100010000"), 0.03)
    counts = (found.both_kept, found.teacher_only, found.student_only, found.both_lost)
    assert counts == (2, 3, 1, 4) and sum(counts) == found.n
    assert found.drop == pytest.approx(0.2)
    assert found.low < found.drop < found.high
    assert found.p_value == mcnemar(3, 1) == 0.625


def test_a_better_student_has_a_negative_drop_and_exchanging_the_two_mirrors_everything() -> None:
    a, b = kept("1100000000"), kept("1111000000")
    found, mirrored = paired(a, b, 0.03), paired(b, a, 0.03)
    assert found.drop == pytest.approx(-0.2)
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low))
    assert (found.teacher_only, found.student_only) == (mirrored.student_only, mirrored.teacher_only)
    assert found.p_value == mirrored.p_value


def test_the_drop_is_the_difference_of_the_two_robust_rates() -> None:
    t, s = kept("1110110101"), kept("0101100001")
    assert paired(t, s, 0.03).drop == pytest.approx((sum(t) - sum(s)) / 10)


def test_robustness_is_preserved_where_the_whole_interval_lies_within() -> None:
    t, s = kept("1" * 500 + "0" * 500), kept("0" * 2 + "1" * 498 + "0" * 500)
    high = paired(t, s, 0.03).high
    assert [paired(t, s, within).preserved for within in (high - 1e-9, high, 0.03)] == [False, True, True]
    assert paired(t, s, 0.002).within == 0.002 and paired(t, s, 0.002).drop == pytest.approx(0.002)
    assert not paired(t, s, 0.002).preserved  # the estimate alone would say so


def test_few_images_preserve_nothing() -> None:
    assert not paired(kept("1" * 20), kept("1" * 20), 0.03).preserved


def test_tensors_lists_of_booleans_and_arrays_count_alike() -> None:
    t, s = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert paired(t.tolist(), s.tolist(), 0.03) == paired(t.numpy(), s.numpy(), 0.03)  # type: ignore[arg-type]


def test_verdicts_on_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images, got 2 and 3"):
        paired(kept("10"), kept("100"), 0.03)


def sized(params: int, macs: int, file_bytes: int, latency_ms: float) -> ModelReport:
    return ModelReport(
        arch="net",
        params=params,
        macs=macs,
        file_bytes=file_bytes,
        latency_ms=latency_ms,
        sha256="0",
        clean_accuracy=rate(torch.ones(2).bool()),
        robust_accuracy=None,
        certified=None,
    )


def test_ratios_are_teacher_over_student() -> None:
    found = ratios(sized(100, 60, 30, 3.0), sized(10, 20, 15, 2.0))
    assert found == {"params": 10, "macs": 3, "file_bytes": 2, "latency_ms": 1.5}


def test_a_student_without_a_product_still_has_a_ratio() -> None:
    assert ratios(sized(1, 60, 1, 1.0), sized(1, 0, 1, 1.0))["macs"] == 60
