"""What a report says in sentences: shared by the terminal, the page, Markdown and JUnit."""

import operator

from kdcompress.comparison import Comparison
from kdcompress.render.words import decimals, p_value, points, signed_points, title
from kdcompress.report import Masking, ModelReport, Paired, Report, RobustRate
from kdcompress.threat import ThreatModel

DISTRUST = "NOT TO BE TRUSTED"


def threat(report: Report) -> ThreatModel:
    """The threat model, which prints as `Linf 8/255`."""
    return ThreatModel(report.threat_model.norm, report.threat_model.eps)


def heading(report: Report) -> str:
    """What was evaluated, on how many images of how many, under which threat, where."""
    data = report.data
    return f"{data.name}: {data.images} of {data.of} test images, {threat(report)}, {report.device}"


def verdict(found: Report | Comparison) -> str:
    """The gates, in three words."""
    missed, gates = sum(not gate.met for gate in found.gates), len(found.gates)
    if not gates:
        return "No gates were set"
    if missed:
        return f"{missed} of {gates} gates missed" if gates > 1 else "The gate was missed"
    return f"All {gates} gates met" if gates > 1 else "The gate was met"


def distrust(report: Report) -> dict[str, tuple[str, ...]]:
    """By model: why its robust accuracy is not to be trusted. Models without a flag are left out."""
    return {
        name: model.masking.reasons
        for name, model in report.models.items()
        if model.masking is not None and model.masking.reasons
    }


def passed(masking: Masking) -> str:
    """How many checks found nothing, and how many could not look."""
    clean = sum(not check.flagged and check.statistic is not None for check in masking.checks)
    mute = sum(not check.flagged and check.statistic is None for check in masking.checks)
    raised = sum(check.flagged for check in masking.checks)
    parts = [f"{clean} passed"]
    if raised:
        parts.append(f"{raised} FLAGGED")
    if mute:
        parts.append(f"{mute} not applicable")
    return ", ".join(parts)


def masking_lines(report: Report) -> dict[str, str]:
    """By model that was checked: what the masking checks say, on one line."""
    reasons = distrust(report)
    return {
        name: f"{title(name)}: robust accuracy {DISTRUST}, because: {'; '.join(reasons[name])}"
        if name in reasons
        else f"{title(name)}: masking checks: {passed(model.masking)}"
        for name, model in report.models.items()
        if model.masking is not None
    }


def attack_terms(report: Report) -> tuple[str, ...]:
    """What must be known to read a robust accuracy, where it is not the plain case."""
    return tuple(
        f"{title(name)}: {remark}"
        for name, model in report.models.items()
        if model.robust_accuracy is not None
        for remark in _remarks(model.robust_accuracy, report.data.images)
    )


def _remarks(rate: RobustRate, images: int) -> list[str]:
    remarks = []
    if rate.interval != "Clopper-Pearson":
        gate = (
            f"a gate stopped the attack after {rate.n} of {images} images"
            if rate.n < images
            else f"a gate was free to stop the attack, which took all {images} images"
        )
        remarks.append(
            f"{gate}; the interval of the robust accuracy is {rate.interval} at {rate.confidence:.0%}: it holds "
            "wherever one stops"
        )
    elif rate.n != images:
        remarks.append(f"robust accuracy on {rate.n} of {images} images")
    if rate.surrogate is not None:
        remarks.append(
            f"has no gradients of its own; white-box attacks were made on {rate.surrogate}"
            if rate.attack.startswith("no gradients")
            else f"attacked by its own gradients; what breaks {rate.surrogate} was tried on it too"
        )
    return remarks


def comparison(found: Paired) -> str:
    """Teacher against student on the same images, in a sentence."""
    return (
        f"On the same {found.n} images under attack: both kept {found.both_kept}, teacher only {found.teacher_only}, "
        f"student only {found.student_only}, both lost {found.both_lost}. {drop(found)}"
    )


def drop(found: Paired) -> str:
    """How far the student's robust accuracy lies below the teacher's, and how sure that is."""
    digits = decimals(found.high, found.within, 1, operator.le)
    return (
        f"The student's robust accuracy is {abs(found.drop) * 100:.1f} points "
        f"{'below' if found.drop >= 0 else 'above'} the teacher's (95% interval of the drop: "
        f"{signed_points(found.low, digits)} to {signed_points(found.high, digits)} points; McNemar's exact test: "
        f"{p_value(found.p_value)})."
    )


def preserved(report: Report) -> str:
    """What the comparison shows, in one sentence; nothing where nothing was compared."""
    if report.paired is None:
        return ""
    within = f"within {points(report.paired.within)} points"
    if flagged := distrust(report):
        names = " and ".join(map(title, flagged))
        return (
            f"Whether robustness is preserved {within} cannot be told: the robust accuracy of {names} is not to be "
            "trusted."
        )
    kept = kept_or_lost(bool(report.paired.preserved), report.paired.low, report.paired.within)
    return f"Robustness {kept} {within} at 95%."


def kept_or_lost(preserved: bool, low: float, within: float) -> str:
    """One of three: kept, lost, or too few images to tell.

    Args:
        preserved: whether the drop's whole interval lies within.
        low: of that interval.

    >>> kept_or_lost(False, 0.01, 0.03), kept_or_lost(False, 0.04, 0.03)
    ('not shown to be preserved', 'shown not to be preserved')
    """
    if preserved:
        return "preserved"
    return "shown not to be preserved" if low > within else "not shown to be preserved"


def judged(report: Report) -> ModelReport:
    """The model that the report is about: the last that is no teacher, or the teacher alone."""
    others = [model for name, model in report.models.items() if name != "teacher"]
    return (others or list(report.models.values()))[-1]
