"""A certification as tables for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcompress.certification import Certification
from kdcompress.render.audits import Rows, text_of
from kdcompress.render.gates import gate_line
from kdcompress.render.radii import Line, networks, sections
from kdcompress.render.words import duration, title
from kdcompress.threat import render_eps


def certification(found: Certification) -> Group:
    """Networks, each kind of radius under its guarantee, the audit, gates, notes."""
    parts: list[RenderableType] = [Text(heading(found)), _table(found, networks(found))]
    for section in sections(found):
        parts += [Text(""), Text(section.guarantee), _table(found, section.lines)]
    if found.audit is not None:
        parts += [Text(""), Text(f"The paper's propositions, on {found.audit.n} images", style="bold")]
        for head, shown in text_of(found.audit):
            parts += [Text(""), Text(head), Text(shown) if isinstance(shown, str) else _rows(shown)]
    parts.append(Text(""))
    parts += [Text(reason) for reason in reasons(found)]
    parts += [Text(gate_line(gate), style="" if gate.met else "bold red") for gate in found.gates]
    parts += [Text(f"note: {note}") for note in found.notes]
    parts.append(Text(f"95% intervals in brackets; took {duration(found.seconds)}"))
    return Group(*parts)


def heading(found: Certification) -> str:
    """What was certified, on how many images of how many, where."""
    data = found.data
    balls = f"{found.threat_model.norm} {', '.join(map(render_eps, found.radii))}"
    return f"{data.name}: {data.images} of {data.of} test images, {balls}, {found.device}"


def reasons(found: Certification) -> tuple[str, ...]:
    """Why smoothed classifiers abstained."""
    return tuple(
        f"{title(name)}: abstained on {reason.images}: {reason.finding}"
        for name, model in found.models.items()
        if model.smoothing is not None
        for reason in model.smoothing.reasons
    )


def _table(found: Certification, lines: tuple[Line, ...]) -> Table:
    return _rows((("", *map(title, found.models)), *((line.title, *line.cells) for line in lines)))


def _rows(rows: Rows) -> Table:
    head, *body = rows
    shown = Table(show_edge=False, pad_edge=False)
    for place, text in enumerate(head):
        shown.add_column(Text(text), justify="left" if place == 0 else "right")
    for row in body:
        shown.add_row(*map(Text, row))
    return shown
