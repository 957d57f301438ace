"""JUnit XML: it parses, whatever is in it, and counts what it says."""

from xml.etree import ElementTree

import pytest

from kdcompress.render.junit import junit
from kdcompress.report import Report
from tests.sample_report import bare_report, gate, hostile_report, report


def suite(found: Report) -> ElementTree.Element:
    root = ElementTree.fromstring(junit(found))
    assert root.tag == "testsuites"
    inner = root.find("testsuite")
    assert inner is not None
    return inner


@pytest.mark.parametrize("found", [report(), bare_report(), hostile_report()], ids=["full", "bare", "hostile"])
def test_a_case_a_gate_and_a_failure_where_one_was_missed(found: Report) -> None:
    inner = suite(found)
    cases = inner.findall("testcase")
    assert len(cases) == len(found.gates) == int(inner.attrib["tests"])
    assert [case.find("failure") is None for case in cases] == [gate.met for gate in found.gates]
    assert int(inner.attrib["failures"]) == sum(not gate.met for gate in found.gates)
    assert float(inner.attrib["time"]) == pytest.approx(found.seconds, abs=5e-4)  # three decimals are written


def test_a_failure_says_what_was_asked_found_and_what_decided() -> None:
    failure = suite(report()).find("testcase[@name='--max-robust-drop 0.03']/failure")
    assert failure is not None and failure.text is not None
    assert failure.attrib["message"] == "student: +2.1 points [+0.4, +3.8], asked for at most 3.0 points"
    assert "conservative bound" in failure.text


def test_properties_say_what_makes_two_runs_comparable() -> None:
    found = {one.attrib["name"]: one.attrib["value"] for one in suite(report()).iter("property")}
    assert found["threat_model"] == "Linf 8/255" and found["attack"] == "AutoAttack standard"
    assert found["images"] == "1000 of 10000" and found["data.sha256"].startswith("c0ffee")
    assert {"student.sha256", "teacher.sha256", "version.torch", "seed", "device"} <= found.keys()
    assert {one.attrib["value"] for one in suite(bare_report()).iter("property") if one.attrib["name"] == "attack"} == {
        "none"
    }


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_what_xml_cannot_hold_is_left_out(character: str) -> None:
    found = suite(report(gates=(gate(name=f"a{character}b", why=character),), notes=(f"c{character}d",)))
    case = found.find("testcase")
    assert case is not None and case.attrib["name"] == "ab 0.5"
    assert (found.findtext("system-out") or "").endswith("note: cd")


def test_the_same_report_gives_the_same_bytes() -> None:
    assert junit(report()).encode() == junit(report()).encode()
