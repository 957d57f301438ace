"""Eq. 26 in pictures: the gap of the losses against its bound, image by image, and the terms of the bound."""

import warnings
from collections.abc import Mapping, Sequence
from statistics import quantiles

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kdcompress.render.html.curves import MARKERS, series
from kdcompress.render.html.svg import INK, QUIET, RULE, SERIES, inline
from kdcompress.render.words import printable, title
from kdcompress.report import Proposition2
from kdcompress.threat import render_eps

FLOOR = 1e-4
"""Nats: below it a loss is zero to anyone's eye, and a logarithmic axis needs an end."""

TERMS = {
    "gap": "gap: largest difference found",
    "bound": "bound (estimate)",
    "remainder_student": "student's remainder (estimate)",
    "remainder_teacher": "teacher's remainder (estimate)",
    "gradients": "gradients' difference",
    "losses": "losses' difference",
}
"""Rows of the second picture, fields of `Proposition2`."""


def gap_over_bound(found: Mapping[str, Proposition2]) -> str | None:
    """A point an image: the gap of the losses over the bound's estimate. None where nothing was evaluated.

    On the line the bound is reached; above it no point can lie, since all points found serve both sides.

    Args:
        found: a student's key in the report -> its evaluation; all in one ball.
    """
    if not found:
        return None
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    places = series(list(found))
    for name, one in found.items():
        place = places[name]
        axes.scatter(
            [max(value, FLOOR) for value in one.bound],
            [max(value, FLOOR) for value in one.gap],
            s=18,
            marker=MARKERS[place],
            facecolors="none",
            edgecolors=SERIES[place],
            linewidths=1.0,
            alpha=0.8,
            label=printable(title(name))[:40],
            zorder=3,
        )
    values = [max(value, FLOOR) for one in found.values() for value in (*one.bound, *one.gap)]
    low, high = min(values) / 1.3, max(values) * 1.3
    axes.plot([low, high], [low, high], color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=2)
    at = low**0.3 * high**0.7
    axes.annotate("gap = bound", (at, at), (-8, 4), textcoords="offset points", color=QUIET, ha="right", fontsize=9)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel("right side, estimate, nats")
    axes.set_ylabel("gap found by attack, nats")
    _plainly_ticked(axes.xaxis, axes.yaxis)
    _quietly_styled(axes)
    return _drawn(figure, "gap", f"Gap of the losses over its bound, {_ball(found)}. {_told(found)}")


def terms_of_bound(found: Mapping[str, Proposition2]) -> str | None:
    """Median and middle half of each term over the images, student beside student. None where nothing was evaluated."""
    if not found:
        return None
    figure = Figure(figsize=(6.4, 0.9 + 0.42 * len(TERMS)), layout="constrained")
    axes = figure.add_subplot()
    places = series(list(found))
    step = 0.56 / max(1, len(found) - 1)
    for number, (name, one) in enumerate(found.items()):
        place = places[name]
        rows = [row + (number - (len(found) - 1) / 2) * step for row in range(len(TERMS))]
        spans = [quartiles(getattr(one, term)) for term in TERMS]
        for row, (low, _, high) in zip(rows, spans, strict=True):
            axes.plot([low, high], [row, row], color=SERIES[place], linewidth=1.6, zorder=2)
        axes.scatter(
            [middle for _, middle, _ in spans],
            rows,
            s=24,
            marker=MARKERS[place],
            color=SERIES[place],
            label=printable(title(name))[:40],
            zorder=3,
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(TERMS)), TERMS.values())
    axes.invert_yaxis()
    axes.set_xlabel("nats: median and middle half of the images")
    _plainly_ticked(axes.xaxis)
    _quietly_styled(axes)
    return _drawn(figure, "terms", f"What the bound is made of, {_ball(found)}. {_told(found)}")


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile, none below what a logarithmic axis shows.

    >>> quartiles([1.0, 2.0, 3.0]), quartiles([0.0])
    ((1.5, 2.0, 2.5), (0.0001, 0.0001, 0.0001))
    """
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * list(values)
    return max(low, FLOOR), max(middle, FLOOR), max(high, FLOOR)


def _ball(found: Mapping[str, Proposition2]) -> str:
    one = next(iter(found.values()))
    return f"{one.norm} {render_eps(one.eps)}"


def _told(found: Mapping[str, Proposition2]) -> str:
    """The medians in words, for those who hear the page."""
    return " ".join(
        f"{printable(title(name))}: median gap {one.median_gap:.3g}, median bound {one.median_bound:.3g}, "
        f"largest term most often: {TERMS[max(one.dominant, key=lambda term: one.dominant[term])]}."
        for name, one in found.items()
    )


def _plainly_ticked(*axes) -> None:  # type: ignore[no-untyped-def]
    """0.5, 1, 2: numbers as the tables have them, not powers; over several decades 0.1, 1, 10, which do not touch."""
    for axis in axes:
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5), numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _quietly_styled(axes) -> None:  # type: ignore[no-untyped-def]
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.tick_params(colors=QUIET, length=0, which="both")
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def _drawn(figure: Figure, key: str, description: str) -> str:
    legend = figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name is a dollar
    with warnings.catch_warnings():
        # Letters that matplotlib's font lacks are measured roughly here, and drawn by the page's font.
        warnings.filterwarnings("ignore", message=".*Glyph")
        return inline(figure, key, description)
