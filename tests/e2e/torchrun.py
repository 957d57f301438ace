"""Processes under torchrun, for tests."""

import os
import subprocess
import sys


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


def children(process: "subprocess.Popen[str]") -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)
    return sorted(int(word) for word in found.stdout.split())
