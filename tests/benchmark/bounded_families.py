"""Traces the smallest network of each of timm's model modules for sound bounds, and prints one line for each.

    PYTHONPATH=. python tests/benchmark/bounded_families.py [--side 32] [--largest 40e6] [--only resnet]

Networks are fitted to small images as `kdcompress distill` fits them, with ReLUs where the network lets itself be asked
for them (`act_layer=relu`), and with a strided convolution for the pool of a ResNet's stem. Columns: module, network,
parameters, then the number of steps and the work of a bound, or the layer that bounds cannot pass.
"""

import argparse
import time

import torch
from student_families import smallest_by_module
from torch import nn

from kdcompress.bounds.graph import trace
from kdcompress.bounds.work import work
from kdcompress.errors import KdcompressError, UnsupportedLayerError
from kdcompress.models.cost import parameter_count
from kdcompress.models.students import create_student

WISHES = ({"act_layer": "relu", "replace_stem_pool": True}, {"act_layer": "relu"}, {})


def fitted(name: str, side: int) -> nn.Module:
    """The network with as many of the wishes as it grants."""
    for wish in WISHES:
        try:
            model, _ = create_student(
                name, wish, classes=list("0123456789"), input_size=(3, side, side), mean=[0.5] * 3, std=[0.25] * 3
            )
            return model.eval()
        except KdcompressError as error:
            refused = error
    raise refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--largest", type=float, default=40e6)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for module, name in smallest_by_module(options.largest, options.only):
        start = time.perf_counter()
        try:
            model = fitted(name, options.side)
            network = trace(model, (3, options.side, options.side))
            said = f"{parameter_count(model) / 1e6:6.2f} {len(network.steps)} steps, work {work(network):.1e}"
        except UnsupportedLayerError as error:
            said = str(error).splitlines()[0]
        except KdcompressError as error:
            said = f"refused: {error}"
        print(f"{module:24} {name:34} {said}  {time.perf_counter() - start:.0f}s", flush=True)


if __name__ == "__main__":
    main()
