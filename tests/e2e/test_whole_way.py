"""From a teacher to a file that is shipped, one command after another, each on what the one before it left."""

import json
from pathlib import Path
from typing import Any

CPU = ("--device", "cpu", "--fresh")


def test_a_student_is_distilled_evaluated_certified_and_exported(
    run: Any, student: Path, teacher: list[str], pictures: Path, tmp_path: Path
) -> None:
    model = student / "student.safetensors"
    evaluated, certified, exported = (tmp_path / f"{name}.json" for name in ("evaluated", "certified", "exported"))
    ran = run(
        *("evaluate", model, *teacher, "--data", pictures, "--eps", "4/255", "--attack", "apgd", "--certify-images", 2),
        *("--n0", 5, "--n", 20, "--report", evaluated, "--html", tmp_path / "evaluated.html", *CPU),
    )
    assert ran.code == 0, ran.stderr
    ran = run(
        *("certify", model, "--data", pictures, "--eps", "1/255", "--images", 2, "--kinds", "first-order,bounds"),
        *("--no-largest", "--report", certified, *CPU),
    )
    assert ran.code == 0, ran.stderr
    shipped = tmp_path / "student.onnx"
    ran = run("export", model, "--data", pictures, "--images", 8, "--out", shipped, "--report", exported, *CPU)
    assert ran.code == 0, ran.stderr
    assert shipped.stat().st_size > 0
    assert all(json.loads(report.read_text()) for report in (evaluated, certified, exported))
