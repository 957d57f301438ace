"""The report is a contract: its JSON schema is pinned, and what is written obeys it."""

import json
import tomllib
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from kdcompress.report import (
    Certified,
    CertifiedRate,
    DataRecord,
    FirstOrder,
    Gate,
    ModelReport,
    Paired,
    Rate,
    Report,
    RobustRate,
    Smoothing,
    ThreatRecord,
)

REGENERATE = (
    'python -c "import json; from kdcompress.report import Report; '
    "print(json.dumps(Report.model_json_schema(mode='serialization'), indent=2))\" > kdcompress/report.schema.json"
)
SCHEMA: dict[str, Any] = json.loads((files("kdcompress") / "report.schema.json").read_text(encoding="utf-8"))

HALF: dict[str, Any] = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 10}


def full_report(**changes: Any) -> Report:
    net = ModelReport(
        arch="net",
        params=3,
        macs=4,
        file_bytes=5,
        latency_ms=0.5,
        sha256="ab",
        clean_accuracy=Rate(**HALF),
        robust_accuracy=RobustRate(**HALF, attack="PGD-3", stages=("pgd",), chunk=10),
        certified=Certified(
            first_order=FirstOrder(norm="Linf", median=None, n=10),
            smoothing=Smoothing(
                sigma=0.25, n0=10, n=20, alpha=0.001, cap=0.3, abstained=1, at=(CertifiedRate(**HALF, radius=0.0),)
            ),
        ),
    )
    values: dict[str, Any] = {
        "threat_model": ThreatRecord(norm="L2", eps=0.5),
        "data": DataRecord(name="digits", images=10, of=360, seed=0, classes=("0", "1"), sha256="cd"),
        "device": "cpu",
        "models": {"student": net, "teacher": net},
        "paired": Paired(
            both_kept=1,
            teacher_only=2,
            student_only=3,
            both_lost=4,
            drop=-0.1,
            low=-0.2,
            high=0.1,
            p_value=1.0,
            within=0.03,
            preserved=False,
            n=10,
        ),
        "ratios": {"params": 2.0},
        "gates": (
            Gate(
                name="--max-params",
                model="student",
                threshold=3,
                value=3,
                low=3,
                high=3,
                decided_by="point",
                met=True,
                undecided=False,
            ),
        ),
        "notes": ("a note",),
        "settings": {"student": {"path": "s.pt"}},
        "versions": {"torch": "2"},
        "seconds": 1.5,
    }
    return Report(**(values | changes))


def test_the_shipped_schema_is_the_models_own() -> None:
    assert Report.model_json_schema(mode="serialization") == SCHEMA, f"regenerate it: {REGENERATE}"


def test_the_schema_travels_with_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["kdcompress"]
    assert any(fnmatch("report.schema.json", pattern) for pattern in patterns)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "path",
    [
        "schema_version",
        "threat_model.norm",
        "threat_model.eps",
        *(
            f"models.{name}.{key}"
            for name in ("student", "teacher")
            for key in (
                *("arch", "params", "macs"),
                *(f"clean_accuracy.{part}" for part in ("value", "low", "high", "n")),
                *(f"robust_accuracy.{part}" for part in ("value", "low", "high", "n", "attack")),
                *("certified.first_order.kind", "certified.first_order.median"),
                *(f"certified.smoothing.{part}" for part in ("sigma", "n0", "n", "alpha", "abstained")),
                *(f"certified.smoothing.at.0.{part}" for part in ("radius", "value", "low", "high", "n")),
            )
        ),
        "gates",
        "settings",
        "versions",
    ],
)
def test_a_pinned_key_is_in_the_report(path: str) -> None:
    found: Any = json.loads(full_report().model_dump_json())
    for step in path.split("."):
        key = int(step) if step.isdigit() else step
        assert isinstance(found, list) or key in found, f"{path}: no {step}"
        found = found[key]


@pytest.mark.parametrize(
    "report", [full_report(), full_report(paired=None, gates=(), ratios={}, notes=())], ids=["full", "sparse"]
)
def test_a_report_obeys_the_schema_and_comes_back_from_its_json(report: Report) -> None:
    text = report.model_dump_json()
    jsonschema.validate(json.loads(text), SCHEMA)
    assert Report.model_validate_json(text) == report


@pytest.mark.parametrize(
    "path", ["schema_version", "models.student.robust_accuracy", "models.student.clean_accuracy.n", "gates", "paired"]
)
def test_the_schema_demands_the_keys_that_are_always_written(path: str) -> None:
    written = json.loads(full_report().model_dump_json())
    *outer, last = path.split(".")
    inner = written
    for step in outer:
        inner = inner[step]
    del inner[last]
    with pytest.raises(jsonschema.ValidationError, match=last):
        jsonschema.validate(written, SCHEMA)


def test_the_schema_knows_every_key_so_that_a_new_one_is_noticed() -> None:
    written = json.loads(full_report().model_dump_json()) | {"surprise": 1}
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate(written, SCHEMA)


def test_what_is_not_finite_becomes_null_since_json_has_no_other_word() -> None:
    text = full_report(settings={"deep": {"nan": float("nan"), "inf": [float("inf")]}}).model_dump_json()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the JSON")

    assert json.loads(text, parse_constant=refuse)["settings"] == {"deep": {"nan": None, "inf": [None]}}


def test_a_report_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        full_report().seconds = 0


def test_text_that_utf8_cannot_hold_is_written_out_wherever_it_stands() -> None:
    odd, plain = "a\udcff\ud800", r"a\udcff\ud800"
    data = DataRecord(name=odd, images=1, of=1, seed=0, classes=(odd, "1"), sha256="0")
    found = full_report(data=data, notes=(odd,), settings={odd: {"path": [odd, 1]}}, device="Ångström 犬")
    assert (found.data.name, found.data.classes, found.notes) == (plain, (plain, "1"), (plain,))
    assert found.settings == {plain: {"path": [plain, 1]}} and found.device == "Ångström 犬"
    assert Report.model_validate_json(found.model_dump_json()) == found
