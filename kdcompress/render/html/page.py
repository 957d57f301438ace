"""The page: a report's figures and a look at what stands behind them."""

import jinja2

from kdcompress.evidence import Evidence
from kdcompress.render import gates, sentences, words
from kdcompress.render.figures import figures, smoothing_terms
from kdcompress.render.html.classes import class_table
from kdcompress.render.html.curves import over_eps, over_radius, series
from kdcompress.render.html.flat import flat
from kdcompress.render.html.gallery import cards
from kdcompress.report import Gate, Report


def page(report: Report, evidence: Evidence) -> str:
    """One HTML file that needs nothing else: no script, no request; readable in the dark and on paper.

    Guarantees:
        The same report and evidence give the same page.
        Whatever a class, a file or a model is called is shown as text and does nothing.
    """
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            lines=figures(report),
            classes=class_table(report),
            cards=cards(evidence),
            over_eps=over_eps(report),
            over_radius=over_radius(report),
            series=series(list(report.models)),
            settings=list(flat(report.settings)),
            distrusted=sentences.distrust(report),
            bar=bar,
        )
    )


def environment() -> jinja2.Environment:
    """Templates of this folder; all they show is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdcompress.render", "html"),
        autoescape=True,  # always: a file's suffix decides nothing
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": words.tenths_of_percent, "duration": words.duration, "called": words.title}
    environment.globals |= {
        function.__name__: function
        for function in (
            *(gates.demanded, gates.found, gates.decided, smoothing_terms),
            *(sentences.heading, sentences.verdict, sentences.attack_terms, sentences.passed),
            *(sentences.preserved, sentences.drop, sentences.threat),
        )
    }
    return environment


def _shown(value: object) -> object:
    """What a template writes: text without marks that cannot be shown. Markup is the template's own."""
    return words.printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def bar(gate: Gate) -> dict[str, float] | None:
    """A gate on a scale of 0 to 100: its figure, its interval and its threshold. None where it has no interval."""
    if not gate.low < gate.high:
        return None
    ends = (gate.value, gate.low, gate.high, gate.threshold)
    # Rates fill their natural scale; a drop or a latency is shown with some room around it.
    is_rate = gate.name.partition(" ")[0].endswith("-accuracy")  # a certified one's name goes on with RADIUS:X
    least, most = (0.0, 1.0) if is_rate else (min(0.0, *ends), 1.1 * max(ends))
    value, low, high, threshold = (100 * (end - least) / (most - least) for end in ends)
    return {"value": value, "low": low, "high": high, "threshold": threshold}
