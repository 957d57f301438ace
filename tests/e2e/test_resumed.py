"""A training run whose process is killed goes on with --resume, and ends with the weights of one that was not.

Three kills here; `KILLS=20 python -m pytest tests/e2e/test_resumed.py` takes twenty, at moments drawn from SEED.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("SEED", "0"))


def training(teacher: list[str], pictures: Path, out: Path, *more: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "kdcompress", "distill", *teacher, "--student", "resnet18"),
            *("--student-arg", "layers=1,1,1,1", "--student-arg", "channels=4,4,8,8", "--student-arg", "drop_rate=.2"),
            *("--data", str(pictures), "--eps", "4/255", "--epochs", "20", "--batch-size", "8", "--device", "cpu"),
            *("--iga-mode", "exact", "--checkpoint-every", "0.0005", "--out", str(out), "--format", "json", *more),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in out.with_name(out.name + ".unfinished").glob("step-*"))


def stopped(process: "subprocess.Popen[str]", out: Path, number: int, after: float) -> str:
    """Once it has written a checkpoint of its own, and some seconds later, sent a signal; what it said."""
    before = checkpoints(out)
    while process.poll() is None and checkpoints(out) in ([], before):
        time.sleep(0.005)
    time.sleep(after)
    assert process.poll() is None, f"it ended before it could be stopped: {process.communicate()[1]}"
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


def metrics(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(teacher: list[str], pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = training(teacher, pictures, out)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return out


def resumed(teacher: list[str], pictures: Path, out: Path) -> dict[str, Any]:
    """The record of the run that goes on to its end."""
    stdout, stderr = training(teacher, pictures, out, "--resume").communicate(timeout=300)
    assert "goes on after step" in stderr
    record: dict[str, Any] = json.loads(stdout)
    return record


def test_killed_again_and_again_it_ends_with_the_weights_of_a_run_that_was_not(
    teacher: list[str], pictures: Path, whole: Path, tmp_path: Path
) -> None:
    out, moments = tmp_path / "run", random.Random(SEED)
    for _ in range(KILLS):
        stopped(training(teacher, pictures, out, "--resume"), out, signal.SIGKILL, moments.uniform(0, 2.5 / KILLS))
    record = resumed(teacher, pictures, out)
    expected = json.loads((whole / "student.json").read_text())
    assert (record["sha256"], record["last"]["sha256"]) == (expected["sha256"], expected["last"]["sha256"])
    assert metrics(out) == metrics(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_end_it_writes_a_checkpoint_and_exits_as_shells_expect(
    number: signal.Signals, code: int, teacher: list[str], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = training(teacher, pictures, out)
    said = stopped(process, out, number, 0.1).splitlines()[-1]
    assert process.returncode == code
    assert said.startswith("stopped after step ") and said.endswith("--resume goes on from there")
    assert int(checkpoints(out)[-1].split("-")[1]) == int(said.split()[3])


def test_neither_locale_nor_time_zone_decides_anything(
    teacher: list[str], pictures: Path, whole: Path, tmp_path: Path
) -> None:
    elsewhere = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Pacific/Apia"}
    stdout, stderr = training(teacher, pictures, tmp_path / "run", **elsewhere).communicate(timeout=300)
    assert json.loads(stdout)["sha256"] == json.loads((whole / "student.json").read_text())["sha256"], stderr
    assert metrics(tmp_path / "run") == metrics(whole)
