"""Figures for people: drawn from a report, without a screen."""

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdcompress.errors import UsageError
from kdcompress.render.words import title, whole_percent
from kdcompress.report import Rate, Report
from kdcompress.threat import ThreatModel

# Told apart by lightness too, so that a grey print and colour-blind eyes can read them (Okabe and Ito 2008).
CLEAN, ROBUST = "#56B4E9", "#D55E00"
SUFFIXES = (".png", ".svg", ".pdf")


def refuse_format(path: Path) -> None:
    """Find out before an hour of attacks whether the picture can be drawn.

    Raises:
        UsageError: if the suffix names no known picture format.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--picture must end in {', '.join(SUFFIXES)}, got {path.name}")


def draw_accuracies(report: Report, suffix: str) -> bytes:
    """Clean and robust accuracy of every model with 95% intervals, as a file of the kind that `suffix` names."""
    threat = ThreatModel(report.threat_model.norm, report.threat_model.eps)
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    attacks = {model.robust_accuracy.attack for model in report.models.values() if model.robust_accuracy}
    for offset, colour, label, rates in (
        (-0.2, CLEAN, "clean", [model.clean_accuracy for model in report.models.values()]),
        (+0.2, ROBUST, f"under {', '.join(attacks)}", [model.robust_accuracy for model in report.models.values()]),
    ):
        found = [(place + offset, rate) for place, rate in enumerate(rates) if rate is not None]
        axes.bar(
            [place for place, _ in found],
            [100 * rate.value for _, rate in found],
            width=0.36,
            color=colour,
            label=label,
            yerr=_whiskers([rate for _, rate in found]),
            capsize=3,
        )
        for place, rate in found:
            axes.annotate(
                whole_percent(rate.value), (place, 100 * rate.high + 1), ha="center", va="bottom", color="black"
            )
    axes.set_xticks(
        range(len(report.models)),
        [f"{title(name)}\n{model.params:,} parameters" for name, model in report.models.items()],
    )
    axes.set_ylim(0, 112)  # room for the labels above the whiskers
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("accuracy, %")
    axes.set_title(f"{report.data.name}, {report.data.images} test images, {threat}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format=suffix.removeprefix(".").lower(), dpi=150)
    return file.getvalue()


def _whiskers(rates: list[Rate]) -> list[list[float]]:
    """Distances from each rate to its interval's ends, in percent."""
    return [[100 * (rate.value - rate.low) for rate in rates], [100 * (rate.high - rate.value) for rate in rates]]
