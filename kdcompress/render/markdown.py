"""A report, or reports side by side, as GitHub-flavoured Markdown, short enough for a job's summary."""

import re
from collections.abc import Iterable, Sequence

from kdcompress.comparison import Comparison
from kdcompress.render.comparison import INTERVALS, differences, rows
from kdcompress.render.figures import figures
from kdcompress.render.gates import decided, demanded, found
from kdcompress.render.sentences import DISTRUST, attack_terms, drop, heading, masking_lines, preserved, verdict
from kdcompress.render.words import duration, printable, title
from kdcompress.report import Gate, Report


def markdown(report: Report) -> str:
    """The verdict, the gates, the figures, the comparison, the masking checks and the notes.

    Guarantees:
        A name that a stranger chose is text: it opens no tag, no link, no code and no cell.
    """
    warnings = [line for line in masking_lines(report).values() if DISTRUST in line]
    parts = [*_head(report, heading(report)), *_warned(warnings), *_gates(report.gates)]
    parts.append(_figures(report))
    if report.paired is not None:
        parts.append(f"**{escaped(preserved(report))}** {drop(report.paired)}")
    remarks = [*attack_terms(report), *(line for line in masking_lines(report).values() if line not in warnings)]
    listed = [*remarks, *(f"note: {note}" for note in report.notes)]
    if listed:
        parts.append(_listed(listed))
    parts.append(f"95% intervals in brackets; took {duration(report.seconds)}")
    return "\n\n".join(parts) + "\n"


def comparison_markdown(compared: Comparison) -> str:
    """The same of reports side by side: the verdict, the gates, the figures, each report against the baseline."""
    labels = [column.label for column in compared.columns]
    about = differences(compared)
    warnings = dict.fromkeys(line for _, *lines in about for line in lines if DISTRUST in line)
    parts = [
        *_head(compared, f"{', '.join(labels[1:])} against {labels[0]}"),
        *_warned(warnings),
        *_gates(compared.gates),
        _table(("", *labels), rows(compared.columns), "l" + "r" * len(labels)),
    ]
    for first, *lines in about:
        parts += [f"**{escaped(first)}**", _listed(line for line in lines if line not in warnings)]
    return "\n\n".join([*parts, INTERVALS]) + "\n"


def _head(found: Report | Comparison, about: str) -> list[str]:
    sign = "" if not found.gates else "✅ " if found.gates_met else "❌ "
    return [f"## {sign}{verdict(found)}", _block(about)]


def _warned(warnings: Iterable[str]) -> list[str]:
    lines = [f"> - {_block(line)}" for line in warnings]
    return ["\n".join(["> [!WARNING]", *lines])] if lines else []


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_block(line)}" for line in lines)


def _gates(gates: Sequence[Gate]) -> list[str]:
    rows = (
        ["✅ met" if gate.met else "❌ missed", gate.name, gate.model, demanded(gate), found(gate), decided(gate)]
        for gate in gates
    )
    return [_table(("gate", "option", "model", "asked", "found", "decided"), rows, "llllrl")] if gates else []


def _figures(report: Report) -> str:
    head = ("", *map(title, report.models), *(["teacher / student"] if report.ratios else []))
    rows = ((line.title, *line.cells, *([line.ratio] if report.ratios else [])) for line in figures(report))
    return _table(head, rows, "l" + "r" * (len(head) - 1))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """`align` is a letter a column, l or r."""
    rule = "|".join(" ---: " if side == "r" else " --- " for side in align)
    first, *rest = (f"| {' | '.join(map(escaped, row))} |" for row in (head, *rows))
    return "\n".join((first, f"|{rule}|", *rest))


def _block(text: str) -> str:
    """The same at the beginning of a line, where a sign could open a heading or a list."""
    return re.sub(r"^([#+=-]|\d+(?=[.)]))", lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", escaped(text))


def escaped(text: str) -> str:
    r"""Text that Markdown shows as it is: on one line, without tags, links, code or cells.

    >>> escaped("<b>|`x`|\n[y](z)")
    '&lt;b&gt;\\|\\`x\\`\\| [y\\](z)'
    """
    text = " ".join(printable(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_|~]|\](?=[(\[:]))", r"\\\1", text)  # other brackets are an interval's, and open no link
    # No link of its own accord either. An address is sought after entities and escapes are read: a word joiner, which
    # is not seen, keeps it from being one.
    text = text.replace("@", "@&#8288;")
    return re.sub(r"(?i)(https?|ftp)(?=://)|(www)(?=\.)", lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", text)
