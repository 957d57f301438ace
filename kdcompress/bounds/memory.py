"""How much memory a bound may take, and how many rows of coefficients fit."""

import math
import os
from pathlib import Path

import torch

from kdcompress.bounds.graph import Network
from kdcompress.bounds.steps import Convolution, Shape
from kdcompress.errors import UsageError
from kdcompress.processes import here

SHARE = 0.25
"""Of the memory that is free when nobody names a limit: other processes grow too."""
MOST_ROWS = 128
"""Beyond this, rows leave the processor's cache: 64 to 128 were the fastest, 256 a fifth slower (ResNet-4B)."""


def available_memory(device: torch.device, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be had on the device: of a CPU's, this process's part of what the machine and our control
    group leave.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    left = []
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            left.append(int(line.split()[1]) * 1024)
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        second = not controllers
        if second or "memory" in controllers.split(","):
            names = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
            root = cgroups if second else cgroups / "memory"
            for folder in (root / path.lstrip("/"), root):  # inside a container our path may not be mounted
                limit, used = (_text(folder / name).strip() for name in names)
                if limit.isdigit() and used.isdigit():
                    left.append(max(0, int(limit) - int(used)))
                    break
    if not left and hasattr(os, "sysconf"):
        left.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min(left, default=2**31) // here().beside


def rows_within(network: Network, limit: int) -> int:
    """How many rows of coefficients can be traced back at a time in `limit` bytes, at most `MOST_ROWS`.

    Guarantees:
        The memory that a bound takes beyond what was there before stays under the limit.

    Raises:
        UsageError: if not one fits.
    """
    rows = (limit - _standing(network)) // _bytes_a_row(network)
    if rows < 1:
        needed = _standing(network) + _bytes_a_row(network)
        raise UsageError(
            f"sound bounds of this network need at least {math.ceil(needed / 2**20)} MiB; "
            f"the limit is {limit >> 20} MiB: allow more (--memory, in GiB), or leave bounds out"
        )
    return min(rows, MOST_ROWS)


def _standing(network: Network) -> int:
    """For one image, in float64: values, boxes, lines, factors; a larger ball's boxes; what a library takes for itself.

    Of a ReLU's 23 numbers an entry, 12 are factors in either type; 2 more are boxes that a search carries on.
    """
    entries = sum(math.prod(network.shape_of(number)) for number in range(len(network.steps) + 1))
    return 8 * 26 * entries + 64 * 2**20


def _bytes_a_row(network: Network) -> int:
    """The most that one row takes on its way back: coefficients that wait, and those in work with their copies."""
    waiting, most = {len(network.steps)}, 0
    for number in range(len(network.steps), 0, -1):
        step = network.steps[number - 1]
        if number not in waiting:
            continue
        waiting.remove(number)
        waiting |= set(step.inputs)
        own, taken = math.prod(step.shape), sum(math.prod(network.shape_of(i)) for i in step.inputs)
        columns = 0
        if isinstance(step, Convolution):  # float64 convolutions on a CPU unfold their windows, twice
            columns = 2 * math.prod(step.weight.shape[1:]) * step.groups * math.prod(step.shape[1:])
        most = max(most, sum(_entries(network.shape_of(i)) for i in waiting) + 5 * own + 3 * taken + columns)
    return 8 * most


def _entries(shape: Shape) -> int:
    return math.prod(shape)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
