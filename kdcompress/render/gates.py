"""A gate in words: what was asked, what was found, what decided."""

import operator

from kdcompress.render.words import decimals, exact_percent, points, signed_points
from kdcompress.report import Gate

UNITS = {"--max-params": "parameters", "--max-macs": "MACs"}
DROPS = {"--max-clean-drop", "--max-robust-drop"}
UNDECIDED = "undecided: the threshold lies inside the interval, more images may turn it"


def gate_line(gate: Gate) -> str:
    """All of it on one line, the threshold as it was typed."""
    verdict = "met   " if gate.met else "MISSED"
    return f"gate {verdict} {asked(gate)}: {gate.model} {found(gate)}, {decided(gate)}"


def asked(gate: Gate) -> str:
    """The option with its threshold, as typed."""
    if ":" in gate.name:  # RADIUS:X holds its threshold
        return gate.name
    return f"{gate.name} {gate.threshold:,.0f}" if gate.name in UNITS else f"{gate.name} {gate.threshold:g}"


def demanded(gate: Gate) -> str:
    """The threshold in the figure's own unit."""
    if gate.name in DROPS:
        threshold = f"{points(gate.threshold)} points"
    elif gate.name in UNITS:
        threshold = f"{gate.threshold:,.0f} {UNITS[gate.name]}"
    elif gate.name == "--max-latency-ms":
        threshold = f"{gate.threshold:g} ms"
    elif gate.name == "--max-latency-ratio":
        threshold = f"{gate.threshold:g}x"
    else:
        threshold = exact_percent(gate.threshold)
    return f"at {'most' if gate.name.startswith('--max') else 'least'} {threshold}"


def found(gate: Gate) -> str:
    """The figure with its unit, and its interval where it has one; with the digits that bear out the verdict."""
    if gate.name in UNITS:
        return f"{gate.value:,.0f} {UNITS[gate.name]}"
    if gate.name == "--max-latency-ms":
        digits = _digits(gate, 2, unit=1)
        interval = f" [{gate.low:.{digits}f}, {gate.high:.{digits}f}]" if gate.low < gate.high else ""
        return f"{gate.value:.{digits}f} ms{interval}"
    if gate.name == "--max-latency-ratio":
        return f"{gate.value:.{_digits(gate, 2, unit=1)}f}x"
    digits = _digits(gate, 1, unit=100)
    if gate.name in DROPS:
        value, low, high = (signed_points(figure, digits) for figure in (gate.value, gate.low, gate.high))
        return f"{value} points [{low}, {high}]"
    return f"{100 * gate.value:.{digits}f}% [{100 * gate.low:.{digits}f}, {100 * gate.high:.{digits}f}]"


def _digits(gate: Gate, least: int, unit: float) -> int:
    """For the figure that was compared: the value, or the conservative end of the interval."""
    at_most = gate.name.startswith("--max")
    bound = gate.high if at_most else gate.low
    figure = gate.value if gate.decided_by == "point" else bound
    return decimals(figure, gate.threshold, least, operator.le if at_most else operator.ge, unit)


def decided(gate: Gate) -> str:
    """Which number was compared, or what stood in its place; and whether more images could turn it."""
    if gate.why is not None:
        words = gate.why
    elif gate.name in UNITS:
        words = "counted"
    elif gate.name.startswith("--max-latency"):
        words = "measured"
    else:
        words = "by the point estimate" if gate.decided_by == "point" else "by the conservative bound"
    return "; ".join([words, *([UNDECIDED] if gate.undecided else []), *([gate.caution] if gate.caution else [])])
