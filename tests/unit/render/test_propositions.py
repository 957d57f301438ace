"""The pictures of eq. 26."""

import re
from xml.etree import ElementTree

import pytest

from kdcompress.maths.intervals import clopper_pearson
from kdcompress.render.html.propositions import TERMS, gap_over_bound, quartiles, terms_of_bound
from kdcompress.report import Proposition2, Rate


def evaluated(scale: float = 1.0, n: int = 5, **changes: object) -> Proposition2:
    values = tuple(scale * (i + 1) / n for i in range(n))
    low, high = clopper_pearson(0, n)
    none = Rate(value=0.0, low=low, high=high, n=n)
    fields: dict[str, object] = {
        "norm": "Linf",
        "eps": 8 / 255,
        "n": n,
        "steps": 20,
        "restarts": 1,
        "seed": 0,
        "attack": "ascent",
        "gap": tuple(value / 3 for value in values),
        "bound": values,
        "bound_of_paper": tuple(2 * value for value in values),
        **{term: tuple(value / 4 for value in values) for term in ("remainder_student", "remainder_teacher")},
        **{term: tuple(value / 4 for value in values) for term in ("losses", "gradients", "losses_of_paper")},
        "median_gap": 0.2,
        "median_bound": 0.6,
        "median_bound_of_paper": 1.2,
        "dominant": {"remainder_student": 3, "remainder_teacher": 1, "losses": 1, "gradients": 0},
        "exceeded": none,
        "raised": none,
        "violated": 0,
        "rounding": 1e-6,
    }
    return Proposition2(**(fields | changes))  # type: ignore[arg-type]


PAIR = {"kd": evaluated(3.0), "kdiga": evaluated(1.0)}
BOTH = pytest.mark.parametrize("draw", [gap_over_bound, terms_of_bound])


@BOTH
def test_nothing_is_drawn_of_nothing(draw) -> None:  # type: ignore[no-untyped-def]
    assert draw({}) is None


@BOTH
def test_the_picture_is_well_formed_and_takes_the_pages_colours(draw) -> None:  # type: ignore[no-untyped-def]
    drawn = draw(PAIR)
    root = ElementTree.fromstring(drawn)
    assert root.tag == "svg" and root.attrib["role"] == "img"
    assert "var(--series-1)" in drawn and "var(--series-2)" in drawn
    # Every colour is one of the page's, so that it is another in the dark.
    assert set(re.findall(r"#[0-9a-f]{6}", drawn)) == set()
    assert draw(PAIR) == drawn


@BOTH
def test_both_students_and_the_ball_are_named(draw) -> None:  # type: ignore[no-untyped-def]
    drawn = draw(PAIR)
    text = " ".join(ElementTree.fromstring(drawn).itertext())
    assert "KD student" in text and "KDIGA student" in text
    label = ElementTree.fromstring(drawn).attrib["aria-label"]
    assert "Linf 8/255" in label
    assert "KD student: median gap 0.2, median bound 0.6" in label and TERMS["remainder_student"] in label


def test_every_image_is_a_point() -> None:
    drawn = gap_over_bound({"kd": evaluated(n=7)})
    assert drawn is not None
    groups = re.findall(r'<g id="gap-PathCollection_1">.*?</g>\s*</g>', drawn, flags=re.DOTALL)
    assert len(re.findall("<use ", "".join(groups))) == 7


def test_an_estimate_is_called_one() -> None:
    drawn = "".join(filter(None, (gap_over_bound(PAIR), terms_of_bound(PAIR))))
    assert "right side, estimate, nats" in drawn
    assert "student's remainder (estimate)" in drawn or "student&#39;s remainder (estimate)" in drawn


@BOTH
def test_zeros_and_a_single_image_can_be_drawn(draw) -> None:  # type: ignore[no-untyped-def]
    nothing = dict.fromkeys(("gap", "bound", "losses", "gradients", "remainder_student", "remainder_teacher"), (0.0,))
    assert draw({"kd": evaluated(n=1, **nothing)}) is not None


@BOTH
def test_a_name_is_shown_as_text(draw) -> None:  # type: ignore[no-untyped-def]
    drawn = draw({"a$b_c$ <b>": evaluated()})
    assert "a$b_c$ &lt;b&gt;" in drawn and "<b>" not in drawn


def test_quartiles_of_a_hundred_are_where_they_should_be() -> None:
    assert quartiles([float(i) for i in range(101)]) == (25.0, 50.0, 75.0)
