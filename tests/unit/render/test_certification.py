"""A certification shown: on a terminal, on a page, as a table file."""

import csv
import io
import itertools
import re

import pytest
from rich.console import Console

from kdcompress.certification import Certification
from kdcompress.maths.intervals import clopper_pearson
from kdcompress.render.audits import proposition1_rows, proposition2_rows, radii_sentence
from kdcompress.render.certification import certification as shown
from kdcompress.render.html.certificates import page
from kdcompress.render.html.steps import MOST_STEPS, at_least, of_smoothing
from kdcompress.render.radii import GUARANTEES, sections
from kdcompress.render.radii_table import radii_table
from kdcompress.render.words import floored
from kdcompress.report import CertifiedRate
from tests.sample_certification import certification, rate
from tests.sample_report import HOSTILE


def text_of(found: Certification) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(shown(found))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("kind", ["first-order", "clever"])
def test_every_row_of_an_estimate_says_so_and_its_head_too(kind: str) -> None:
    (section,) = (one for one in sections(certification()) if one.kind == kind)
    assert "ESTIMATE" in section.guarantee and "bounds nothing" in section.guarantee
    assert all("estimate" in line.title for line in section.lines if any(line.cells))


@pytest.mark.parametrize("kind", ["smoothing", "bounds"])
def test_no_row_of_a_certificate_calls_itself_an_estimate(kind: str) -> None:
    (section,) = (one for one in sections(certification()) if one.kind == kind)
    assert "CERTIFICATE" in section.guarantee
    assert not any("estimate" in line.title for line in section.lines)


def test_a_network_that_bounds_cannot_pass_names_its_layer() -> None:
    (section,) = (one for one in sections(certification()) if one.kind == "bounds")
    verified = section.lines[0]
    assert verified.title == "verified accuracy at Linf 1/255"
    assert verified.cells == ("not supported: GELU", "50.0% [30.0, 70.0]")


def test_what_became_of_the_images_adds_up_in_words() -> None:
    (section,) = (one for one in sections(certification()) if one.kind == "bounds")
    told = {line.title.strip(): line.cells for line in section.lines[1:5]}
    assert list(told) == ["proved", "misclassified", "broken by PGD-20", "neither proved nor broken"]
    counts = [re.fullmatch(r"(\d) of (\d)", student_and_teacher[1]) for student_and_teacher in told.values()]
    assert sum(int(count[1]) for count in counts if count) == 4 and {count[2] for count in counts if count} == {"4"}


def test_a_certified_radius_is_never_rounded_up() -> None:
    found = certification()
    bounds = found.models["teacher"].bounds
    assert bounds is not None
    better = found.models["teacher"].model_copy(update={"bounds": bounds.model_copy(update={"median": 0.0049996})})
    (section,) = (one for one in sections(found.model_copy(update={"models": {"t": better}})) if one.kind == "bounds")
    assert section.lines[-1].title == "largest certified Linf radius, median (misclassified: 0)"
    assert section.lines[-1].cells == ("0.00499",)
    for value in (0.1, 0.29999999, 1 / 255, 0.003, 1e-5, 1.9999, 123.4):
        assert value * 0.99 < float(floored(value)) <= value


def test_the_terminal_shows_every_kind_with_its_guarantee_and_the_audit() -> None:
    text = text_of(certification())
    for guarantee in GUARANTEES.values():
        assert guarantee.split(".")[0] in " ".join(text.split())
    assert "Proposition 1" in text and "(15) equal gradients, to 0.1" in text
    assert "linear student, to 0.5, estimate" in text
    assert "2,000 draws would decide" in text
    assert "none within 0.007843 (teacher); the student's is nearer" in " ".join(text.split())


def test_every_row_of_the_audit_that_was_searched_for_calls_itself_an_estimate() -> None:
    audit = certification().audit
    assert audit is not None
    first = [row[0] for row in proposition1_rows(audit.proposition1)[1:]]
    exact = ("certified", "(17)", "(15)", "exceeded", "at the image")
    assert all(("estimate" in row) != any(word in row for word in exact) for row in first), first
    assert all(
        "estimate" in row[0] or row[0].startswith("above it after") for row in proposition2_rows(audit.proposition2)[1:]
    )


def test_rivals_are_counted_where_they_are_not_all_classes() -> None:
    audit = certification().audit
    assert audit is not None
    (ten, *_) = audit.proposition1
    twenty = ten.model_copy(update={"classes": 20})
    kept = [[row[0] for row in proposition1_rows((one,)) if row[0].startswith("margin kept")] for one in (ten, twenty)]
    assert kept == [
        ["margin kept by the inequality, estimate"],
        ["margin kept by the inequality, of 9 rivals, estimate"],
    ]


def test_a_certificate_says_how_many_images_could_have_one() -> None:
    audit = certification().audit
    assert audit is not None
    (row,) = (row for row in proposition1_rows(audit.proposition1) if "certified" in row[0])
    assert row == ("(12) teacher constant: certified, around the label", *["50.0% [30.0, 70.0], 1 of 2 tried"] * 2)


def test_what_does_not_fit_in_memory_is_a_sentence_in_the_place_of_its_figures() -> None:
    found = certification()
    assert found.audit is not None
    said = "Proposition 1 at Linf 1/255: not measured: needs 3 GiB for one image, and 2 GiB may be taken"
    audit = found.audit.model_copy(update={"proposition1": (), "unmeasured": (said,)})
    without = found.model_copy(update={"audit": audit})
    assert said in " ".join(text_of(without).split())
    assert said in page(without)


