"""What stands between two reports: why an accuracy of one is no measure for the other's, and what else differs."""

from kdcompress.comparison import Column
from kdcompress.report import IN_MEMORY, RobustRate
from kdcompress.threat import ThreatModel, render_eps


def same_images(baseline: Column, other: Column) -> bool:
    """The same images in the same order, by fingerprint: the same seed and number alone may be of other data."""
    return baseline.data.sha256 == other.data.sha256 != ""


def other_data(baseline: Column, other: Column) -> tuple[str, ...]:
    """Why no accuracy of one says anything about the other's."""
    a, b = baseline.data, other.data
    if same_images(baseline, other):
        return ()
    if a.name != b.name:
        return (f"accuracy: measured on {b.name}, the baseline on {a.name}",)
    if a.name == IN_MEMORY:  # all images in memory are called so
        return ("accuracy: measured on other images in memory than the baseline's; take the same for both",)
    if a.classes != b.classes:
        return (f"accuracy: measured on {len(b.classes)} other classes than the baseline's {len(a.classes)}",)
    return ()


def other_attack(baseline: Column, other: Column) -> tuple[str, ...]:
    """Why the two robust accuracies are not of one kind.

    An attack that stopped when its gate was decided is refused: it stopped because of what it had found by then, and
    neither its rate nor a difference from it has an interval for one sample of fixed size. One that was free to stop
    and took all images found what it would have found without a gate, and is compared; `other_circumstances` notes it.
    That only undecided runs get so far makes no error more frequent: an interval that misses, or a gate that is wrongly
    met, needs all images to say so, and they do not say so more often because some runs end before. Of the runs that
    do take all images a larger share may err.
    """
    a, b = baseline.figures.robust_accuracy, other.figures.robust_accuracy
    if a is None or b is None:
        return tuple(
            f"robust accuracy: {column.label} was not attacked"
            for column, rate in ((baseline, a), (other, b))
            if rate is None
        )
    ball, usual = (ThreatModel(column.threat_model.norm, column.threat_model.eps) for column in (other, baseline))
    reasons = []
    if ball != usual:
        reasons.append(f"robust accuracy: attacked within {ball}, the baseline within {usual}")
    if (a.attack, a.stages) != (b.attack, b.stages):
        reasons.append(f"robust accuracy: attacked by {_attack(b)}, the baseline by {_attack(a)}")
    for column, rate in ((baseline, a), (other, b)):
        if _free_to_stop(rate) and rate.n < column.data.images:
            reasons.append(
                f"robust accuracy: {column.label} stopped after {rate.n} of {column.data.images} images, when its gate "
                "was decided; evaluate it without --confidence"
            )
    return tuple(reasons)


def other_device(baseline: Column, other: Column) -> tuple[str, ...]:
    """Why the two latencies are not of one machine."""
    if baseline.device == other.device:
        return ()
    return (f"latency: measured on {other.device}, the baseline's on {baseline.device}",)


def _free_to_stop(rate: RobustRate) -> bool:
    return rate.interval == "anytime-valid"


def _radii(column: Column) -> tuple[float, ...]:
    """Those that decide who stood at the threat model's: itself and the smaller ones, ascending."""
    eps = column.threat_model.eps
    return tuple(sorted({eps, *(point.eps for point in column.figures.over_eps if point.eps < eps)}))


def _listed(radii: tuple[float, ...]) -> str:
    return ", ".join(map(render_eps, radii))


def _attack(rate: RobustRate) -> str:
    return f"{rate.attack} ({', '.join(rate.stages)})"


def other_circumstances(baseline: Column, other: Column) -> tuple[str, ...]:
    """What else is not alike, and may explain a difference."""
    notes = []
    a, b = baseline.figures.robust_accuracy, other.figures.robust_accuracy
    if a is not None and b is not None:
        if a.chunk != b.chunk:
            notes.append(f"attacked {b.chunk} images at once, the baseline {a.chunk}: each chunk has its own seed")
        if a.surrogate != b.surrogate:
            notes.append(f"attacked by way of {b.surrogate or 'itself'}, the baseline of {a.surrogate or 'itself'}")
        if baseline.threat_model == other.threat_model and (usual := _radii(baseline)) != (radii := _radii(other)):
            notes.append(
                f"attacked at eps {_listed(radii)}, the baseline at eps {_listed(usual)}: an image that falls at a "
                f"smaller eps counts as fallen at {render_eps(other.threat_model.eps)}"
            )
        notes += [
            f"{column.label} was free to stop early and took all {rate.n} images: such runs are the undecided ones, "
            "and their intervals may miss more often than those of all runs"
            for column, rate in ((baseline, a), (other, b))
            if _free_to_stop(rate) and rate.n == column.data.images
        ]
    moved = [
        f"{name} {other.versions.get(name, 'none')} ({baseline.versions.get(name, 'none')})"
        for name in sorted({*baseline.versions, *other.versions})
        if baseline.versions.get(name) != other.versions.get(name)
    ]
    if moved:
        notes.append(f"other versions than the baseline's: {', '.join(moved)}")
    return tuple(notes)
