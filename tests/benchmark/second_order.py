"""What a student's KDIGA step costs: by PyTorch's own second derivatives, by ours, by ours compiled.

    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmark/second_order.py [--compiled] [--device cuda] [--only resnet]

Medians of steps taken in turns, without the teacher. Columns: student, batch size; own over a CE step, both in the
contiguous layout; own, ours and compiled over a CE step, all in the channels-last layout; that layout's time over the
contiguous one's, for CE and for ours. By FLOPs the least is 2.
Compiling takes a minute or two for each student.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.engine.compiled import compiled
from kdcompress.models.students import create_student
from tests.second_derivatives import kdiga

SMALL = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}
VIT = {"depth": 4, "patch_size": 4}
STUDENTS = (
    ("resnet18", SMALL, 64),
    ("resnet18", {}, 16),
    ("resnet26", {}, 16),
    ("regnetx_002", {}, 32),
    ("mobilenetv2_050", {}, 32),
    ("mobilenetv3_small_050", {}, 32),
    ("efficientnet_b0", {}, 16),
    ("convnext_atto", {}, 16),
    ("vit_tiny_patch16_224", VIT, 32),
)


def network(name: str, args: dict[str, object], device: str) -> nn.Module:
    torch.manual_seed(0)
    statistics = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return create_student(name, dict(args), classes="0123456789", input_size=(3, 32, 32), **statistics)[0].to(device)


def steps(
    name: str, args: dict[str, object], batch: int, device: str, with_compiled: bool
) -> dict[str, Callable[[], object]]:
    """Each way of taking a step, by name."""
    x, y = torch.rand(batch, 3, 32, 32, device=device), torch.randint(10, (batch,), device=device)
    g_t = torch.randn_like(x) * 0.01

    def last(images: Tensor) -> Tensor:
        return images.to(memory_format=torch.channels_last)

    def ce(student: nn.Module, images: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(F.cross_entropy(student(images), y), list(student.parameters()))

    def both(student: nn.Module, images: Tensor, gradient: Tensor, ours: bool) -> Callable[[], object]:
        return lambda: kdiga(student, images, y, gradient, ours=ours)

    def machine(student: nn.Module, images: Tensor, gradient: Tensor) -> Callable[[], object]:
        align = compiled(student, 2)

        def step() -> None:
            f, distance = align(student, images, y, gradient)
            torch.autograd.grad(F.cross_entropy(f, y) + distance.mean(), list(student.parameters()))

        return step

    plain = network(name, args, device).train()
    other = network(name, args, device).to(memory_format=torch.channels_last).train()
    ways = {
        "ce, contiguous": ce(plain, x),
        "own, contiguous": both(plain, x, g_t, False),
        "ours, contiguous": both(plain, x, g_t, True),
        "ce": ce(other, last(x)),
        "own": both(other, last(x), last(g_t), False),
        "ours": both(other, last(x), last(g_t), True),
    }
    return ways | ({"compiled": machine(other, last(x), last(g_t))} if with_compiled else {})


def medians(ways: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Seconds of each, taken in turns, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, step in ways.items():
            if device != "cpu":
                torch.cuda.synchronize()
            start = time.perf_counter()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    print(f"{'student':32} batch  contiguous: own  last: own  ours  compiled  layout: CE  ours")
    for name, args, batch in STUDENTS:
        if options.only not in name:
            continue
        s = medians(steps(name, args, batch, options.device, options.compiled), options.repeats, options.device)
        print(
            f"{name + (' small' if args is SMALL else ''):32} {batch:5} "
            f"{s['own, contiguous'] / s['ce, contiguous']:16.2f} {s['own'] / s['ce']:10.2f} "
            f"{s['ours'] / s['ce']:5.2f} {s.get('compiled', math.nan) / s['ce']:9.2f} "
            f"{s['ce'] / s['ce, contiguous']:11.2f} {s['ours'] / s['ours, contiguous']:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
