"""Teacher and student on the same images."""

from kdcompress.evaluation.accuracy import Verdicts
from kdcompress.maths.intervals import paired_difference
from kdcompress.report import ModelReport, Paired


def paired(teacher: Verdicts, student: Verdicts) -> Paired:
    """Who kept which image under attack, and the drop in robust accuracy with its 95% interval (Tango 1998)."""
    t, s = teacher.robust, student.robust
    teacher_only, student_only = int((t & ~s).sum()), int((s & ~t).sum())
    low, high = paired_difference(teacher_only, student_only, len(t))
    return Paired(
        both_kept=int((t & s).sum()),
        teacher_only=teacher_only,
        student_only=student_only,
        both_lost=int((~t & ~s).sum()),
        drop=(teacher_only - student_only) / len(t),
        low=low,
        high=high,
        n=len(t),
    )


def ratios(teacher: ModelReport, student: ModelReport) -> dict[str, float]:
    """Teacher over student: how many times smaller or faster the student is."""
    return {
        "params": teacher.params / student.params,
        "macs": teacher.macs / max(student.macs, 1),
        "file_bytes": teacher.file_bytes / student.file_bytes,
        "latency_ms": teacher.latency_ms / student.latency_ms,
    }