def test_points_that_float32_alone_misclassifies_are_told() -> None:
    audit = certification().audit
    assert audit is not None
    assert "float32" not in radii_sentence(audit.radii)
    said = radii_sentence(audit.radii.model_copy(update={"rounding_teacher": 2}))
    assert said.endswith("By the rounding of float32 alone the teacher fell inside its own certified radius on 2.")


def test_without_an_audit_nothing_is_said_of_propositions() -> None:
    assert "Proposition" not in text_of(certification(audited=False))
    assert "Proposition" not in page(certification(audited=False))


def test_the_page_is_the_same_every_time_and_needs_nothing_else() -> None:
    html = page(certification())
    assert html == page(certification())
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "<script" not in html
    assert html.count("<svg") >= 3  # two curves and the gap over its bound


def test_a_network_without_a_curve_is_named_under_the_chart() -> None:
    html = page(certification())
    assert "student has no curve: not supported: GELU" in html
    assert html.index("fall in steps") < html.index("student has no curve") < html.index("proved</th>")


def test_between_two_radii_a_curve_shows_what_is_proved_at_the_larger() -> None:
    known = {0.0: rate(0.75), 1 / 255: rate(0.5)}
    curve = at_least((0.009, 0.005, 0.0, 0.001), known)
    assert [(r, share.value) for r, share in curve[:-1]] == [
        (0.0, 0.75), (0.001, 0.75), (1 / 255, 0.5), (0.005, 0.5), (0.009, 0.25)
    ]  # fmt: skip
    assert curve[-1][1].value == 0.0
    low, high = clopper_pearson(1, 4)
    assert (curve[4][1].low, curve[4][1].high) == (low, high)


def test_many_images_make_a_curve_of_few_steps_which_is_nowhere_above_theirs() -> None:
    radii = [0.001 * (i % 997) for i in range(5000)]
    curve = at_least(radii, {0.0: rate(1.0)})
    assert len(curve) <= MOST_STEPS + 2
    ends = [r for r, _ in curve]
    for r in (0.0005, 0.1234, 0.5, 0.9955):
        shown = next(share.value for end, share in curve if end >= r)
        assert shown <= sum(one >= r for one in radii) / 5000
    assert ends == sorted(ends)


@pytest.mark.parametrize("key", ["bounds", "smoothing"])
def test_curves_of_certificates_are_steps(key: str) -> None:
    html = page(certification())
    falls = 0
    for path in re.findall(rf'<g id="{key}-line2d_\d+">\s*<path d="([^"]*)"', html):
        points = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", path)]
        for (x, y), (next_x, next_y) in itertools.pairwise(points):
            assert x == next_x or y == next_y
            falls += len(points) > 2 and y != next_y
    assert falls > 0


def test_smoothed_radii_count_only_where_the_answer_is_right() -> None:
    found = certification()
    one = found.models["teacher"]
    assert one.smoothing is not None
    at = (CertifiedRate(**rate(0.5).model_dump(), radius=0.0),)
    fixed = one.smoothing.model_copy(update={"method": "fixed", "at": at, "radii": (0.3, 0.25, 0.0, 0.4)})
    labels = (0, 1, 1, 0)  # the last answer is 1
    assert [(r, share.value) for r, share in of_smoothing(fixed, labels)[:-1]] == [(0.0, 0.5), (0.25, 0.5), (0.3, 0.25)]
    assert of_smoothing(fixed, ()) == [(0.0, at[0])]


def test_a_class_or_network_with_a_hostile_name_is_text() -> None:
    found = certification(classes=(HOSTILE, "dog"))
    hostile = found.model_copy(update={"models": {HOSTILE: found.models["teacher"]}, "notes": (HOSTILE,)})
    assert "<script>alert(1)" not in page(hostile)


def test_the_table_keeps_each_kind_in_its_own_column() -> None:
    text = radii_table(certification(), ["a", "b", "c", "d"], ["cat", "dog", "cat", "dog"])
    first, _, third, _ = csv.DictReader(io.StringIO(text, newline=""))
    assert first["student_clever_estimate"] == "0.02" and third["student_clever_estimate"] == ""
    assert third["teacher_smoothing_answer"] == "abstains"
    assert [row["student_first_order_estimate"] for row in (first, third)] == ["0.012", "0.0"]
    assert (first["teacher_bounds_certified_linf"], first["student_bounds_certified_linf"]) == ("0.009", "")


def test_a_kind_that_was_asked_for_and_not_to_be_had_says_so() -> None:
    found = certification()
    none = {
        name: model.model_copy(update={"first_order": None, "clever": None}) for name, model in found.models.items()
    }
    sections_of = {one.kind: one for one in sections(found.model_copy(update={"models": none}))}
    for kind in ("first-order", "clever"):
        assert sections_of[kind].lines[0].cells == ("no gradients", "no gradients")
    fewer = found.model_copy(update={"settings": {"kinds": ["smoothing"]}})
    assert [one.kind for one in sections(fewer)] == ["smoothing"]


def test_by_the_sequential_test_the_average_radius_is_one_from_below() -> None:
    (section,) = (one for one in sections(certification()) if one.kind == "smoothing")
    assert "average certified radius, at least" in [line.title for line in section.lines]


def test_the_heading_names_every_radius() -> None:
    assert "Linf 1/255, 2/255" in text_of(certification())
