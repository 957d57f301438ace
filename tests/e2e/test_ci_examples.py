"""The commands of the example pipelines run, in the order they stand, on the files that they name."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.reports import network, report

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"
QUICK = ("--attack", "pgd-3", "--eps", "4/255", "--images", "8", "--certify-images", "0", "--device", "cpu")
"""Seconds instead of hours; the last of an option's values counts."""
LOOSE = ("--min-clean-accuracy", "0.1", "--min-robust-accuracy", "0.05", "--max-robust-drop", "0.9")


def commands(name: str) -> list[list[str]]:
    """The words of every kdcompress command of a pipeline."""
    pipeline: Any = yaml.safe_load((EXAMPLES / name).read_text())
    if name == "github.yml":
        lines = [step["run"] for job in pipeline["jobs"].values() for step in job["steps"] if "run" in step]
    else:
        lines = pipeline["robustness"]["script"]
    return [shlex.split(line)[1:] for line in lines if line.startswith("kdcompress ")]


def artifacts(name: str) -> set[str]:
    """The files that a pipeline collects."""
    pipeline: Any = yaml.safe_load((EXAMPLES / name).read_text())
    if name == "github.yml":
        (job,) = pipeline["jobs"].values()
        return set(job["steps"][-1]["with"]["path"].split())
    found = pipeline["robustness"]["artifacts"]
    return {*found["paths"], *found["reports"]["junit"]}


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_commands_run_and_leave_the_files_that_are_collected(
    name: str, run: Any, student: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    for model in ("student", "teacher"):
        shutil.copy(student / "student.safetensors", f"model/{model}.safetensors")
    Path("images").symlink_to(pictures)
    screen, judge, compare = commands(name)
    collected = artifacts(name)
    assert run(*screen, *QUICK, "--min-robust-accuracy", "0.05").code in (0, 1)  # eight images decide little
    ran = run(*judge, *QUICK, *LOOSE)
    assert ran.code == 0, ran.stderr
    shutil.copy("report.json", "baseline.json")
    ran = run(*compare, "--max-clean-drop", "0.9", "--max-robust-drop", "0.9")
    assert ran.code == 0, ran.stderr
    left = {path.name for path in Path().iterdir() if path.is_file() and path.name != "baseline.json"}
    assert left == collected and all(Path(file).stat().st_size > 0 for file in left)


def test_a_regression_against_the_last_release_is_a_failure_in_junit_and_on_the_summary_page(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    Path("baseline.json").write_text(report(network("." * 400 + "0" * 100)).model_dump_json())
    Path("report.json").write_text(report(network("." * 300 + "0" * 200)).model_dump_json())
    assert run(*commands("github.yml")[-1]).code == 1
    root = ElementTree.parse("regressions.xml").getroot()
    assert [case.attrib["name"] for case in root.iter("testcase") if case.find("failure") is not None] == [
        "--max-robust-drop 0.05"
    ]
    assert "❌ missed | --max-robust-drop" in Path("summary.md").read_text()


def test_github_keeps_verdicts_whatever_became_of_the_job_and_before_anything_that_may_fail() -> None:
    """The cache action's own saving is a post step that runs after a success alone."""
    (job,) = yaml.safe_load((EXAMPLES / "github.yml").read_text())["jobs"].values()
    steps = job["steps"]
    used = [step.get("uses", "").partition("@")[0] for step in steps]
    restore, save = (steps[used.index(f"actions/cache/{what}")] for what in ("restore", "save"))
    assert "actions/cache" not in used
    assert save["if"] == "always()" and save["with"]["path"] == restore["with"]["path"]
    assert save["with"]["key"] == f"${{{{ steps.{restore['id']}.outputs.cache-primary-key }}}}"
    last_run = max(place for place, step in enumerate(steps) if "run" in step)
    assert used.index("actions/cache/save") == last_run + 1


def test_no_pipeline_asks_for_a_file_that_the_repository_need_not_have() -> None:
    """setup-python's `cache: pip` fails where there is no requirements.txt or pyproject.toml."""
    (job,) = yaml.safe_load((EXAMPLES / "github.yml").read_text())["jobs"].values()
    assert not any("cache" in step.get("with", {}) for step in job["steps"])


def test_both_pipelines_ask_the_same() -> None:
    assert commands("github.yml") == commands("gitlab.yml")


def test_the_job_summary_of_github_gets_the_report(
    run: Any, student: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    asked = ("evaluate", student / "student.safetensors", "--data", pictures, *QUICK)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run(*asked).code == 0
    assert summary.read_text().startswith("before\n")
    assert "clean accuracy" in summary.read_text()
    # A summary that cannot be written costs the job nothing.
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    lost = run(*asked, "--format", "json")
    assert lost.code == 0
    assert json.loads(lost.stdout)["models"]
    assert "job summary" in lost.stderr
