"""Markdown: every name is text, every row has its cells."""

import re

import pytest

from kdcompress.render.markdown import escaped, markdown
from kdcompress.report import Report
from tests.sample_report import HOSTILE, bare_report, gate, hostile_report, masking, model, report


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.parametrize("found", [report(), bare_report(), hostile_report()], ids=["full", "bare", "hostile"])
def test_every_row_of_a_table_has_as_many_cells_as_its_head(found: Report) -> None:
    for block in markdown(found).split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert re.fullmatch(r"(\| -+:? )+\|", lines[1])
            assert len({cells(line) for line in lines}) == 1, block


def test_it_begins_with_the_verdict_and_has_every_part() -> None:
    text = markdown(report())
    assert text.startswith("## ❌ 3 of 7 gates missed\n")
    for part in (
        "52.1% [49.0, 55.2]",
        "at least 55%",
        "37.14x",
        "robust at eps 2/255",
        "certified at L2 0.125",
        "Robustness not shown to be preserved within 3.0 points at 95%.",
        "p = 0.014",
        "student: masking checks: 6 passed",
        "- note: the teacher's normalisation",
        "median of 100",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("gates", "head"),
    [
        ((), "## No gates were set"),
        ((gate(),), "## ✅ The gate was met"),
        ((gate(), gate()), "## ✅ All 2 gates met"),
        ((gate(met=False),), "## ❌ The gate was missed"),
    ],
)
def test_the_verdict_counts_the_gates(gates: tuple[object, ...], head: str) -> None:
    assert markdown(report(gates=gates)).splitlines()[0] == head


def test_a_flag_is_a_warning_above_the_figures() -> None:
    text = markdown(report(models={"student": model(masking=masking(True))}))
    assert text.index("> [!WARNING]\n> - student: robust accuracy NOT TO BE TRUSTED") < text.index("| network |")


def test_names_that_are_markup_stay_names() -> None:
    text = markdown(hostile_report())
    assert "<" not in text.replace("> ", "") and "](" not in text.replace(r"\](", "")
    assert not re.search(r"(?<!\\)`", text) and "\x00" not in text and "\u202e" not in text


@pytest.mark.parametrize("link", ["http://x.y", "HTTPS://x.y", "www.x.y", "[1](x)", "![a](x)", "[a][b]", "[a]: x"])
def test_no_name_becomes_a_link(link: str) -> None:
    safe = escaped(link)
    assert not re.search(r"(?i)https?://|www\.|(?<!\\)\][(\[:]", safe), safe


@pytest.mark.parametrize("link", ["a@b.com", "mailto:a@b.com", "xmpp:a@b.com/c", "x@y.z a@b.com", "@organisation/team"])
def test_no_name_becomes_an_address(link: str) -> None:
    """GitHub links an address after it has read entities and escapes: only another letter after the @ stops it."""
    safe = escaped(link)
    assert re.sub("@&#8288;", "@", safe) == link and not re.search("@(?!&#8288;)", safe)


@pytest.mark.parametrize("note", ["# head", "- item", "1. one", "+ plus", "=== under", "a\n\n# b"])
def test_a_note_opens_no_block_of_its_own(note: str) -> None:
    line = next(
        line
        for line in markdown(bare_report().model_copy(update={"notes": (note,)})).splitlines()
        if note[0] in line and line.startswith("- note")
    )
    assert line.startswith("- note: ")
    first = markdown(report(data=report().data.model_copy(update={"name": note}))).split("\n\n")[1]
    assert "\n" not in first and not re.match(r"[#+=-]|\d+\.", first)


def test_the_hostile_name_is_hostile() -> None:
    assert all(part in HOSTILE for part in ("<script>", "|", "`", "](", "\n#", '"', "&", "\x00"))
