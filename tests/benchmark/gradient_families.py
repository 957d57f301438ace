"""One KDIGA step of the smallest network of each of timm's model modules, beside the float64 reference.

    PYTHONPATH=. python tests/benchmark/gradient_families.py [--largest 40e6] [--over 0] [--only resnet] [--batch 8]

Each network runs at the smallest square image that it takes, in train mode, without dropout and stochastic depth, so
that both precisions see one function. The reference takes PyTorch's own derivatives in float64, with attention and the
hard sigmoid written out. Columns: module, network, parameters, image side; cosine of the weights' gradient to the
reference: of CE plus gradient distance, of the same by PyTorch's own derivatives in float32, of CE alone; then ok, or
what failed. `float32` means that PyTorch's own is as far: BatchNorm over a few values is more than float32 can bear.
Such a network gets another line, at a larger image, where BatchNorm has more values.
"""

import argparse
import math
import time

import timm
import torch
import torch.nn.functional as F
from student_families import smallest_by_module
from torch import nn

from tests.second_derivatives import cosine, kdiga, slopes, without_chance

SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 384, 448)
CLASSES = 10
ENOUGH = 0.9999


def built(name: str, least: int) -> tuple[nn.Module, int]:
    """The network for the smallest image of at least side `least` that it takes, and that image's side."""
    own = timm.models.get_pretrained_cfg(name).input_size[-1]  # type: ignore[union-attr]
    failures = []
    for side in [*(side for side in SIDES if least <= side < own), own]:
        for args in ({"img_size": side}, {}):
            try:
                network: nn.Module = timm.create_model(name, num_classes=CLASSES, **args)
                with torch.no_grad():
                    network.eval()(torch.rand(2, 3, side, side))
            except Exception as error:
                failures.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
            else:
                return network, side
    raise RuntimeError(failures[-1])


def line(name: str, batch: int, least: int = 0) -> str:
    start = time.perf_counter()
    torch.manual_seed(0)
    try:
        network, side = built(name, least)
    except RuntimeError as error:
        return f"{name:34} {'-':>6} {'-':>4} no image fits: {error}"
    network = without_chance(network)
    x, y = torch.rand(batch, 3, side, side), torch.arange(batch) % CLASSES
    g_t = torch.randn_like(x) * (0.1 / math.sqrt(x[0].numel()))
    head = f"{name:34} {sum(p.numel() for p in network.parameters()) / 1e6:6.2f} {side:4}"
    try:
        found = kdiga(network, x, y, g_t, ours=True)
        theirs = kdiga(network, x, y, g_t, ours=False)
        plain = slopes(F.cross_entropy(network(x), y), network)
        network.double()  # last and in place: of 400M parameters two copies do not fit
        kd = cosine(plain, slopes(F.cross_entropy(network(x.double()), y), network))
        reference = kdiga(network, x.double(), y, g_t.double(), ours=False)
        agreed, own = cosine(found, reference), cosine(theirs, reference)
    except Exception as error:
        return f"{head} FAILED: {' '.join(str(error).split())[:150]}"
    finite = all(bool(slope.isfinite().all()) for slope in found)
    verdict = "NOT FINITE" if not finite else "ok" if agreed >= ENOUGH else "FAR"
    if verdict == "FAR" and abs(agreed - own) < 1 - ENOUGH:
        verdict = "float32"
    return f"{head} {agreed:.7f} {own:.7f} {kd:.7f} {time.perf_counter() - start:5.0f}s {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=float, default=40e6)
    parser.add_argument("--over", type=float, default=0, help="leave out networks of at most so many parameters")
    parser.add_argument("--only", default="")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    for module, name in smallest_by_module(options.largest, options.only, options.over):
        said = line(name, options.batch)
        print(f"{module:24} {said}", flush=True)
        if said.endswith("float32"):
            print(f"{'- larger images':24} {line(name, options.batch, 2 * int(said.split()[2]))}", flush=True)


if __name__ == "__main__":
    main()
