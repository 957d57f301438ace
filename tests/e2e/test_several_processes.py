"""Two processes under torchrun train what one trains: gloo on the CPU; NCCL where there are GPUs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.torchrun import children, ended, started

STEPS = 20


def command(teacher: list[str], pictures: Path, out: Path, *more: str) -> list[str]:
    return [
        *("-m", "kdcompress", "distill", *teacher, "--student", "resnet18"),
        *("--student-arg", "layers=1,1,1,1", "--student-arg", "channels=4,4,8,8"),
        *("--data", str(pictures), "--eps", "4/255", "--batch-size", "8", "--device", "cpu", "--seed", "3"),
        *("--iga-mode", "exact", "--out", str(out), "--format", "json", *more),
    ]


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
        # Smooth: at the kinks of a ReLU an attack turns one rounding into another attacked image, whatever its steps.
        (
            "an inner attack, L2",
            [
                *("--sync-batchnorm", "--recipe", "rslad", "--inner-steps", "2", "--norm", "L2"),
                *("--student-arg", "act_layer=silu"),
            ],
        ),
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
