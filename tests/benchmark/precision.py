"""What number formats and layouts buy, and what they cost the gradient: one KDIGA step of a few students.

    PYTHONPATH=. python tests/benchmark/precision.py [--device cuda] [--batch 64] [--side 32]

Columns: student, variant, milliseconds (median of 7, in turns), time over float32's, cosine of the weights' gradient of
CE plus gradient distance to the float64 reference. TF32 is for CUDA alone.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import gradient_distance
from tests.second_derivatives import cosine, kdiga, slopes, without_chance

STUDENTS: dict[str, dict[str, object]] = {
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 4, "depth": 4},
}
VARIANTS = ("float32", "channels_last", "bf16", "bf16, channels_last", "tf32")


@contextmanager
def number_format(variant: str, device: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if variant == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = variant == "tf32"
    try:
        with torch.autocast(device, torch.bfloat16, enabled=variant.startswith("bf16")):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def step(network: nn.Module, x: Tensor, y: Tensor, g_t: Tensor, variant: str) -> list[Tensor]:
    with number_format(variant, x.device.type):
        f, g = logits_and_input_gradient(network, x, y, create_graph=True)
    found = slopes(F.cross_entropy(f.float(), y) + gradient_distance(g, g_t).mean(), network)
    if x.is_cuda:
        torch.cuda.synchronize()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    options = parser.parse_args()
    for name, args in STUDENTS.items():
        torch.manual_seed(0)
        network = without_chance(timm.create_model(name, num_classes=10, **args)).to(options.device)
        x = torch.rand(options.batch, 3, options.side, options.side, device=options.device)
        y = torch.arange(options.batch, device=options.device) % 10
        g_t = 0.01 * torch.randn_like(x)
        exact = kdiga(copy.deepcopy(network).double(), x.double(), y, g_t.double(), ours=False)
        variants = [variant for variant in VARIANTS if variant != "tf32" or options.device.startswith("cuda")]
        seconds: dict[str, list[float]] = {variant: [] for variant in variants}
        found: dict[str, list[Tensor]] = {}
        for _ in range(8):
            for variant in variants:
                layout = torch.channels_last if "channels_last" in variant else torch.contiguous_format
                twin, inputs = copy.deepcopy(network).to(memory_format=layout), x.contiguous(memory_format=layout)
                start = time.perf_counter()
                found[variant] = step(twin, inputs, y, g_t, variant)
                seconds[variant].append(time.perf_counter() - start)
        medians = {variant: statistics.median(times[1:]) for variant, times in seconds.items()}
        for variant in variants:
            print(
                f"{name:24} {variant:20} {1000 * medians[variant]:8.1f} {medians[variant] / medians['float32']:6.2f} "
                f"{cosine(found[variant], exact):.6f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
