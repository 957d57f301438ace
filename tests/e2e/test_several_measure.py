"""Two processes under torchrun measure what one measures, and report the same."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.e2e.torchrun import children, ended, started

OF_THE_MACHINE = {"seconds", "latency_ms", "device", "latency"}
"""What of a report no two runs have in common."""


def without_the_machine(found: object) -> object:
    if isinstance(found, dict):
        return {key: without_the_machine(value) for key, value in found.items() if key not in OF_THE_MACHINE}
    return [without_the_machine(value) for value in found] if isinstance(found, list) else found


def reports(words: list[str], tmp_path: Path, code: int = 0) -> list[dict[str, Any]]:
    """By one process, and by two that can see nothing of what that one kept."""
    found = []
    for count in (1, 2):
        report, table = tmp_path / f"{count}.json", tmp_path / f"{count}.csv"
        outputs = ["--report", str(report), "--table", str(table), "--fresh", "--device", "cpu", "--seed", "3"]
        _, stderr = ended(started(count, ["-m", "kdcompress", *words, *outputs]), code)
        found.append(json.loads(report.read_text()))
        assert not list(tmp_path.glob(".*")), stderr
    assert (tmp_path / "1.csv").read_text() == (tmp_path / "2.csv").read_text()
    assert "2 processes" in found[1]["device"]
    return [without_the_machine(report) for report in found]  # type: ignore[misc]


def judged(student: Path, teacher: list[str], pictures: Path) -> list[str]:
    return [str(student / "student.safetensors"), *teacher, "--data", str(pictures)]


def test_two_processes_share_an_evaluation_and_report_the_same(
    student: Path, teacher: list[str], pictures: Path, tmp_path: Path
) -> None:
    how = ["--eps", "4/255,8/255", "--attack", "apgd", "--chunk", "3", "--certify-images", "5", "--n", "300"]
    one, two = reports(["evaluate", *judged(student, teacher, pictures), *how], tmp_path)
    assert one == two
    assert one["models"]["student"]["robust_accuracy"]["n"] == 16 and one["paired"] is not None


def test_two_processes_stop_where_one_stops(student: Path, teacher: list[str], pictures: Path, tmp_path: Path) -> None:
    how = ["--eps", "1/255", "--attack", "pgd-5", "--chunk", "1", "--certify-images", "0", "--no-masking-checks"]
    gate = ["--min-robust-accuracy", "0.02", "--confidence", "0.6"]
    one, two = reports(["evaluate", *judged(student, teacher, pictures), *how, *gate], tmp_path)
    assert one == two
    assert 0 < one["models"]["student"]["robust_accuracy"]["n"] < 16


def test_two_processes_share_a_certification_and_report_the_same(
    student: Path, teacher: list[str], pictures: Path, tmp_path: Path
) -> None:
    how = ["--eps", "2/255", "--images", "6", "--n", "300", "--clever-batches", "3", "--clever-samples", "8"]
    one, two = reports(["certify", *judged(student, teacher, pictures), *how], tmp_path)
    assert one == two
    assert one["audit"]["proposition1"] and one["models"]["teacher"]["bounds"]["at"]


SHARED = """
import sys, torch
from kdcompress.data.splits import split_from_pixels
from kdcompress.errors import PeerError
from kdcompress.evaluation.audit.chunks import over_chunks
from kdcompress.processes import by_leader, joined, shared

images = split_from_pixels(torch.arange(120, dtype=torch.uint8).view(120, 1, 1, 1), torch.arange(120))
here = []

def measure(x, y, names):
    here.extend(y.tolist())
    return {"twice": 2 * y}

with joined("cpu") as processes:
    found = over_chunks("twice", measure, images, networks=(), size=10, device=torch.device("cpu"))["twice"]
    assert found.tolist() == list(range(0, 240, 2)), found
    assert shared("ranks", 5, lambda number: processes.rank) == [0, 1, 0, 1, 0]
    assert by_leader(lambda: processes.rank) == 0
    try:
        shared(f"what {processes.rank} is at", 2, lambda number: number)
    except PeerError as error:
        sys.stdout.write(f"rank {processes.rank} measured {len(here)}: {error}\\n")
"""


def test_pieces_of_work_are_each_done_once_and_known_to_all(tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    stdout, _ = ended(started(2, [str(script)]))
    said = "the processes of this job disagree on what is measured: ['what 0 is at', 'what 1 is at']"
    assert sorted(stdout.splitlines()) == [f"rank 0 measured 70: {said}", f"rank 1 measured 50: {said}"]


def test_a_missed_gate_ends_the_job(student: Path, pictures: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ["evaluate", str(student / "student.safetensors"), "--data", str(pictures), "--eps", "8/255"]
    words += ["--attack", "pgd-5", "--certify-images", "0", "--min-robust-accuracy", "1.0", "--report", str(report)]
    stdout, _ = ended(started(2, ["-m", "kdcompress", *words, "--device", "cpu", "--no-masking-checks"]), 1)
    assert json.loads(report.read_text())["gates"][0]["met"] is False
    assert stdout.count("min-robust-accuracy") == 1


def test_a_process_that_dies_while_it_measures_ends_the_job_and_the_restart_goes_on(
    student: Path, teacher: list[str], pictures: Path, tmp_path: Path
) -> None:
    kept, report = tmp_path / "kept", tmp_path / "report.json"
    words = ["-m", "kdcompress", "evaluate", *judged(student, teacher, pictures), "--eps", "4/255", "--chunk", "1"]
    words += [
        "--attack",
        "pgd-100",
        "--certify-images",
        "0",
        "--no-masking-checks",
        "--device",
        "cpu",
        "--report",
        str(report),
    ]
    job = started(2, [*words, "--keep-dir", str(kept)], "--max-restarts", "1")
    end = time.monotonic() + 120
    while len(list(kept.rglob("chunk-*.safetensors"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(children(job)[1], signal.SIGKILL)
    _, stderr = ended(job)
    assert "verdicts of an earlier run are taken up again" in stderr
    ended(started(1, [*words[:-1], str(tmp_path / "one.json"), "--fresh"]))
    again, one = (json.loads(path.read_text()) for path in (report, tmp_path / "one.json"))
    assert again["models"]["student"]["verdicts"] == one["models"]["student"]["verdicts"]
