"""`kdcompress certify` from end to end: every kind of radius, the audit, gates, files."""

import csv
import json
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

QUICK = (
    *("--eps", "4/255,16/255", "--images", 6, "--audit-images", 3, "--clever-images", 2, "--clever-batches", 3),
    *("--clever-samples", 4, "--n0", 10, "--n", 200, "--device", "cpu"),
)


@pytest.fixture(scope="module")
def found(run: Any, student: Path, teacher: list[str], pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report, the folder with its files, and what was printed."""
    folder = tmp_path_factory.mktemp("certified")
    out = ("--report", folder / "r.json", "--html", folder / "r.html", "--table", folder / "r.csv")
    ran = run("certify", student / "student.safetensors", *teacher, "--data", pictures, *QUICK, *out)
    assert ran.code == 0, ran.stderr
    return json.loads((folder / "r.json").read_text()), folder, ran


def test_the_report_obeys_its_schema_and_holds_every_kind_for_both_networks(found: Any) -> None:
    report, _, _ = found
    schema = json.loads((files("kdcompress") / "certification.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, schema)
    assert list(report["models"]) == ["student", "teacher"]
    for model in report["models"].values():
        assert None not in (model["first_order"], model["clever"], model["smoothing"], model["bounds"])
    assert [one["eps"] for one in report["audit"]["proposition1"]] == [4 / 255, 16 / 255]


def test_sound_bounds_of_a_linear_teacher_are_no_estimate_and_exceed_no_attack(found: Any) -> None:
    bounds = found[0]["models"]["teacher"]["bounds"]
    assert bounds["unsupported"] is None
    for at in bounds["at"]:
        assert at["open"] == 0  # linear: proved or broken
        assert at["verified"] + at["broken"] + at["wrong"] == at["n"] == 6


def test_every_estimate_says_so_where_it_is_printed(found: Any) -> None:
    printed = found[2].stdout
    for head in ("First-order radius: an ESTIMATE", "CLEVER: an ESTIMATE", "Right sides are ESTIMATES"):
        assert head in printed
    assert "a CERTIFICATE of the network itself" in printed


def test_files_are_written_beside_the_report(found: Any) -> None:
    _, folder, _ = found
    with (folder / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert float(rows[0]["teacher_bounds_certified_linf"]) > 0
    assert rows[0]["student_clever_estimate"] != "" and rows[5]["student_clever_estimate"] == ""
    assert "Proposition 2" in (folder / "r.html").read_text(encoding="utf-8")


def test_the_same_again_takes_what_was_kept_and_finds_the_same(
    found: Any, run: Any, student: Path, teacher: list[str], pictures: Path
) -> None:
    again = run(*("certify", student / "student.safetensors", *teacher, "--data", pictures, *QUICK, "--format", "json"))
    report = json.loads(again.stdout)
    for key in ("models", "audit"):
        assert report[key] == found[0][key]


def test_the_batch_changes_neither_what_was_kept_nor_what_is_found(
    found: Any, run: Any, student: Path, teacher: list[str], pictures: Path
) -> None:
    # What was kept of the audit is found again under another batch; without it the figures are the same.
    for keep in ([], ["--fresh"]):
        again = run(
            *("certify", student / "student.safetensors", *teacher, "--data", pictures, *QUICK, "--format", "json"),
            *("--kinds", "first-order", "--batch-size", 3, *keep),
        )
        assert again.code == 0, again.stderr
        one, other = (report["audit"]["radii"] for report in (found[0], json.loads(again.stdout)))
        for whose in ("student_at_most", "teacher_at_most"):
            radii = [[9.0 if radius is None else radius for radius in report[whose]] for report in (one, other)]
            assert radii[1] == pytest.approx(radii[0], rel=1e-3)  # halving ends there


def test_a_proposition_that_does_not_fit_in_memory_is_a_note(
    run: Any, student: Path, teacher: list[str], pictures: Path
) -> None:
    ran = run(
        *("certify", student / "student.safetensors", *teacher, "--data", pictures, *QUICK, "--format", "json"),
        *("--kinds", "first-order", "--memory", 1e-5),
    )
    assert ran.code == 0, ran.stderr
    audit = json.loads(ran.stdout)["audit"]
    assert audit["proposition1"] == [] and len(audit["unmeasured"]) == 2
    assert "not measured: needs" in ran.stderr


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        (["--min-verified-accuracy", 1], 0),
        (["--min-verified-accuracy", 1, "--gate-on", "bound"], 1),
        (["--min-certified-accuracy", "0:0"], 0),
    ],
)
def test_gates_decide_the_exit_code(
    run: Any, teacher: list[str], pictures: Path, gate: list[object], code: int
) -> None:
    kinds = "smoothing" if "--min-certified-accuracy" in gate else "bounds"
    ran = run(
        *("certify", *teacher, "--data", pictures, "--eps", "1/255", "--images", 4, "--kinds", kinds, "--n", 200),
        *("--device", "cpu", *gate),
    )
    assert ran.code == code, ran.stderr


def test_a_network_without_sound_bounds_is_said_so_first_and_refused_where_a_gate_needs_them(
    run: Any, weights: Path, pictures: Path, tmp_path: Path
) -> None:
    factory = tmp_path / "curved.py"
    factory.write_text(
        "from torch import nn\n\ndef curved(classes=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes), nn.Tanh())\n"
    )
    words = ("certify", weights, "--arch", f"{factory}:curved", "--mean", "none", "--data", pictures, "--images", 4)
    words = (*words, "--eps", "1/255", "--kinds", "first-order,bounds", "--device", "cpu")
    ran = run(*words)
    assert ran.code == 0, ran.stderr
    assert "student: sound bounds: not supported: " in ran.stderr and "ReLUs" in ran.stderr
    refused = run(*words, "--min-verified-accuracy", 0.5)
    assert refused.code == 2
    (line,) = (line for line in refused.stderr.splitlines() if line.startswith("error"))
    assert "--min-verified-accuracy needs sound bounds of the student: not supported: " in line and "ReLUs" in line


def test_too_little_memory_is_said_before_anything_is_measured(run: Any, teacher: list[str], pictures: Path) -> None:
    ran = run("certify", *teacher, "--data", pictures, "--eps", "1/255", "--memory", 0.001, "--device", "cpu")
    assert ran.code == 2 and "need at least" in ran.stderr and "the limit is 1 MiB" in ran.stderr
    assert "CLEVER" not in ran.stderr and "smoothing" not in ran.stderr


def test_verdicts_can_be_had_without_the_search(run: Any, teacher: list[str], pictures: Path) -> None:
    words = ("certify", *teacher, "--data", pictures, "--eps", "1/255", "--images", 4, "--kinds", "bounds")
    ran = run(*words, "--no-largest", "--device", "cpu", "--format", "json", "--fresh")
    bounds = json.loads(ran.stdout)["models"]["teacher"]["bounds"]
    assert bounds["largest"] == [] and bounds["median"] is None and bounds["at"][0]["n"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["certify needs a model file", "--teacher"]),
        (["MODEL", "--kinds", "ibp"], ["--kinds", "ibp"]),
        (["MODEL", "--norm", "L1"], ["--norm", "'L1'", "'Linf', 'L2'"]),
        (["MODEL", "--clever-radius", 0], ["--clever-radius", "got 0"]),
        (["MODEL", "--clever-batches", 0], ["--clever-batches", "got 0"]),
        (["MODEL", "--keep-dir", "MODEL"], ["--keep-dir must be a folder"]),
        (["MODEL", "--kinds", "clever", "--min-verified-accuracy", 0.5], ["needs bounds among --kinds", "got clever"]),
        (["MODEL", "--min-certified-accuracy", "9:0.5"], ["radius 9", "at most"]),
        (["MODEL", "--memory", 0], ["--memory", "got 0"]),
        (["MODEL", "--audit-images", 0], ["--audit-images", "got 0"]),
        (["MODEL", "--report", "MODEL"], ["--report"]),
    ],
)
def test_what_cannot_be_certified_is_one_line(
    run: Any, student: Path, pictures: Path, words: list[object], said: list[str]
) -> None:
    named = [student / "student.safetensors" if word == "MODEL" else word for word in words]
    ran = run("certify", *named, "--data", pictures, "--eps", "1/255")
    assert ran.code == 2
    assert ran.stderr.count("\n") == 1, ran.stderr
    for part in said:
        assert part in ran.stderr


def test_a_name_that_is_no_text_costs_no_output(run: Any, teacher: list[str], pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    (odd,) = list((tmp_path / "data" / "test" / "north").iterdir())[:1]
    odd.rename(odd.with_name(os.fsdecode(b"caf\xe9.png")))
    out = [tmp_path / name for name in ("o.csv", "o.json", "o.html")]
    ran = run(
        *("certify", *teacher, "--data", tmp_path / "data", "--eps", "1/255", "--images", 16, "--kinds", "first-order"),
        *("--device", "cpu", "--table", out[0], "--report", out[1], "--html", out[2]),
    )
    assert ran.code == 0, ran.stderr
    assert b"caf\xe9.png" in out[0].read_bytes() and all(path.exists() for path in out)


def test_a_certification_is_no_report_to_compare(run: Any, found: Any) -> None:
    ran = run("compare", found[1] / "r.json", found[1] / "r.json")
    assert ran.code == 2 and "found a certification of kdcompress certify" in ran.stderr
