"""kdcompress bench on 80 images: every method is timed, floors are the counts, and what cannot run is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdcompress.models.cost import macs
from kdcompress.models.students import create_student

METHODS = {
    "KD": lambda r: r + 3,
    "KDIGA exact": lambda r: 2 * r + 6,
    "KDIGA exact, cached teacher": lambda r: 6,
    "KDIGA finite-difference": lambda r: 2 * r + 10,
    "PGD-10 distillation": lambda r: r + 23,
    "published style": lambda r: 3 * r + 9,
}


SIDE = 8  # of `pictures`


def small_student() -> int:
    """Multiply-accumulates of the student below."""
    args: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}
    statistics: Any = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    size = (3, SIDE, SIDE)
    network, _ = create_student(
        "resnet18", args, classes=tuple("abcd"), input_size=size, total_stride=None, **statistics
    )
    return macs(network, size)


@pytest.fixture
def command(pictures: Path, teacher: list[str]) -> list[object]:
    student = ["--student", "resnet18", "--student-arg", "layers=1,1,1,1", "--student-arg", "channels=4,4,8,8"]
    return [
        *("bench", *teacher, *student, "--data", pictures, "--eps", "4/255", "--batch-size", 8),
        *("--repeats", 2, "--epochs", 3, "--device", "cpu", "--no-compiled"),
    ]


def test_every_method_is_timed_beside_its_floor(run: Any, command: list[object], tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    ran = run(*command, "--format", "json", "--report", out)
    assert ran.code == 0, ran.stderr
    assert out.read_text() == ran.stdout
    found = json.loads(ran.stdout)
    rows = {row["method"]: row for row in found["rows"]}
    assert rows.keys() == METHODS.keys()
    r, student = found["r"], small_student()
    for name, cost in METHODS.items():
        row = rows[name]
        assert row["floor"] == pytest.approx(cost(r) / (r + 3))
        assert row["fault"] == "" and row["milliseconds"] > 0
        assert row["ratio"] == pytest.approx(row["milliseconds"] / rows["KD"]["milliseconds"])
        assert row["images_per_second"] == pytest.approx(8000 / row["milliseconds"])
        assert row["tflops"] * row["milliseconds"] == pytest.approx(2 * cost(r) * student * 8 / 1e9)
        # 72 training images are 9 steps of 8, three times over.
        assert row["hours"] == pytest.approx(27 * row["milliseconds"] / 3_600_000)


def test_the_table_has_a_line_for_each(run: Any, command: list[object]) -> None:
    ran = run(*command)
    assert ran.code == 0, ran.stderr
    assert all(name in ran.stdout for name in METHODS)
    assert "r = " in ran.stdout and "floor" in ran.stdout


def test_a_method_that_fails_is_named_and_the_others_are_timed(
    run: Any, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("derivative for aten::x is not implemented")

    monkeypatch.setattr("kdcompress.bench.input_gradient", broken)
    ran = run(*command, "--format", "json")
    rows = {row["method"]: row for row in json.loads(ran.stdout)["rows"]}
    assert rows["published style"]["milliseconds"] is None
    assert "aten::x" in rows["published style"]["fault"]
    assert rows["KDIGA exact"]["milliseconds"] > 0
    assert "aten::x" in run(*command).stdout


def test_a_student_whose_kd_step_fails_is_refused_in_one_line(
    run: Any, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Expected more than 1 value per channel")

    monkeypatch.setattr("kdcompress.training.recipes.terms.distillation_kl", broken)
    ran = run(*command)
    assert ran.code == 2 and ran.stdout == ""
    assert "--student resnet18: a step of plain KD fails already: Expected more than 1 value" in ran.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--repeats", 0, "--repeats: input should be greater than or equal to 1, got 0"),
        ("--student", "resnet81", "did you mean"),
        ("--teacher", "nowhere.pt", "found nothing there"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    run: Any, command: list[object], option: str, value: object, said: str
) -> None:
    ran = run(*command, option, value)
    assert ran.code == 2 and ran.stdout == ""
    assert said in ran.stderr.splitlines()[-1]
