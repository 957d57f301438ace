"""A certification's figures as lines, one column a network; each kind of radius by itself, with its guarantee."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kdcompress.certification import Certification, CertifiedModel
from kdcompress.render.figures import smoothing_terms
from kdcompress.render.words import count, floored, percent
from kdcompress.report import Clever, FirstOrder, Smoothing, Verified
from kdcompress.threat import render_eps

GUARANTEES = {
    "first-order": "First-order radius: an ESTIMATE. The distance to the decision boundary if the network were linear; "
    "it bounds nothing.",
    "clever": "CLEVER: an ESTIMATE of a lower bound, from the largest gradients of a sample; it bounds nothing, and "
    "hidden gradients inflate it.",
    "smoothing": "Randomized smoothing: an L2 CERTIFICATE of the SMOOTHED classifier, wrong with probability alpha an "
    "image at most. That is another classifier than the network.",
    "bounds": "Sound bounds: a CERTIFICATE of the network itself: no point of the ball is misclassified, but "
    "for rounding inside the network.",
}


@dataclass(frozen=True)
class Line:
    """One figure of every network; cells are empty where it was not measured."""

    title: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One kind of radius: what it promises, and its figures."""

    kind: str
    guarantee: str
    lines: tuple[Line, ...]


def networks(found: Certification) -> tuple[Line, ...]:
    """What the networks are."""
    models = list(found.models.values())
    return (
        Line("network", tuple(model.arch for model in models)),
        Line("parameters", tuple(count(model.params) for model in models)),
        Line("clean accuracy", tuple(percent(model.clean_accuracy) for model in models)),
    )


def sections(found: Certification) -> tuple[Section, ...]:
    """The kinds that were asked for, estimates first."""
    models = list(found.models.values())
    kinds = {
        "first-order": _first_order([model.first_order for model in models]),
        "clever": _clever([model.clever for model in models]),
        "smoothing": _smoothing([model.smoothing for model in models]),
        "bounds": _bounds(models),
    }
    asked = found.settings["kinds"]
    return tuple(Section(kind, GUARANTEES[kind], tuple(lines)) for kind, lines in kinds.items() if kind in asked)


def radius(value: float | None) -> str:
    """A radius in pixel units.

    >>> radius(0.01234), radius(None)
    ('0.0123', 'infinite')
    """
    return "infinite" if value is None else f"{value:.4f}"


def _first_order(found: list[FirstOrder | None]) -> Iterator[Line]:
    yield _medians(found)


def _clever(found: list[Clever | None]) -> Iterator[Line]:
    yield _medians(found)
    if shown := next(filter(None, found), None):
        title = f"estimates cut off at R = {shown.R:g}, the radius that was sampled"
        yield Line(title, _told(found, lambda one: f"{one.at_cap} of {one.n}"))
        sampled = f"Nb {shown.Nb}, Ns {shown.Ns}, {shown.rivals} nearest rivals, seed {shown.seed}"
        yield Line(f"  {sampled} (the source: 500, 1024; fewer points, larger estimates)", ("",) * len(found))


def _medians(found: Sequence[FirstOrder | None] | Sequence[Clever | None]) -> Line:
    """Of an estimate, a misclassified image counted as 0."""
    shown = next((one for one in found if one is not None), None)
    title = "no estimate" if shown is None else f"{shown.norm}, estimate: median of {shown.n}, misclassified as 0"
    return Line(title, tuple("no gradients" if one is None else radius(one.median) for one in found))


def _smoothing(found: list[Smoothing | None]) -> Iterator[Line]:
    shown = [one for one in found if one is not None]
    at = [{point.radius: point for point in one.at} if one else {} for one in found]
    for r in sorted({point.radius for one in shown for point in one.at}):
        points = (points.get(r) for points in at)
        yield Line(f"certified accuracy at L2 {r:.3f}", tuple("" if p is None else percent(p) for p in points))
    if shown:
        # A sequential test shows radii of the curve only, so that each image's is one from below.
        title = "average certified radius" + (", at least" if shown[0].method == "sequential" else "")
        yield Line(title, _told(found, lambda one: floored(one.average_radius)))
        yield Line("abstained", _told(found, lambda one: f"{one.abstained} of {len(one.predictions)}"))
        yield Line("forward passes", _told(found, lambda one: "" if one.draws is None else f"{one.draws:,}"))
        if any(one.diagnosis_draws for one in shown):
            yield Line(
                "  and to explain abstentions, at most", _told(found, lambda one: f"{one.diagnosis_draws or 0:,}")
            )
    for terms in dict.fromkeys(map(smoothing_terms, shown)):
        yield Line(f"  {terms}", ("",) * len(found))


def _bounds(models: list[CertifiedModel]) -> Iterator[Line]:
    found = [model.bounds for model in models]
    shown = [one for one in found if one is not None]
    if not shown:
        return
    attack = " or ".join(dict.fromkeys(one.attack for one in shown if one.attack is not None))
    norm, at = shown[0].norm, [{point.eps: point for point in one.at} if one else {} for one in found]
    for eps in sorted({point.eps for one in shown for point in one.at}):
        points = [points.get(eps) for points in at]
        yield Line(
            f"verified accuracy at {norm} {render_eps(eps)}",
            tuple(_unsupported(one) if p is None else percent(p) for one, p in zip(found, points, strict=True)),
        )
        for words, told in (
            ("proved", lambda p: p.verified),
            ("misclassified", lambda p: p.wrong),
            (f"broken by {attack}", lambda p: p.broken),
            ("neither proved nor broken", lambda p: p.open),
        ):
            yield Line(f"  {words}", _told(points, lambda p, told=told: f"{told(p)} of {p.n}"))
    if not any(one.at for one in shown):
        yield Line(f"verified accuracy, {norm}", tuple(map(_unsupported, found)))
    if any(one.median is not None for one in shown):
        cells = ("" if one is None or one.median is None else floored(one.median) for one in found)
        yield Line(f"largest certified {norm} radius, median (misclassified: 0)", tuple(cells))


def _unsupported(found: Verified | None) -> str:
    return (found.unsupported or "") if found is not None else ""


def _told(found: Iterable, words) -> tuple[str, ...]:  # type: ignore[no-untyped-def, type-arg]
    return tuple("" if one is None else words(one) for one in found)
