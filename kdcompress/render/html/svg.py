"""A matplotlib figure as SVG inside a page: its colours and letters are the page's own."""

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, QUIET, RULE = "#1c1d1f", "#5d6166", "#dcdfe3"
SERIES = ("#3b3f46", "#0072b2", "#c2500a", "#00795c", "#8e4585")
"""A model's colour; the first is the teacher's. Page and figure name them by the same numbers."""

# What a figure is drawn in stands for a colour of the page, which is another in the dark.
VARIABLES = {INK: "--ink", QUIET: "--quiet", RULE: "--rule"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES)
}


def inline(figure: Figure, key: str, description: str) -> str:
    """The figure as an `<svg>` element that scales with the page.

    Guarantees:
        The same figure gives the same bytes; ids begin with `key`, so that those of two figures differ.

    Args:
        key: of letters and digits, unique in its page.
        description: read to those who do not see the figure.
    """
    FigureCanvasSVG(figure)
    file = io.StringIO()
    # Letters stay letters: they take the page's font and can be searched. A fixed salt makes ids repeatable.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kdcompress"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawn = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", file.getvalue()))
    root = ElementTree.Element("svg", {"viewBox": drawn.attrib["viewBox"], "role": "img", "aria-label": description})
    root.extend(_cleaned(child, key) for child in drawn if not child.tag.endswith("metadata"))
    xml: str = ElementTree.tostring(root, encoding="unicode")
    return xml


def _cleaned(element: ElementTree.Element, key: str) -> ElementTree.Element:
    """Without namespaces, which HTML knows by itself, and in the page's colours and font."""
    attributes = {_local(name): _renamed(value, key) for name, value in element.attrib.items()}
    if "id" in attributes:
        attributes["id"] = f"{key}-{attributes['id']}"
    if "style" in attributes:
        attributes["style"] = _themed(attributes["style"])
    clean = ElementTree.Element(_local(element.tag), attributes)
    # Styles for the whole document (matplotlib sets one) would reach out of the figure.
    clean.extend(_cleaned(child, key) for child in element if _local(child.tag) != "style")
    clean.text, clean.tail = element.text, None
    return clean


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _renamed(value: str, key: str) -> str:
    """References to ids, followed."""
    return re.sub(r"^#|(?<=url\()#", f"#{key}-", value)


def _themed(style: str) -> str:
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    style = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", style)
    return re.sub(r"#[0-9a-f]{6}", lambda found: _variable(found[0]), style)


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour
