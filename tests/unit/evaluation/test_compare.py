"""Teacher and student on the same images."""

import pytest
import torch

from kdcompress.evaluation.accuracy import Verdicts, rate
from kdcompress.evaluation.compare import paired, ratios
from kdcompress.report import ModelReport


def verdicts(robust: str) -> Verdicts:
    kept = torch.tensor([one == "1" for one in robust])
    return Verdicts(torch.ones(len(robust)).bool(), kept, "PGD-3", ())


def test_the_four_counts_add_up_and_the_drop_is_their_difference() -> None:
    found = paired(verdicts("1111100000"), verdicts("1100010000"))
    counts = (found.both_kept, found.teacher_only, found.student_only, found.both_lost)
    assert counts == (2, 3, 1, 4) and sum(counts) == found.n
    assert found.drop == pytest.approx(0.2)
    assert found.low < found.drop < found.high


def test_a_better_student_has_a_negative_drop_and_exchanging_the_two_mirrors_everything() -> None:
    a, b = verdicts("1100000000"), verdicts("1111000000")
    found, mirrored = paired(a, b), paired(b, a)
    assert found.drop == pytest.approx(-0.2)
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low))
    assert (found.teacher_only, found.student_only) == (mirrored.student_only, mirrored.teacher_only)


def test_the_drop_is_the_difference_of_the_two_robust_rates() -> None:
    t, s = verdicts("1110110101"), verdicts("0101100001")
    assert paired(t, s).drop == pytest.approx(rate(t.robust).value - rate(s.robust).value)


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
