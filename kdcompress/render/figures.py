"""A report's figures as lines of text, one column a model: the same on the terminal, in Markdown and on the page."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from kdcompress.render.words import count, file_size, floored, percent, tenths_of_percent
from kdcompress.report import FirstOrder, ModelReport, Rate, Report, Smoothing
from kdcompress.threat import render_eps

Group = Literal["size", "accuracy", "over eps", "estimate", "smoothing"]


@dataclass(frozen=True)
class Line:
    """One figure of every model.

    Attributes:
        cells: one a model, in the report's order; empty where it was not measured.
        rates: the rates behind the cells; empty where the figure is none.
        ratio: teacher over student; empty where it makes no sense.
    """

    group: Group
    title: str
    cells: tuple[str, ...]
    rates: tuple[Rate | None, ...] = ()
    ratio: str = ""


def figures(report: Report) -> tuple[Line, ...]:
    """What was measured, in the order in which it is read; kinds of radius keep to their own groups."""
    models = list(report.models.values())
    return (
        *_sizes(report, models),
        *_accuracies(models),
        *_over_eps(models),
        *_estimates(models),
        *_smoothing(models),
    )


def _sizes(report: Report, models: list[ModelReport]) -> Iterator[Line]:
    for key, name, cells in (
        ("arch", "network", [model.arch for model in models]),
        ("params", "parameters", [count(model.params) for model in models]),
        ("macs", "MACs an image", [count(model.macs) for model in models]),
        ("file_bytes", "file", [file_size(model.file_bytes) for model in models]),
        ("latency_ms", "latency, 1 image", [f"{model.latency_ms:.2f} ms" for model in models]),
    ):
        ratio = f"{report.ratios[key]:.2f}x" if key in report.ratios else ""
        yield Line("size", name, tuple(cells), ratio=ratio)


def _accuracies(models: list[ModelReport]) -> Iterator[Line]:
    yield _of_rates("accuracy", "clean accuracy", [model.clean_accuracy for model in models])
    robust = [model.robust_accuracy for model in models]
    for attack in dict.fromkeys(rate.attack for rate in robust if rate is not None):
        under = [rate if rate is not None and rate.attack == attack else None for rate in robust]
        yield _of_rates("accuracy", f"robust accuracy, {attack}", under)


def _over_eps(models: list[ModelReport]) -> Iterator[Line]:
    at = [{point.eps: point for point in model.over_eps} for model in models]
    for eps in sorted({eps for points in at for eps in points}):
        yield _of_rates("over eps", f"robust at eps {render_eps(eps)}", [points.get(eps) for points in at])


def _estimates(models: list[ModelReport]) -> Iterator[Line]:
    found = [model.certified and model.certified.first_order for model in models]
    for norm, n in dict.fromkeys((one.norm, one.n) for one in found if one):
        cells = [_median(one) if one and (one.norm, one.n) == (norm, n) else "" for one in found]
        yield Line("estimate", f"first-order radius, {norm}: estimate, median of {n}", tuple(cells))


def _median(found: FirstOrder) -> str:
    return "infinite" if found.median is None else f"{found.median:.4f}"


def _smoothing(models: list[ModelReport]) -> Iterator[Line]:
    found = [model.certified.smoothing if model.certified else None for model in models]
    smoothed = [one for one in found if one]
    at = [{point.radius: point for point in one.at} if one else {} for one in found]
    for radius in sorted({radius for points in at for radius in points}):
        title = f"smoothed classifier: certified at L2 {radius:.3f}"
        yield _of_rates("smoothing", title, [points.get(radius) for points in at])
    least = ", at least" if any(one.method == "sequential" for one in smoothed) else ""
    title = f"smoothed classifier: average certified radius{least}"
    yield from _told(found, title, lambda one: "" if one.average_radius is None else floored(one.average_radius))
    yield from _told(found, "the network itself under that noise", lambda one: _share(one.noisy_accuracy))
    yield from _told(found, "smoothed classifier: abstained", _abstained)
    reasons = dict.fromkeys(cause.reason for one in smoothed for cause in one.reasons)
    for reason in reasons:
        yield from _told(found, f"  of them {reason}", lambda one, reason=reason: _count_of(one, reason))  # type: ignore[misc]
    yield from _told(found, "smoothed classifier: forward passes", lambda one: f"{one.draws:,}" if one.draws else "")
    title = "  and to explain abstentions, at most"
    yield from _told(found, title, lambda one: f"{one.diagnosis_draws:,}" if one.diagnosis_draws else "")
    for terms in dict.fromkeys(map(smoothing_terms, smoothed)):
        yield Line("smoothing", f"  {terms}", ("",) * len(models))


def _told(found: list[Smoothing | None], title: str, cell: Callable[[Smoothing], str]) -> Iterator[Line]:
    """The line, where any model has something to tell."""
    cells = tuple("" if one is None else cell(one) for one in found)
    if any(cells):
        yield Line("smoothing", title, cells)


def _share(value: float | None) -> str:
    return "" if value is None else tenths_of_percent(value)


def _count_of(found: Smoothing, reason: str) -> str:
    return next((str(cause.images) for cause in found.reasons if cause.reason == reason), "")


def _abstained(found: Smoothing) -> str:
    return f"{found.abstained} of {found.at[0].n}" if found.at else str(found.abstained)


def smoothing_terms(found: Smoothing) -> str:
    """What the certificate was bought with."""
    draws = f"n0 {found.n0}, n {found.n}"
    return f"{found.method}, sigma {found.sigma:g}, {draws}, alpha {found.alpha:g}: at most {found.cap:.3f}"


def _of_rates(group: Group, title: str, rates: Iterable[Rate | None]) -> Line:
    rates = tuple(rates)
    return Line(group, title, tuple("" if rate is None else percent(rate) for rate in rates), rates)
