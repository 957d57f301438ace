"""Two networks on the same images."""

from collections.abc import Sequence

from kdcompress.maths.intervals import mcnemar, paired_difference
from kdcompress.report import ModelReport, Paired


def paired(teacher: Sequence[bool], student: Sequence[bool], within: float) -> Paired:
    """Who kept which image under attack, the drop in robust accuracy (Tango 1998), and whether that is `within`.

    Args:
        teacher: for each image, whether it stood the attack. student: the same, of the same images in the same order.
    """
    if len(teacher) != len(student):
        raise ValueError(f"expected verdicts on the same images, got {len(teacher)} and {len(student)}")
    n, pairs = len(teacher), [(bool(t), bool(s)) for t, s in zip(teacher, student, strict=True)]
    teacher_only, student_only = pairs.count((True, False)), pairs.count((False, True))
    low, high = paired_difference(teacher_only, student_only, n)
    return Paired(
        both_kept=pairs.count((True, True)),
        teacher_only=teacher_only,
        student_only=student_only,
        both_lost=pairs.count((False, False)),
        drop=(teacher_only - student_only) / n,
        low=low,
        high=high,
        p_value=mcnemar(teacher_only, student_only),
        within=within,
        preserved=high <= within,
        n=n,
    )


def ratios(teacher: ModelReport, student: ModelReport) -> dict[str, float]:
    """Teacher over student: how many times smaller or faster the student is."""
    return {
        "params": teacher.params / student.params,
        "macs": teacher.macs / max(student.macs, 1),
        "file_bytes": teacher.file_bytes / student.file_bytes,
        "latency_ms": teacher.latency_ms / student.latency_ms,
    }
