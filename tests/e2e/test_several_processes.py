"""Two processes under torchrun train and measure what one does: gloo on the CPU; NCCL where there are GPUs."""

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
import torch
from safetensors.torch import load_file

STEPS = 20


def command(teacher: list[str], pictures: Path, out: Path, *more: str) -> list[str]:
    return [
        *("-m", "kdcompress", "distill", *teacher, "--student", "resnet18"),
        *("--student-arg", "layers=1,1,1,1", "--student-arg", "channels=4,4,8,8"),
        *("--data", str(pictures), "--eps", "4/255", "--batch-size", "8", "--device", "cpu", "--seed", "3"),
        *("--iga-mode", "exact", "--out", str(out), "--format", "json", *more),
    ]


def started(count: int, words: list[str], *torchrun: str) -> "subprocess.Popen[str]":
    runner = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *torchrun] if count > 1 else []
    )
    if count > 1 and words[0] == "-m":
        words = ["-m", "--", *words[1:]]  # or torchrun takes --n for one of its own
    return subprocess.Popen(
        [sys.executable, *runner, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: "subprocess.Popen[str]", code: int | None = 0) -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=300)
    assert code is None or process.returncode == code, stderr
    return stdout, stderr


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last.safetensors")


def furthest(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference of two networks' weights, over the largest weight of its tensor."""
    assert found.keys() == wanted.keys()
    return max(
        float(
            (found[name].float() - wanted[name].float()).abs().max() / wanted[name].float().abs().max().clamp(min=1e-3)
        )
        for name in found
    )


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("kdiga-noise, BatchNorm over all", ["--sync-batchnorm", "--augment", "idbh"]),
        ("no BatchNorm", ["--student-arg", "norm_layer=groupnorm1", "--align", "jacobian"]),
        ("an inner attack, L2", ["--sync-batchnorm", "--recipe", "rslad", "--inner-steps", "2", "--norm", "L2"]),
    ],
)
def test_with_the_same_batches_two_processes_end_with_one_processs_weights(
    teacher: list[str], pictures: Path, tmp_path: Path, name: str, more: list[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = ["--epochs", "4", *more]
    single = json.loads(ended(started(1, command(teacher, pictures, one, *words)))[0])
    stdout, stderr = ended(started(2, command(teacher, pictures, two, *words)))
    double = json.loads(stdout)  # once, by the leader
    assert single["cost"]["steps"] == double["cost"]["steps"] >= STEPS
    assert "2 processes" in double["cost"]["device"] and "2 processes" not in single["cost"]["device"]
    # Float32, sums in another order, through twenty steps; seen: 3e-6.
    assert furthest(weights(two), weights(one)) < 1e-4
    losses = [
        [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert stderr.count("checking the teacher") == 1


ALIKE = """
import hashlib, sys, torch
from torch import nn
from kdcompress.maths.norms import uniform_in_ball
from kdcompress.maths.randomness import generator
from kdcompress.progress import Validation
from kdcompress.settings import RunSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.batches import Batches
from kdcompress.training.loop import fit
from kdcompress.processes import joined
from kdcompress.training.recipes import Recipe

with joined("cpu") as processes:
    torch.manual_seed(processes.rank)  # other weights in each: the leader's count
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(64, 2))
    chance = generator(0, "noise")

    def terms(network, weights, x, y):
        noise = uniform_in_ball(x, ThreatModel("Linf", 0.1), chance)
        return {"ce": nn.functional.cross_entropy(network(x + noise), y, reduction="none")}

    def batches(epoch, skip):
        for _ in range(5):
            yield torch.randn(4, 1, 6, 6), torch.arange(4) % 2  # of its own in each

    fit(net, Recipe(terms, lambda step, steps: {"ce": 1.0}), Batches(batches), steps_per_epoch=5,
        run=RunSettings(epochs=4), validate=lambda model: Validation(0.5, 0.5, 10), device=torch.device("cpu"),
        processes=processes)
    state = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
    sys.stdout.write(f"rank {processes.rank} {hashlib.sha256(state).hexdigest()}\\n")  # in one piece
"""


def test_the_processes_weights_and_statistics_agree_bit_by_bit(tmp_path: Path) -> None:
    script = tmp_path / "alike.py"
    script.write_text(ALIKE)
    stdout, _ = ended(started(2, [str(script)]))
    found = dict(re.findall(r"rank (\d) (\w{64})", stdout))
    assert found.keys() == {"0", "1"} and found["0"] == found["1"]


def children(process: "subprocess.Popen[str]") -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)
    return sorted(int(word) for word in found.stdout.split())


def wait_for_checkpoints(out: Path, count: int) -> None:
    end, seen = time.monotonic() + 120, set[Path]()
    while len(seen) < count:
        seen.update(out.with_name(out.name + ".unfinished").glob("step-*"))
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_process_that_dies_ends_the_job_and_the_restart_goes_on(
    teacher: list[str], pictures: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    words = ["--epochs", "12", "--checkpoint-every", "0.0005", "--resume"]
    stdout, _ = ended(started(2, command(teacher, pictures, whole, *words)))
    job = started(2, command(teacher, pictures, out, *words), "--max-restarts", "1")
    wait_for_checkpoints(out, 2)
    os.kill(children(job)[1], signal.SIGKILL)
    again, stderr = ended(job)
    assert "goes on after step" in stderr
    assert json.loads(again)["last"]["sha256"] == json.loads(stdout)["last"]["sha256"]


def test_sigterm_ends_all_and_the_next_job_goes_on(teacher: list[str], pictures: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out", ["--epochs", "40", "--checkpoint-every", "0.0005"]
    job = started(2, command(teacher, pictures, out, *words))
    wait_for_checkpoints(out, 1)
    job.send_signal(signal.SIGTERM)
    _, stderr = ended(job, code=None)
    assert job.returncode != 0 and "--resume goes on from there" in stderr and not out.exists()
    _, stderr = ended(started(2, command(teacher, pictures, out, *words, "--resume")))
    assert "goes on after step" in stderr and (out / "student.json").exists()


def test_batches_that_cannot_be_shared_are_refused(teacher: list[str], pictures: Path, tmp_path: Path) -> None:
    job = started(2, [*command(teacher, pictures, tmp_path / "out"), "--batch-size", "7"])
    _, stderr = ended(job, code=None)
    assert job.returncode != 0 and "error: --batch-size must be a multiple of the 2 processes, got 7" in stderr
    assert list(tmp_path.iterdir()) == []


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
    words = ["-m", "kdcompress", "evaluate", *judged(student, teacher, pictures), "--eps", "4/255", "--chunk", "2"]
    words += ["--attack", "apgd", "--certify-images", "0", "--device", "cpu", "--report", str(report)]
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpus_talk_by_nccl(teacher: list[str], pictures: Path, tmp_path: Path) -> None:
    count, one, all_ = min(2, torch.cuda.device_count()), tmp_path / "one", tmp_path / "all"
    words = ["--epochs", "4", "--sync-batchnorm", "--device", "cuda"]
    ended(started(1, command(teacher, pictures, one, *words)))
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    job = subprocess.run(
        [sys.executable, *runner, *command(teacher, pictures, all_, *words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    assert furthest(weights(all_), weights(one)) < 1e-2  # noise and kernels alike, sums in another order
