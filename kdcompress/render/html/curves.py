"""Accuracy over a radius, one line a model with its interval as a band."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.figure import Figure

from kdcompress.render.html.svg import INK, QUIET, RULE, SERIES, inline
from kdcompress.render.words import printable, tenths_of_percent, title
from kdcompress.report import Rate, Report
from kdcompress.threat import render_eps

# Lines are told apart by marker and dash too: neither a grey print nor a colour-blind eye sees hues.
MARKERS = ("s", "o", "^", "D", "v")
DASHES = ("--", "-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MOST_TICKS = 8
LEAST_ROOM = 0.06
"""Of the axis, between two labels."""

Curve = Sequence[tuple[float, Rate]]


def series(models: Sequence[str]) -> dict[str, int]:
    """Each model's number among colours and markers: 0 is the teacher's, the others count on."""
    others = [name for name in models if name != "teacher"]
    return {name: 0 for name in models if name == "teacher"} | {
        name: 1 + place % (len(SERIES) - 1) for place, name in enumerate(others)
    }


def over_eps(report: Report) -> str | None:
    """Robust accuracy over eps; at 0 it is clean accuracy. None where one radius was attacked."""
    curves = {
        name: [(0.0, model.clean_accuracy), *((point.eps, point) for point in model.over_eps)]
        for name, model in report.models.items()
        if model.over_eps
    }
    if not curves:
        return None
    return drawn(curves, "eps", f"eps ({report.threat_model.norm})", "robust accuracy, %", list(report.models), None)


def over_radius(report: Report) -> str | None:
    """Certified accuracy of the smoothed classifier over the radius. None where nothing was smoothed."""
    smoothed = {
        name: model.certified.smoothing
        for name, model in report.models.items()
        if model.certified is not None and model.certified.smoothing is not None and model.certified.smoothing.at
    }
    if not smoothed:
        return None
    curves = {name: [(point.radius, point) for point in found.at] for name, found in smoothed.items()}
    marked = {name: [radius for radius, _ in curve] for name, curve in curves.items()}
    cap = max(found.cap for found in smoothed.values())
    return drawn(curves, "radius", "certified radius (L2)", "certified accuracy, %", list(report.models), cap, marked)


def drawn(
    curves: Mapping[str, Curve],
    key: str,
    along: str,
    upwards: str,
    models: Sequence[str],
    cap: float | None,
    marked: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """A line for each curve with its interval as a band, as SVG.

    Args:
        key: of letters and digits, unique in its page.
        along, upwards: what the axes show.
        models: all of the page, which colours and markers go by.
        cap: where certified radii end; None for nowhere.
        marked: radii with a marker, where curves are steps: up to a point, and from the one before, a share is that of
            the point. None for straight lines, a marker at every point.
    """
    steps: Literal["pre"] | None = None if marked is None else "pre"
    figure = Figure(figsize=(5.6, 3.3), layout="constrained")
    axes = figure.add_subplot()
    places = series(models)
    for name, curve in curves.items():
        place = places[name]
        x = [radius for radius, _ in curve]
        marks = None if marked is None else [number for number, radius in enumerate(x) if radius in marked[name]]
        low, high = [100 * rate.low for _, rate in curve], [100 * rate.high for _, rate in curve]
        axes.fill_between(x, low, high, color=SERIES[place], alpha=0.14, linewidth=0, step=steps)
        axes.plot(
            x,
            [100 * rate.value for _, rate in curve],
            color=SERIES[place],
            marker=MARKERS[place],
            markevery=marks,
            drawstyle="default" if steps is None else "steps-pre",
            linestyle=DASHES[place],
            markersize=4.5,
            linewidth=1.6,
            label=printable(title(name))[:40],
            clip_on=False,
            zorder=3,
        )
    if cap is not None:
        axes.axvline(cap, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate("most that n draws certify", (cap, 97), (-4, 0), textcoords="offset points", color=QUIET)
        axes.texts[-1].set(ha="right", va="top", fontsize=9)
    told = {
        name: [point for point in curve if marked is None or point[0] in marked[name]] for name, curve in curves.items()
    }
    ticks = sorted({radius for curve in told.values() for radius, _ in curve})
    furthest = max(radius for curve in curves.values() for radius, _ in curve)
    _ticked(axes, [*ticks, *_multiples(ticks[-1], furthest)], along)
    axes.set_ylabel(upwards)
    _quietly_styled(axes)
    legend = figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK, handlelength=3.2)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a name is a dollar
    with warnings.catch_warnings():
        # Letters that matplotlib's font lacks are measured roughly here, and drawn by the page's font.
        warnings.filterwarnings("ignore", message=".*Glyph")
        return inline(figure, key, f"{upwards} over {along}. {_told(told)}")


def _multiples(radius: float, furthest: float) -> list[float]:
    """Twice the radius, thrice, ... as far as curves go on beyond the last that was asked for.

    >>> _multiples(2.0, 6.3), _multiples(2.0, 2.1), _multiples(0.0, 1.0)
    ([4.0, 6.0], [], [])
    """
    return [radius * times for times in range(2, int(furthest / radius) + 1)] if radius > 0 else []


def _ticked(axes, radii: list[float], along: str) -> None:  # type: ignore[no-untyped-def]
    """A tick a radius where they are few, in 255ths where all are whole ones; labels that would touch give way."""
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    axes.set_xlabel(along)
    if len(radii) > MOST_TICKS:
        return
    texts = ["0" if radius == 0 else render_eps(radius) for radius in radii]
    if all(text.endswith("/255") for text in texts if text != "0"):
        texts = [text.removesuffix("/255") for text in texts]
        axes.set_xlabel(f"{along}, in 255ths")
    room = LEAST_ROOM * max(radii)
    labels, last = [], -room
    for radius, text in zip(radii, texts, strict=True):
        kept = radius - last >= room
        labels.append(text if kept else "")
        last = radius if kept else last
    axes.set_xticks(radii, labels)


def _quietly_styled(axes) -> None:  # type: ignore[no-untyped-def]
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.tick_params(colors=QUIET, length=3)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def _told(curves: Mapping[str, Curve]) -> str:
    """The curves in words, for those who hear the page."""
    return " ".join(f"{printable(title(name))}: {_told_one(curve)}." for name, curve in curves.items())


def _told_one(curve: Curve) -> str:
    return ", ".join(f"{tenths_of_percent(rate.value)} at {radius:.3g}" for radius, rate in curve)
