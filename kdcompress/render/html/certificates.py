"""A certification's page."""

from kdcompress.certification import Certification
from kdcompress.render import gates
from kdcompress.render.audits import text_of
from kdcompress.render.certification import heading, reasons
from kdcompress.render.html.flat import flat
from kdcompress.render.html.page import environment
from kdcompress.render.html.propositions import gap_over_bound, terms_of_bound
from kdcompress.render.html.steps import smoothed, verified
from kdcompress.render.radii import Line, networks, sections
from kdcompress.render.words import title
from kdcompress.threat import ThreatModel

NOT_ABOUT_IT = {"evaluation.attack", "evaluation.masking", "evaluation.chunk", "evaluation.certify_images"}
"""Settings of `evaluate`, which a certification does not ask."""


def page(found: Certification) -> str:
    """One HTML file that needs nothing else: no script, no request; readable in the dark and on paper.

    Guarantees:
        The same certification gives the same page.
        Whatever a class, a file or a network is called is shown as text and does nothing.
    """
    made = environment()
    made.globals |= {"heading": heading, "as_rows": as_rows, "gate_line": gates.gate_line}
    return made.get_template("certificates.html.jinja").render(
        found=found,
        networks=networks(found),
        sections=sections(found),
        curves={"first-order": None, "clever": None, "smoothing": smoothed(found), "bounds": verified(found)},
        unbounded=unbounded(found),
        abstentions=reasons(found),
        audit=None if found.audit is None else text_of(found.audit),
        drift=drift(found),
        ball=ThreatModel(found.threat_model.norm, found.threat_model.eps),
        settings=[(name, value) for name, value in flat(found.settings) if name not in NOT_ABOUT_IT],
    )


def unbounded(found: Certification) -> tuple[str, ...]:
    """The networks that sound bounds were asked of and cannot be drawn, and why."""
    return tuple(
        f"{title(name)} has no curve: {model.bounds.unsupported}"
        for name, model in found.models.items()
        if model.bounds is not None and model.bounds.unsupported is not None
    )


def drift(found: Certification) -> tuple[str, ...]:
    """Gap over bound, and what the bound is made of, at the first radius asked for."""
    at = [one for one in found.audit.proposition2 if one.eps == found.threat_model.eps] if found.audit else []
    named = {"student": at[0]} if at else {}
    return tuple(drawn for drawn in (gap_over_bound(named), terms_of_bound(named)) if drawn is not None)


def as_rows(found: Certification, lines: tuple[Line, ...]) -> tuple[tuple[str, ...], ...]:
    """A head, then the lines."""
    return (("", *map(title, found.models)), *((line.title, *line.cells) for line in lines))
