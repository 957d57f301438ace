"""JUnit XML: one test case a gate, for the test pages of GitLab, Jenkins and others."""

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from kdcompress.comparison import Column, Comparison
from kdcompress.render.comparison import differences
from kdcompress.render.gates import asked, decided, demanded, found
from kdcompress.render.sentences import distrust, heading, masking_lines, threat
from kdcompress.report import Gate, Report
from kdcompress.threat import ThreatModel

ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped (section 2.2)."""


def junit(report: Report) -> str:
    """One suite with a case for every gate; a missed gate is a failure whose message says what decided.

    Without gates the suite is empty, and still valid. The suite's time is the whole evaluation's: gates take none.
    """
    said = [heading(report), *masking_lines(report).values(), *(f"note: {note}" for note in report.notes)]
    return _document("kdcompress gates", report.gates, report.seconds, _properties(report), said)


def comparison_junit(compared: Comparison) -> str:
    """The same of reports side by side: a case for every gate and report."""
    properties = {
        f"{column.label}.{key}": value for column in compared.columns for key, value in _measured(column).items()
    }
    said = [line for lines in differences(compared) for line in lines]
    return _document("kdcompress comparison", compared.gates, 0.0, properties, said)


def _measured(column: Column) -> dict[str, str]:
    """What makes a column's figures comparable with another's."""
    rate = column.figures.robust_accuracy
    return {
        "data": column.data.name,
        "data.sha256": column.data.sha256,
        "images": f"{column.data.images} of {column.data.of}",
        "seed": str(column.data.seed),
        "threat_model": str(ThreatModel(column.threat_model.norm, column.threat_model.eps)),
        "attack": "none" if rate is None else rate.attack,
        "device": column.device,
        "sha256": column.figures.sha256,
        **{f"version.{name}": version for name, version in column.versions.items()},
    }


def _document(name: str, gates: Sequence[Gate], seconds: float, properties: Mapping[str, str], said: list[str]) -> str:
    missed = sum(not gate.met for gate in gates)
    counts = {"tests": str(len(gates)), "failures": str(missed), "errors": "0", "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", {"name": "kdcompress", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **counts, "skipped": "0"})
    listed = ElementTree.SubElement(suite, "properties")
    for key, value in properties.items():
        ElementTree.SubElement(listed, "property", {"name": _legal(key), "value": _legal(value)})
    for gate in gates:
        _case(suite, gate)
    ElementTree.SubElement(suite, "system-out").text = _legal("\n".join(said))
    ElementTree.indent(root)
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml.decode("utf-8") + "\n"


def _case(suite: ElementTree.Element, gate: Gate) -> None:
    """Jenkins folds cases by `classname`, up to its last dot, which a file's name must not add; GitLab lists both."""
    named = {
        "classname": _legal(f"kdcompress.{gate.model.replace('.', '_')}"),
        "name": _legal(asked(gate)),
        "time": "0",
    }
    case = ElementTree.SubElement(suite, "testcase", named)
    if not gate.met:
        message = _legal(f"{gate.model}: {found(gate)}, asked for {demanded(gate)}")
        failure = ElementTree.SubElement(case, "failure", {"type": "gate missed", "message": message})
        failure.text = f"{message}; {_legal(decided(gate))}"
    else:
        ElementTree.SubElement(case, "system-out").text = _legal(f"{gate.model}: {found(gate)}, {decided(gate)}")


def _properties(report: Report) -> dict[str, str]:
    """What makes the figures comparable with another run's."""
    attacks = dict.fromkeys(model.robust_accuracy.attack for model in report.models.values() if model.robust_accuracy)
    doubted = distrust(report)
    return {
        "data": report.data.name,
        "data.sha256": report.data.sha256,
        "images": f"{report.data.images} of {report.data.of}",
        "seed": str(report.data.seed),
        "threat_model": str(threat(report)),
        "attack": ", ".join(attacks) or "none",
        "device": report.device,
        **{f"{name}.sha256": model.sha256 for name, model in report.models.items()},
        **{f"{name}.masking": "flagged" for name in doubted},
        **{f"version.{name}": version for name, version in report.versions.items()},
    }


def _legal(text: str) -> str:
    return ILLEGAL.sub("", text)
