"""What a student's KDIGA step costs in units of its CE step: by PyTorch's own second derivatives and by ours.

    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmark/second_order.py [--device cuda] [--repeats 7] [--only resnet]

Medians of steps taken in turns. Columns: student, batch size; own and ours, each over CE (contiguous layout); the time
of a CE step and of ours in the channels-last layout over that in the contiguous one. By FLOPs the least is 2.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.models.students import create_student
from tests.second_derivatives import kdiga

SMALL = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}
VIT = {"depth": 4, "patch_size": 4, "embed_dim": 128, "num_heads": 4}
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


def steps(name: str, args: dict[str, object], batch: int, device: str) -> dict[str, Callable[[], object]]:
    """Each way of taking a step, by name."""
    x, y = torch.rand(batch, 3, 32, 32, device=device), torch.randint(10, (batch,), device=device)
    g_t = torch.randn_like(x) * 0.01

    def last(images: Tensor) -> Tensor:
        return images.to(memory_format=torch.channels_last)

    def ce(student: nn.Module, images: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(F.cross_entropy(student(images), y), list(student.parameters()))

    def both(student: nn.Module, images: Tensor, gradient: Tensor, ours: bool) -> Callable[[], object]:
        return lambda: kdiga(student, images, y, gradient, ours=ours)

    plain = network(name, args, device).train()
    other = network(name, args, device).to(memory_format=torch.channels_last).train()
    return {
        "ce": ce(plain, x),
        "own": both(plain, x, g_t, False),
        "ours": both(plain, x, g_t, True),
        "ce, last": ce(other, last(x)),
        "ours, last": both(other, last(x), last(g_t), True),
    }


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
    options = parser.parse_args()
    print(f"{'student':32} batch   own  ours  CE in channels last  ours in channels last")
    for name, args, batch in STUDENTS:
        if options.only not in name:
            continue
        s = medians(steps(name, args, batch, options.device), options.repeats, options.device)
        print(
            f"{name + (' small' if args is SMALL else ''):32} {batch:5} {s['own'] / s['ce']:5.2f} "
            f"{s['ours'] / s['ce']:5.2f}  {s['ce, last'] / s['ce']:19.2f}  {s['ours, last'] / s['ours']:21.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
