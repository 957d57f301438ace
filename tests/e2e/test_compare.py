"""kdcompress compare on reports made by hand: the table, the JSON, gates and exit codes, and a start without torch."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from kdcompress.comparison import Comparison
from kdcompress.report import Report
from tests.reports import masked, network, report

BASE = "." * 600 + "0" * 300 + "x" * 100
SAME = "0" * 4 + "." * 599 + "0" * 297 + "x" * 100
WORSE = "." * 500 + "0" * 390 + "x" * 110


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(name: str, made: Report) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(made.model_dump_json(indent=2))
        return path

    return save


@pytest.fixture
def base(saved: Any) -> Path:
    return saved("main.json", report(network(BASE)))


@pytest.fixture
def worse(saved: Any) -> Path:
    return saved("branch.json", report(network(WORSE, latency_ms=3.0)))


@pytest.fixture
def same(saved: Any) -> Path:
    return saved("tidy.json", report(network(SAME)))


def test_reports_stand_side_by_side_with_their_intervals(run: Any, base: Path, worse: Path, same: Path) -> None:
    ran = run("compare", base, worse, same)
    assert (ran.code, ran.stderr) == (0, "")
    for part in (
        *("main.json", "branch.json", "tidy.json", "digits: 1000 of 10000", "Linf 8/255", "PGD-3", "resnet18", "1.00k"),
        *("20.00k", "4.00 kB", "2.00 ms", "3.00 ms", "90.0% [88.0, 91.8]", "60.0% [56.9, 63.1]", "50.0% [46.9, 53.1]"),
        "smoothed classifier: certified at L2 0.250",
        "branch.json against main.json: parameters 1.00x, MACs 1.00x, file 1.00x, latency 1.50x",
        "drop in clean accuracy +1.0 points [",
        "drop in robust accuracy +10.0 points [",
        "paired: 100 right for the baseline alone, 0 for this alone, McNemar's p 1.6e-30",
        "robustness shown not to be preserved within 3 points at 95%",
        "robustness preserved within 3 points at 95%",
    ):
        assert part.replace("20.00k", "20k") in ran.stdout, f"{part!r} is not in\n{ran.stdout}"


def test_each_column_is_under_its_report(run: Any, base: Path, worse: Path) -> None:
    lines = run("compare", worse, base).stdout.splitlines()
    head, robust = lines[0], next(line for line in lines if line.startswith("robust accuracy"))
    assert head.index("branch.json") < head.index("main.json")
    assert robust.index("50.0%") < robust.index("60.0%")


def test_json_is_all_there_is_on_stdout_and_obeys_the_schema(run: Any, base: Path, worse: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    ran = run("compare", base, worse, "--format", "json", "--report", out)
    assert (ran.code, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert found == json.loads(out.read_text())
    assert found["schema_version"] == "1.0"
    jsonschema.validate(found, json.loads((files("kdcompress") / "comparison.schema.json").read_text(encoding="utf-8")))
    assert Comparison.model_validate_json(ran.stdout).against_baseline[0].label == "branch.json"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_shipped_schema_is_the_models_own() -> None:
    shipped = json.loads((files("kdcompress") / "comparison.schema.json").read_text(encoding="utf-8"))
    assert Comparison.model_json_schema(mode="serialization") == shipped, (
        'regenerate it: python -c "import json; from kdcompress.comparison import Comparison; '
        "print(json.dumps(Comparison.model_json_schema(mode='serialization'), indent=2))\" "
        "> kdcompress/comparison.schema.json"
    )


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        (("--max-robust-drop", 0.05), 1),
        (("--max-robust-drop", 0.2), 0),
        (("--max-clean-drop", 0.005), 1),
        (("--max-clean-drop", 0.05), 0),
        (("--max-latency-ratio", 1.4), 1),
        (("--max-latency-ratio", 1.5), 0),
    ],
)
def test_a_missed_gate_exits_with_1_and_the_report_is_still_written(
    run: Any, base: Path, worse: Path, tmp_path: Path, gate: tuple[str, float], code: int
) -> None:
    out = tmp_path / "out.json"
    ran = run("compare", base, worse, *gate, "--report", out)
    assert ran.code == code, ran.stdout
    assert f"gate {'MISSED' if code else 'met   '} {gate[0]}" in ran.stdout
    assert json.loads(out.read_text())["gates"][0]["met"] is (code == 0)


def test_one_worse_report_among_good_ones_exits_with_1(run: Any, base: Path, worse: Path, same: Path) -> None:
    assert run("compare", base, same, "--max-robust-drop", 0.03).code == 0
    ran = run("compare", base, same, worse, "--max-robust-drop", 0.03)
    assert ran.code == 1
    assert ran.stdout.count("gate met") == ran.stdout.count("gate MISSED") == 1


def test_a_drop_is_the_same_figure_on_its_own_line_and_on_its_gates(run: Any, base: Path, worse: Path) -> None:
    for pair in ((base, worse), (worse, base)):
        lines = run("compare", *pair, "--max-robust-drop", 0.05, "--max-clean-drop", 0.05).stdout.splitlines()
        for kind in ("clean", "robust"):
            (drop,) = [line for line in lines if f"drop in {kind} accuracy" in line]
            (gate,) = [line for line in lines if f"--max-{kind}-drop" in line]
            figure = re.search(r"[+-][\d.]+ points \[.*?\]", drop)
            assert figure is not None and figure[0] in gate


def test_what_has_not_changed_is_no_negative_zero(run: Any, base: Path) -> None:
    ran = run("compare", base, base)
    assert "drop in robust accuracy 0.0 points [" in ran.stdout and "-0.0" not in ran.stdout


def test_a_bound_just_beyond_what_is_allowed_is_not_rounded_to_it(run: Any, base: Path, saved: Any) -> None:
    """Eight images lost and three won of 1000: the interval ends at 1.307 points."""
    other = saved("other.json", report(network("0" * 8 + "." * 595 + "0" * 297 + "x" * 100)))
    ran = run("compare", base, other, "--max-robust-drop", 0.013)
    assert ran.code == 1
    lines = [line for line in ran.stdout.splitlines() if "drop in robust" in line or "--max-robust-drop" in line]
    assert len(lines) == 2 and all("+0.50 points [-0.18, +1.31]" in line for line in lines), lines


@pytest.fixture
def odd(saved: Any) -> Path:
    return saved("odd.json", report(network(SAME, masking=masked("90% of gradients are zero"))))


def test_a_report_with_signs_of_masking_fails_the_robust_gate_unless_allowed(run: Any, base: Path, odd: Path) -> None:
    ran = run("compare", base, odd, "--max-robust-drop", 0.03)
    assert ran.code == 1
    assert "not to be trusted: odd.json: 90% of gradients are zero" in ran.stdout
    assert run("compare", base, odd, "--max-robust-drop", 0.03, "--allow-untrusted").code == 0


@pytest.mark.parametrize("options", [(), ("--max-robust-drop", 0.03), ("--max-robust-drop", 0.03, "--allow-untrusted")])
def test_signs_of_masking_are_told_with_their_reasons_and_robustness_is_not_called_preserved(
    run: Any, base: Path, odd: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    for pair in ((base, odd), (odd, base)):
        ran = run("compare", *pair, *options, "--markdown", tmp_path / "out.md")
        for text in (ran.stdout, (tmp_path / "out.md").read_text()):
            assert "odd.json: robust accuracy NOT TO BE TRUSTED, because: 90% of gradients are zero" in text
            assert "whether robustness is preserved within 3 points cannot be told" in text
            assert "preserved within 3 points at 95%" not in text


def test_gates_reach_junit_and_markdown_and_the_job_summary(
    run: Any, base: Path, worse: Path, same: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {option: tmp_path / f"out.{option}" for option in ("junit", "markdown", "summary")}
    places["summary"].write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(places["summary"]))
    gates = ("--max-robust-drop", 0.05, "--max-latency-ratio", 9)
    ran = run("compare", base, worse, same, *gates, "--junit", places["junit"], "--markdown", places["markdown"])
    assert ran.code == 1
    suite = ElementTree.parse(places["junit"]).getroot().find("testsuite")
    assert suite is not None and (suite.attrib["tests"], suite.attrib["failures"]) == ("4", "1")
    failed = [case.attrib for case in suite.findall("testcase") if case.find("failure") is not None]
    assert failed == [{"classname": "kdcompress.branch_json", "name": "--max-robust-drop 0.05", "time": "0"}]
    text = places["markdown"].read_text()
    assert text.startswith("## ❌ 1 of 4 gates missed\n") and "| ❌ missed | --max-robust-drop | branch.json |" in text
    assert "- drop in robust accuracy +10.0 points" in text
    assert places["summary"].read_text() == f"before\n{text}\n"


def test_without_gates_there_is_still_something_to_read(run: Any, base: Path, worse: Path, tmp_path: Path) -> None:
    words = ("--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    assert run("compare", base, worse, *words).code == 0
    assert ElementTree.parse(tmp_path / "j.xml").getroot().attrib["tests"] == "0"
    assert "| robust accuracy | 60.0% [56.9, 63.1] | 50.0% [46.9, 53.1] |" in (tmp_path / "m.md").read_text()


def test_reports_of_the_same_name_are_told_apart(run: Any, saved: Any) -> None:
    paths = [saved(f"{folder}/report.json", report(network(BASE))) for folder in ("a", "b")]
    ran = run("compare", *paths)
    assert ran.code == 0
    assert "a/report.json" in ran.stdout and "b/report.json" in ran.stdout


def test_a_report_cannot_write_to_the_terminal_by_itself(run: Any, base: Path, saved: Any) -> None:
    path = saved("x.json", report(network(BASE, arch="\x1b[2J[red]net\r\n")))
    ran = run("compare", base, path)
    assert ran.code == 0
    assert "\x1b" not in ran.stdout and "?[2J[red]net??" in ran.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["BASE"], ["a baseline's report and another", "got 1"]),
        (["BASE", "nowhere.json"], ["nowhere.json: expected a report, found nothing there"]),
        (["BASE", "FOLDER"], ["found a folder"]),
        (["BASE", "TEXT"], ["text.json: expected the JSON of kdcompress evaluate --report"]),
        (["BASE", "CUT"], ["cut.json: expected the JSON"]),
        (["BASE", "OLD"], ["old.json: expected a report of schema_version 1.1, found 1.0"]),
        (["BASE", "BASE", "--model", "teacher"], ["--model teacher", "has student"]),
        (["BASE", "BASE", "--max-robust-drop", 3], ["--max-robust-drop", "got 3"]),
        (["BASE", "BASE", "--max-clean-drop", -1], ["--max-clean-drop", "got -1"]),
        (["BASE", "BASE", "--max-latency-ratio", 0], ["--max-latency-ratio", "got 0"]),
        (["BASE", "BASE", "--report", "nowhere/out.json"], ["create nowhere first"]),
        (["BASE", "BASE", "--report", "a", "--junit", "./a"], ["--report and --junit must be different files"]),
        (["BASE", "UNATTACKED", "--max-robust-drop", 0.1], ["--max-robust-drop cannot be judged", "not attacked"]),
    ],
)
def test_a_comparison_that_cannot_run_says_so_in_one_line(
    run: Any, base: Path, tmp_path: Path, saved: Any, words: list[object], said: list[str]
) -> None:
    whole = base.read_text()
    (tmp_path / "text.json").write_text("not a report")
    (tmp_path / "cut.json").write_text(whole[: len(whole) // 3])
    (tmp_path / "old.json").write_text(whole.replace('"schema_version": "1.1"', '"schema_version": "1.0"'))
    named = {"BASE": base, "FOLDER": tmp_path, "UNATTACKED": saved("u.json", report(network(BASE, attack=None)))}
    named |= {name: tmp_path / f"{name.lower()}.json" for name in ("TEXT", "CUT", "OLD")}
    ran = run("compare", *(named.get(word, word) if isinstance(word, str) else word for word in words))
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1, ran.stderr
    assert all(part in ran.stderr for part in said), ran.stderr


def test_differences_that_mean_nothing_are_left_out_and_said(run: Any, base: Path, saved: Any) -> None:
    made = report(network(WORSE, attack="PGD-20"), device="cuda:0", versions={"torch": "2.16"})
    ran = run("compare", base, saved("other.json", made))
    assert ran.code == 0
    assert "not comparable: robust accuracy: attacked by PGD-20" in ran.stdout
    assert "not comparable: latency: measured on cuda:0, the baseline's on cpu (2 threads)" in ran.stdout
    assert "latency 1" not in ran.stdout
    assert "torch 2.16 (2.15)" in ran.stdout
    assert "robustness" not in ran.stdout


def test_comparing_starts_without_torch(base: Path, worse: Path) -> None:
    script = (
        "import sys; sys.argv[0] = 'kdcompress'\n"
        "from kdcompress.__main__ import app\n"
        "try:\n    app()\nfinally:\n    print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, "compare", str(base), str(worse)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stderr.split())
    assert "scipy" in loaded
    assert loaded.isdisjoint({"torch", "torchvision", "timm", "matplotlib", "sklearn"})
