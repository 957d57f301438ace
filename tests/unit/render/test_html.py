"""The page: whole in itself, the same every time, and safe whatever the files are called."""

import base64
import io
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from tomllib import loads

import numpy as np
import pytest
from PIL import Image

from kdcompress.evidence import Attacked, Evidence, ShownImage
from kdcompress.render.html.curves import over_eps, series
from kdcompress.render.html.flat import flat
from kdcompress.render.html.page import bar, page
from kdcompress.render.html.pictures import LARGEST, Picture, photograph, signed_map
from kdcompress.report import DataRecord, Report, RobustAt
from tests.sample_report import (
    HOSTILE,
    attacked_only,
    bare_report,
    counted,
    evidence,
    gate,
    hostile_report,
    masking,
    model,
    rate,
    report,
    robust_rate,
    shown,
)

VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})


class Read(HTMLParser):
    """Tags with their attributes, text, ids; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> out of place"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def read(found: Report, seen: Evidence | None = None) -> Read:
    return Read(page(found, evidence() if seen is None else seen))


def only_student(**changes: object) -> Report:
    return report(models={"student": model(**changes)}, paired=None, ratios={})


def many_classes(number: int) -> Report:
    names = tuple(f"class number {place}" for place in range(number))
    data = DataRecord(name="many", images=1000, of=1000, seed=0, classes=names, sha256="0")
    return report(models={"student": model(names=names), "teacher": model(names=names)}, data=data)


VARIED = {
    "full": report(),
    "bare": bare_report(),
    "hostile": hostile_report(),
    "flagged": only_student(masking=masking(True)),
    "not certified": only_student(certified=None),
    "not checked": only_student(masking=None),
    "not attacked": only_student(**attacked_only(model())),
    "no teacher, no gates": report(models={"student": model()}, paired=None, ratios={}, gates=()),
    "teacher alone": report(models={"teacher": model()}, paired=None, ratios={}, gates=()),
    "three models": report(models={"teacher": model(), "kd": model(0.9, 0.1), "kdiga": model()}, ratios={}),
    "six models": report(models={f"model {place}": model() for place in range(6)}, ratios={}, paired=None),
    "one class": many_classes(1),
    "a thousand classes": many_classes(1000),
    "no images": report(),
}


@pytest.mark.parametrize("kind", VARIED)
def test_whatever_is_missing_the_page_is_whole_asks_for_nothing_and_runs_nothing(kind: str) -> None:
    found = read(VARIED[kind], Evidence() if kind == "no images" else None)
    assert not {"script", "link", "iframe", "object", "form", "a"} & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), "a handler"
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                assert value is not None and value.startswith(("data:image/png;base64,", "#")), value
    assert "url(http" not in "".join(str(attributes) for _, attributes in found.tags)
    assert "None" not in found.words and "nan" not in found.words.split()


@pytest.mark.parametrize("kind", VARIED)
def test_ids_are_unique_and_references_lead_somewhere(kind: str) -> None:
    found = read(VARIED[kind])
    ids = [value for _, attributes in found.tags if (value := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    for _, attributes in found.tags:
        for name, value in attributes.items():
            if name in {"href", "aria-labelledby"}:
                assert value is not None and value.removeprefix("#") in ids
            assert all(target in ids for target in re.findall(r"url\(#([^)]+)\)", value or ""))


def test_the_same_report_gives_the_same_bytes() -> None:
    assert page(report(), evidence()).encode() == page(report(), evidence()).encode()


def test_it_can_be_read_aloud() -> None:
    found = read(report())
    assert found.all("html")[0]["lang"] == "en" and found.all("title")
    assert all(image["alt"] for image in found.all("img"))
    assert all(head.get("scope") in {"col", "row", "colgroup"} for head in found.all("th"))
    figures = [svg for svg in found.all("svg") if svg.get("class") not in {"bar", "key s0", "key s1"}]
    assert figures and all(svg["role"] == "img" and svg["aria-label"] for svg in figures)
    assert all(svg.get("aria-hidden") for svg in found.all("svg") if svg not in figures)


def test_a_policy_forbids_what_the_page_does_not_do() -> None:
    policy = next(meta["content"] for meta in read(report()).all("meta") if meta.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_there_are_a_dark_and_a_print_style() -> None:
    text = page(bare_report(), Evidence())
    assert "@media screen and (prefers-color-scheme: dark)" in text and "@media print" in text


def test_names_that_are_programs_stay_names() -> None:
    seen = evidence(gallery=(shown(id=HOSTILE, label=HOSTILE),))
    text = page(hostile_report(), seen)
    assert "<script" not in text and "\x00" not in text and "\u202e" not in text
    assert "<script>alert(1)</script>" in Read(text).words
    text.encode("utf-8")


def test_a_name_that_no_encoding_knows_can_still_be_written() -> None:
    page(report(notes=("a\udcffb",)), evidence(gallery=(shown(id="\udcff.png"),))).encode("utf-8")


@pytest.mark.parametrize(
    ("kind", "there", "not_there"),
    [
        (
            "full",
            (
                *("3 of 7 gates missed", "--max-latency-ms", "at most 3.0 points", "+2.1 points [+0.4, +3.8]"),
                *("by the conservative bound", "Robustness not shown to be preserved within 3.0 points at 95%."),
                *("29.48x", "498", "both lost", "p = 0.014", "91.2% [89.5, 92.9]", "Robust accuracy over eps"),
                *("an estimate", "smoothed classifier", "Class by class", "6 passed, 1 not applicable"),
                *(
                    "the teacher's normalisation is read from its file",
                    "student.path",
                    "c0ffee",
                    "2.15.0",
                    "1 h 02 min",
                ),
                *("apgd-ce, apgd-t, fab-t, square", "0.4914, 0.4822, 0.4465", "not set"),
            ),
            ("not to be trusted", "between them are not shown"),
        ),
        (
            "bare",
            ("No gates were set", "93.0% [91.3, 94.7]"),
            ("Gates", "under attack", "masking", "Certified", "over eps", "Class by class", "Teacher"),
        ),
        ("flagged", ("Robust accuracy is not to be trusted", "62 of 200 images", "1 FLAGGED"), ()),
        ("not checked", ("The checks were not run",), ("passed",)),
        ("not certified", ("Robust accuracy over eps",), ("Certified", "smoothed")),
        ("not attacked", ("Class by class",), ("under attack", "masking")),
        ("three models", ("KD student", "KDIGA student"), ()),
        ("a thousand classes", ("The 10 worst and the 10 best of 1000 classes", "980 classes between them"), ()),
        ("one class", ("class number 0",), ("worst",)),
    ],
)
def test_the_page_says_what_was_found_and_nothing_of_what_was_not(
    kind: str, there: tuple[str, ...], not_there: tuple[str, ...]
) -> None:
    words = read(VARIED[kind], Evidence()).words
    assert [part for part in there if part not in words] == []
    assert [part for part in not_there if part in words] == []


def test_the_verdict_comes_before_everything_else() -> None:
    words = read(VARIED["flagged"]).words
    order = [words.index(part) for part in ("gates missed", "is not to be trusted", "at least 55%", "Parameters")]
    assert order == sorted(order)


def test_an_attack_that_stopped_early_says_so() -> None:
    stopped = robust_rate(0.5, n=340, interval="anytime-valid")
    assert "after 340 of 1000 images" in read(only_student(robust_accuracy=stopped)).words


def test_of_many_classes_the_worst_and_the_best_are_shown_in_order() -> None:
    found = many_classes(1000)
    ranked = sorted(found.models["student"].classes, key=lambda one: one.robust.value if one.robust else 0)
    shown_names = re.findall(r'class="name">(class number \d+)<', page(found, Evidence()))
    assert shown_names == [one.name for one in (*ranked[:10], *ranked[-10:])]


def test_a_figures_colours_are_the_pages_and_its_text_is_text() -> None:
    drawn = over_eps(report())
    assert drawn is not None
    assert not re.search(r"#[0-9a-f]{6}\b(?!-)", re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", drawn)), "a fixed colour"
    assert "var(--series-0)" in drawn and "var(--ink)" in drawn and ">8</text>" in drawn
    assert "<style" not in drawn and "font-family" not in drawn and "metadata" not in drawn


@pytest.mark.parametrize(
    ("radii", "labels", "along"),
    [
        ((1 / 255, 2 / 255, 16 / 255), {"0", "1", "2", "16"}, "eps (Linf), in 255ths"),
        ((0.05, 0.1), {"0", "0.05", "0.1"}, "eps (Linf)"),
        ((0.001, 0.002, 0.5), {"0", "0.5"}, "eps (Linf)"),
    ],
)
def test_a_radius_is_labelled_as_people_write_it_unless_labels_would_touch(
    radii: tuple[float, ...], labels: set[str], along: str
) -> None:
    points = tuple(RobustAt(**rate(0.5).model_dump(), eps=eps) for eps in radii)
    drawn = over_eps(only_student(over_eps=points))
    assert drawn is not None and f">{along}</text>" in drawn
    below = drawn[drawn.index("matplotlib.axis_1") : drawn.index("matplotlib.axis_2")]
    assert set(re.findall(r">([\d.]+)</text>", below)) == labels


def test_lines_are_told_apart_by_more_than_colour() -> None:
    drawn = over_eps(report())
    assert drawn is not None and "stroke-dasharray" in drawn
    assert series(["student", "teacher"]) == {"teacher": 0, "student": 1}
    assert series(["teacher", "kd", "kdiga"]) == {"teacher": 0, "kd": 1, "kdiga": 2}


def test_a_dollar_or_a_rare_letter_in_a_models_name_is_drawn_without_a_warning() -> None:
    drawn = over_eps(report(models={"a$b_c$ 犬 <b>": model()}, ratios={}, paired=None))
    assert drawn is not None and "a$b_c$ 犬 &lt;b&gt;" in drawn


def test_nothing_is_drawn_where_one_radius_was_attacked() -> None:
    assert over_eps(bare_report()) is None


@pytest.mark.parametrize("name", ["--min-clean-accuracy", "--min-certified-accuracy 0.25:0.40"])
def test_the_bar_of_a_rate_fills_its_natural_scale(name: str) -> None:
    assert bar(gate(name, 0.4)) == {"value": 52, "low": 49, "high": pytest.approx(55), "threshold": 40}


@pytest.mark.parametrize("found", [gate(), gate("--max-robust-drop", 0.03, value=-0.02, low=-0.05, high=0.01)])
def test_a_gates_bar_keeps_its_order_and_stays_within_its_track(found: object) -> None:
    places = bar(found)  # type: ignore[arg-type]
    assert places is not None
    assert 0 <= places["low"] <= places["value"] <= places["high"] <= 100 and 0 <= places["threshold"] <= 100


def test_a_count_has_no_bar() -> None:
    assert bar(counted("--max-params", 10, 9)) is None


def decoded(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (32, 32, 3), (9, 7, 2), (12, 5, 4), (1, 1, 1), (224, 160, 3), (3, 500, 1)]
)
def test_an_image_of_any_shape_is_shown_at_its_own_size_or_averaged_down(shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    pixels = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    for picture in (photograph(pixels), signed_map(pixels.astype(np.float32), 99).picture):
        assert decoded(picture).size == (picture.width, picture.height)
        assert max(picture.width, picture.height) == min(LARGEST, max(height, width))
    if channels in {1, 3} and max(height, width) <= LARGEST:
        assert np.array_equal(np.asarray(decoded(photograph(pixels))).reshape(shape), pixels)


def test_a_signed_maps_middle_is_zero_and_its_ends_are_the_scale() -> None:
    values = np.array([[-2.0, 0.0, 2.0, 1.0]], dtype=np.float32)[:, :, None]
    found = signed_map(values, 100)
    blue, white, orange, between = np.asarray(decoded(found.picture).convert("RGB"))[0].tolist()
    assert found.scale == 2.0
    assert blue[2] > blue[0] and orange[0] > orange[2] and min(white) > 240
    assert orange[2] < between[2] < white[2]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_a_gradient_without_a_finite_size_is_flat(value: float) -> None:
    found = signed_map(np.full((4, 4, 3), value, dtype=np.float32), 99)
    assert found.scale == 0 and len(decoded(found.picture).convert("RGB").getcolors() or ()) == 1


def test_a_gradient_of_a_single_pixel_is_still_seen() -> None:
    values = np.zeros((32, 32, 1), dtype=np.float32)
    values[3, 4] = 1e-30
    found = signed_map(values, 99)
    assert found.scale > 0 and len(decoded(found.picture).convert("RGB").getcolors() or ()) == 2


def test_a_large_gallery_stays_a_small_file() -> None:
    noise = np.random.RandomState(0).randint(0, 256, (224, 224, 3)).astype(np.uint8)
    view = Attacked("a", noise, "b", noise.astype(np.float32))
    image = ShownImage("x", "a", noise, {"student": view, "teacher": view})
    assert len(page(report(), Evidence(gallery=(image,) * 10))) < 4_000_000  # 30 noisy photographs of 128 x 128 pixels


def test_the_gallery_says_what_was_seen_and_at_which_scale() -> None:
    words = read(report()).words
    for part in ("student sees cat ✓ right", "✕ seen as dog", "160x224 pixels averaged down", "2 channels"):
        assert part in words
    assert re.search(r"change ±\d+(\.\d+)?/255", words) and re.search(r"gradient ±[\d.]+", words)


def test_an_image_that_stood_says_so() -> None:
    assert "stood the attack" in read(report()).words


def test_settings_are_flat_and_none_is_left_out() -> None:
    assert list(flat({"a": {"b": {"c": 1}}, "d": [True, None], "e": {}})) == [
        ("a.b.c", "1"),
        ("d", "yes, not set"),
        ("e", "none"),
    ]


def test_templates_travel_with_the_package() -> None:
    project = loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["kdcompress"]
    package = Path(str(files("kdcompress")))
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path for path in (package / "render" / "html").iterdir() if path.suffix in {".jinja", ".css"}} <= packed
