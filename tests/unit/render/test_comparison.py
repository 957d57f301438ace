"""Reports side by side, in every form: whatever a file is called, it is a name."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kdcompress.comparison import Comparison
from kdcompress.evaluation.baseline import compare
from kdcompress.render.comparison import differences, rows
from kdcompress.render.junit import comparison_junit
from kdcompress.render.markdown import comparison_markdown
from kdcompress.settings import CompareSettings
from tests.reports import masked, network, report
from tests.sample_report import HOSTILE

NAMES = ["plain.json", "a|b`c` <b>.json", "[x](y) @z.json", "# head.json", "x\udcff\u202e.json"]


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    """A baseline and reports of odd names, one of a network that hides its gradients, one that cannot be compared."""
    nets = [
        network("...00x"),
        network("..000x", masking=masked(HOSTILE)),
        network("..00xx", arch=HOSTILE, attack=HOSTILE),
        network("...00x", certified=None),
        network("......"),
    ]
    paths = tuple(tmp_path / name for name in NAMES)
    for path, net in zip(paths, nets, strict=True):
        path.write_text(report(net).model_dump_json())
    return compare(CompareSettings(reports=paths, max_clean_drop=0.9, max_latency_ratio=1.0))


def test_every_row_has_a_cell_for_every_report(found: Comparison) -> None:
    assert {len(row) for row in rows(found.columns)} == {1 + len(NAMES)}
    for block in comparison_markdown(found).split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, block


def test_names_in_markdown_are_text(found: Comparison) -> None:
    text = comparison_markdown(found)
    text.encode("utf-8")
    assert "<" not in text.replace("> ", "") and "](" not in text.replace(r"\](", "") and "\u202e" not in text
    assert not re.search(r"(?<!\\)`", text) and not re.search(r"@(?!&#8288;)", text)
    assert [line for line in text.splitlines() if line.startswith("#")] == ["## ✅ All 8 gates met"]


def test_names_in_xml_are_text_and_there_is_a_case_for_each_gate_of_each_report(found: Comparison) -> None:
    suite = ElementTree.fromstring(comparison_junit(found)).find("testsuite")
    assert suite is not None
    cases = [(case.attrib["classname"], case.attrib["name"]) for case in suite.findall("testcase")]
    assert len(cases) == len(set(cases)) == len(found.gates) == 8
    assert all(classname.count(".") == 1 for classname, _ in cases)  # folders of a test page are made at the dots
    assert all(label in (suite.findtext("system-out") or "") for label in ("plain.json", "a|b`c` <b>.json"))
    properties = {one.attrib["name"]: one.attrib["value"] for one in suite.iter("property")}
    assert properties["plain.json.attack"] == "PGD-3" and properties["plain.json.images"] == "6 of 10000"


def test_what_is_said_of_each_report_is_the_same_everywhere(found: Comparison) -> None:
    xml = ElementTree.fromstring(comparison_junit(found)).findtext("testsuite/system-out") or ""
    for _, *lines in differences(found)[:1]:
        assert lines[0] in xml and lines[0] in comparison_markdown(found)
