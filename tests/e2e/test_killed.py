"""An evaluation killed at any moment goes on where it was, and ends with the report of one that was not."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


def evaluation(student: Path, pictures: Path, cache: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "kdcompress", "evaluate", str(student / "student.safetensors")),
            *("--data", str(pictures), "--eps", "12/255,24/255", "--attack", "apgd", "--chunk", "4", "--images", "12"),
            *("--certify-images", "0", "--no-masking-checks", "--device", "cpu", "--format", "json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"},
    )


def figures(stdout: str) -> dict[str, Any]:
    """The report without what depends on the clock, and on what was kept."""
    report: dict[str, Any] = json.loads(stdout)
    for key in ("seconds", "settings", "notes"):
        del report[key]
    del report["models"]["student"]["latency_ms"]
    return report


def done(cache: Path) -> int:
    """Changes of the kept files so far: their sizes and times."""
    return hash(tuple(sorted((file.name, file.stat().st_mtime_ns) for file in cache.rglob("chunk-*.safetensors"))))


def test_killed_again_and_again_it_ends_with_the_report_of_a_run_that_was_not(
    student: Path, pictures: Path, tmp_path: Path
) -> None:
    whole, _ = evaluation(student, pictures, tmp_path / "whole").communicate(timeout=300)
    cache = tmp_path / "killed"
    for _ in range(5):  # of twelve stages
        before = done(cache)
        process = evaluation(student, pictures, cache)
        while process.poll() is None and done(cache) == before:
            time.sleep(0.005)  # until one more stage is kept, and then at once
        assert process.poll() is None, "the whole of it ran between two looks"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = evaluation(student, pictures, cache)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert figures(stdout) == figures(whole)
    assert json.loads(whole)["notes"] == []
    (note,) = json.loads(stdout)["notes"]
    assert re.match("student: for (8|12) of 12 images kept verdicts", note)  # of three chunks
    assert "taken up again" in stderr


@pytest.mark.parametrize("fresh", [False, True])
def test_the_same_evaluation_again_takes_what_was_kept_unless_it_is_to_be_fresh(
    fresh: bool, run: Any, student: Path, pictures: Path, tmp_path: Path
) -> None:
    asked = (
        *("evaluate", student / "student.safetensors", "--data", pictures, "--eps", "4/255", "--attack", "pgd-3"),
        *("--images", "8", "--certify-images", "0", "--device", "cpu", "--keep-dir", tmp_path),
    )
    assert run(*asked).code == 0
    again = run(*asked, *(["--fresh"] if fresh else []))
    assert again.code == 0
    assert ("taken up again" in again.stderr) == ("for 8 of 8 images kept verdicts" in again.stdout) == (not fresh)
