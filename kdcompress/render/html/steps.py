"""Certified accuracy over the radius as the steps that it is: a radius proved holds below itself, and nowhere else."""

from collections.abc import Mapping, Sequence

from kdcompress.certification import Certification, CertifiedModel
from kdcompress.maths.intervals import clopper_pearson
from kdcompress.render.html.curves import Curve, drawn
from kdcompress.report import Rate, Smoothing

MOST_STEPS = 400
"""Of a curve: with more images, some steps down are drawn sooner than they come."""


def smoothed(found: Certification) -> str | None:
    """Of the smoothed classifiers; None where nothing was smoothed."""
    shown = {
        name: one.smoothing for name, one in found.models.items() if one.smoothing is not None and one.smoothing.at
    }
    if not shown:
        return None
    curves = {name: of_smoothing(one, found.labels) for name, one in shown.items()}
    marked = {name: [point.radius for point in one.at] for name, one in shown.items()}
    cap = max(one.cap for one in shown.values())
    along, upwards = "certified radius (L2)", "certified accuracy, %"
    return drawn(curves, "smoothing", along, upwards, list(found.models), cap, marked)


def verified(found: Certification) -> str | None:
    """By sound bounds, at 0 clean accuracy; None where there are none, or nothing but one radius."""
    curves = {name: curve for name, one in found.models.items() if len(curve := _of_bounds(one)) > 2}
    if not curves:
        return None
    marked = {name: [0.0, *found.radii] for name in curves}
    along, upwards = f"eps ({found.threat_model.norm})", "verified accuracy, %"
    return drawn(curves, "bounds", along, upwards, list(found.models), None, marked)


def at_least(radii: Sequence[float], known: Mapping[float, Rate]) -> Curve:
    """The share of radii that are at least r, at each of them, at those in `known`, and at nothing beyond the last.

    Args:
        radii: one an image; below 0 where it counts nowhere.
        known: shares that are known already; that at 0 among them.

    >>> known = {0.0: Rate(value=0.75, low=0, high=1, n=4)}
    >>> [(round(r, 2), share.value) for r, share in at_least([0.2, 0.1, 0.0, -1.0], known)]
    [(0.0, 0.75), (0.1, 0.5), (0.2, 0.25), (0.21, 0.0)]
    """
    found = sorted({r for r in radii if r > 0}, reverse=True)
    found = found[:: -(-len(found) // MOST_STEPS) or 1]
    places = sorted({*found, *known})
    return [
        *((r, known.get(r) or _share(radii, r)) for r in places),
        (1.05 * places[-1], _share(radii, 2 * places[-1])),
    ]


def _share(radii: Sequence[float], r: float) -> Rate:
    k, n = sum(radius >= r for radius in radii), len(radii)
    low, high = clopper_pearson(k, n)
    return Rate(value=k / n, low=low, high=high, n=n)


def of_smoothing(found: Smoothing, labels: Sequence[int]) -> Curve:
    """Image by image; of the sequential test, whose radii lie on its grid, and of reports without labels, the grid."""
    at = {point.radius: point for point in found.at}
    if found.method == "sequential" or not len(labels) == len(found.radii) == len(found.predictions):
        return list(at.items())
    answers = zip(found.radii, found.predictions, labels, strict=True)
    return at_least([r if k == y else -1.0 for r, k, y in answers], at)


def _of_bounds(model: CertifiedModel) -> Curve:
    """Image by image; without the largest radii, those that were asked for: less than what holds between them."""
    if model.bounds is None or not model.bounds.at:
        return []
    at = {0.0: model.clean_accuracy, **{point.eps: point for point in model.bounds.at}}
    return at_least(model.bounds.largest, at) if model.bounds.largest else list(at.items())
