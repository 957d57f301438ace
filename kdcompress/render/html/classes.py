"""Accuracy class by class; of very many classes, the worst and the best."""

from dataclasses import dataclass

from kdcompress.render.sentences import judged
from kdcompress.report import ClassRate, Report

ALL = 20
"""Classes that still fit on a page in full."""
EACH_END = 10


@dataclass(frozen=True)
class ClassLine:
    """One class, with each model's rates in the report's order; None where a model saw none of its images."""

    name: str
    images: int
    rates: tuple[ClassRate | None, ...]


@dataclass(frozen=True)
class ClassTable:
    """The classes that are shown, and how many there are.

    Attributes:
        worst: all of them in the order of the labels where they are few; else the worst, worst first.
        best: the best, best last; empty where all are in `worst`.
    """

    worst: tuple[ClassLine, ...]
    best: tuple[ClassLine, ...]
    classes: int


def class_table(report: Report) -> ClassTable | None:
    """Ranked by robust accuracy, else the clean one, of the model the report is about. None without classes."""
    ranked = judged(report).classes
    if not ranked:
        return None
    if len(ranked) <= ALL:
        return ClassTable(_lines(report, ranked), (), len(ranked))
    ordered = tuple(sorted(ranked, key=lambda one: (one.robust or one.clean).value))
    return ClassTable(_lines(report, ordered[:EACH_END]), _lines(report, ordered[-EACH_END:]), len(ranked))


def _lines(report: Report, shown: tuple[ClassRate, ...]) -> tuple[ClassLine, ...]:
    by_name = [{one.name: one for one in model.classes} for model in report.models.values()]
    return tuple(ClassLine(one.name, one.clean.n, tuple(rates.get(one.name) for rates in by_name)) for one in shown)
