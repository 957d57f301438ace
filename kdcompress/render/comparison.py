"""Reports side by side, as a table and sentences for a terminal."""

import operator
from collections.abc import Callable
from functools import partial

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcompress.comparison import AgainstBaseline, Column, Comparison, Drop
from kdcompress.render.gates import gate_line
from kdcompress.render.sentences import DISTRUST, kept_or_lost
from kdcompress.render.words import count, decimals, file_size, percent, signed_points
from kdcompress.report import CertifiedRate, Smoothing
from kdcompress.threat import ThreatModel

INTERVALS = "95% intervals in brackets, unless a figure says otherwise"


def side_by_side(found: Comparison) -> Group:
    """The figures, then each report against the baseline, then the gates."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in found.columns:
        table.add_column(_text(column.label), justify="right")
    for title, *cells in rows(found.columns):
        table.add_row(title, *map(_text, cells))
    parts: list[RenderableType] = [table]
    for first, *lines in differences(found):
        parts.append(_text(first))
        parts += [_text(f"  {line}", style="bold red" if DISTRUST in line else "") for line in lines]
    parts += [_text(gate_line(gate), style="" if gate.met else "bold red") for gate in found.gates]
    parts.append(Text(INTERVALS))
    return Group(*parts)


def rows(columns: tuple[Column, ...]) -> list[tuple[str, ...]]:
    """One row a figure: its title and a cell for each report; what no report has is left out."""
    found: list[tuple[str, ...]] = []

    def row(title: str, cell: Callable[[Column], str]) -> None:
        cells = [cell(column) for column in columns]
        if any(cells):
            found.append((title, *cells))

    row("model", lambda column: column.name)
    row("data", lambda column: f"{column.data.name}: {column.data.images} of {column.data.of}")
    row("threat model", lambda column: str(ThreatModel(column.threat_model.norm, column.threat_model.eps)))
    row("attack", lambda column: rate.attack if (rate := column.figures.robust_accuracy) else "")
    row("device", lambda column: column.device)
    row("network", lambda column: column.figures.arch)
    row("parameters", lambda column: count(column.figures.params))
    row("MACs an image", lambda column: count(column.figures.macs))
    row("file", lambda column: file_size(column.figures.file_bytes))
    row("latency, 1 image", lambda column: f"{column.figures.latency_ms:.2f} ms")
    row("clean accuracy", lambda column: percent(column.figures.clean_accuracy))
    row("robust accuracy", _robust)
    for radius in sorted({point.radius for column in columns for point in _curve(column)}):
        row(f"smoothed classifier: certified at L2 {radius:.3f}", partial(_at, radius))
    row("  its terms", _terms)
    row("signs of masking", _masking)
    return found


def differences(found: Comparison) -> list[list[str]]:
    """Each report against the baseline: a heading, and a line for everything that can be said of the two."""
    baseline, *others = found.columns
    return [
        _difference(against, baseline, other) for against, other in zip(found.against_baseline, others, strict=True)
    ]


def _difference(found: AgainstBaseline, baseline: Column, other: Column) -> list[str]:
    ratio = found.ratios
    sizes = [
        f"{words} {ratio[key]:.2f}x"
        for key, words in (
            ("params", "parameters"),
            ("macs", "MACs"),
            ("file_bytes", "file"),
            ("latency_ms", "latency"),
        )
        if key in ratio
    ]
    lines = [f"{other.label} against {baseline.label}: {', '.join(sizes)}"]
    if found.clean_drop is not None:
        lines.append(f"drop in clean accuracy {lost(found.clean_drop)}")
    if found.robust_drop is not None:
        lines.append(f"drop in robust accuracy {lost(found.robust_drop, found.within)}")
    doubted = [
        f"{column.label}: robust accuracy {DISTRUST}, because: {'; '.join(masking.reasons)}"
        for column in (baseline, other)
        if (masking := column.figures.masking) is not None and masking.reasons
    ]
    lines += doubted
    within = f"within {100 * found.within:.6g} points"
    if found.robust_drop is not None and found.preserved is None:
        lines.append(f"whether robustness is preserved {within} cannot be told")
    elif found.robust_drop is not None:
        kept = kept_or_lost(bool(found.preserved), found.robust_drop.low, found.within)
        lines.append(f"robustness {kept} {within} at 95%")
    lines += [f"not comparable: {reason}" for reason in found.not_comparable]
    return lines + [f"note: {note}" for note in found.notes]


def lost(drop: Drop, within: float | None = None) -> str:
    """A drop, as its gate names it: what was lost is positive.

    Args:
        within: what may be lost; the interval has the digits that tell its upper end from it.

    >>> unpaired = {"method": "unpaired", "baseline_only": None, "other_only": None, "p_value": None}
    >>> lost(Drop(value=0.02, low=-0.01, high=0.05, **unpaired))
    '+2.0 points [-1.0, +5.0], unpaired'
    """
    digits = 1 if within is None else decimals(drop.high, within, 1, operator.le)
    value, low, high = (signed_points(figure, digits) for figure in (drop.value, drop.low, drop.high))
    points = f"{value} points [{low}, {high}]"
    if drop.p_value is None:
        return f"{points}, unpaired"
    return (
        f"{points}, paired: {drop.baseline_only} right for the baseline alone, {drop.other_only} for this alone, "
        f"McNemar's p {drop.p_value:.2g}"
    )


def _robust(column: Column) -> str:
    rate = column.figures.robust_accuracy
    if rate is None:
        return ""
    stopped = rate.interval == "anytime-valid"
    return percent(rate) + (f" at {rate.confidence:.4g}, {rate.n} images" if stopped else "")


def _smoothing(column: Column) -> Smoothing | None:
    return None if column.figures.certified is None else column.figures.certified.smoothing


def _curve(column: Column) -> tuple[CertifiedRate, ...]:
    return smoothing.at if (smoothing := _smoothing(column)) else ()


def _at(radius: float, column: Column) -> str:
    return next((percent(point) for point in _curve(column) if point.radius == radius), "")


def _terms(column: Column) -> str:
    smoothing = _smoothing(column)
    if smoothing is None:
        return ""
    return f"{smoothing.method}, sigma {smoothing.sigma:g}, n {smoothing.n}, alpha {smoothing.alpha:g}"


def _masking(column: Column) -> str:
    masking = column.figures.masking
    return "" if masking is None else f"{len(masking.reasons)} of {len(masking.checks)}"


def _text(words: str, style: str = "") -> Text:
    """Text as it is: brackets are no markup, and a stranger's report moves no cursor."""
    return Text("".join(letter if letter.isprintable() else "?" for letter in words), style=style)
