"""Fits the smallest network of each of timm's model modules to small images, and prints one line for each.

    python tests/benchmark/student_families.py [--side 32] [--channels 3] [--largest 40e6] [--only resnet]

Columns: module, network, parameters, total stride, final map, MACs, seconds, then ok with what was altered, or the
one line that a user would see.
"""

import argparse
import time
import traceback
from collections.abc import Iterator

import timm
import torch

from kdcompress.errors import KdcompressError
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.small_images import total_stride
from kdcompress.models.students import create_student


def smallest_by_module(largest: float, only: str, over: float = 0) -> Iterator[tuple[str, str]]:
    """Each module with the name of its smallest network, of over `over` and at most `largest` parameters."""
    for module in timm.list_modules():
        if only not in module:
            continue
        # Names in test_ are timm's own miniatures, like no network that people train.
        names = [name for name in timm.list_models(module=module) if not name.startswith("test_")]
        sizes = {name: size for name in names if (size := size_on_meta(name)) is not None}
        if sizes:
            name = min(sizes, key=lambda name: sizes[name])
            if over < sizes[name] <= largest:
                yield module, name
        elif names:
            print(f"{module:24} no network can be built on the meta device", flush=True)


def size_on_meta(name: str) -> int | None:
    """Parameters of a network built without memory; None where that is impossible."""
    try:
        with torch.device("meta"):
            return parameter_count(timm.create_model(name))
    except Exception:
        return None


def line(name: str, size: tuple[int, int, int]) -> str:
    start = time.perf_counter()
    try:
        model, record = create_student(
            name,
            {},
            classes=[str(k) for k in range(10)],
            input_size=size,
            mean=[0.5] * size[0],
            std=[0.25] * size[0],
        )
        seconds = time.perf_counter() - start
        stride, millions = total_stride(model.network, size), macs(model, size) / 1e6
    except Exception as error:
        told = f"refused: {error}" if isinstance(error, KdcompressError) else f"BUG:\n{traceback.format_exc()}"
        return f"{name:34} {'-':>6} {'-':>3} {'-':>5} {'-':>6} {time.perf_counter() - start:5.1f}  {told}"
    altered = [f"{k}={v}" for k, v in record.args.items()] + [f"{c.module} {c.action}" for c in record.changes]
    final = f"{size[1] // stride}x{size[2] // stride}"
    cost = f"{parameter_count(model) / 1e6:6.2f} {stride:3} {final:>5} {millions:6.0f} {seconds:5.1f}"
    return f"{name:34} {cost}  ok {', '.join(altered)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--largest", type=float, default=40e6)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'module':24} {'network':34} {'params':>6} {'S':>3} {'map':>5} {'MMACs':>6} {'s':>5}")
    for module, name in smallest_by_module(options.largest, options.only):
        print(f"{module:24} {line(name, (options.channels, options.side, options.side))}", flush=True)


if __name__ == "__main__":
    main()
