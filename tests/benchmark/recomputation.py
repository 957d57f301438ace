"""Does recomputing activations spare memory where the input gradient is differentiated again?

    PYTHONPATH=. python tests/benchmark/recomputation.py

Columns: network, plain or with timm's checkpointing, megabytes that the graph holds after the forward and after the
input gradient, cosine of the weights' gradient to the plain one, whether BatchNorm's statistics moved as in the plain
step. Batch 8 of 3x64x64.
"""

from collections import Counter
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tests.second_derivatives import cosine, slopes, without_chance


class Held:
    """Counts the storages that a graph keeps alive."""

    def __init__(self) -> None:
        self.users: Counter[int] = Counter()
        self.sizes: dict[int, int] = {}

    def megabytes(self) -> float:
        return sum(self.sizes[storage] for storage, users in self.users.items() if users) / 1e6

    def hooks(self) -> Any:
        held = self

        class Kept:
            def __init__(self, tensor: Tensor) -> None:
                self.tensor, self.storage = tensor, tensor.untyped_storage().data_ptr()
                held.users[self.storage] += 1
                held.sizes[self.storage] = tensor.untyped_storage().nbytes()

            def __del__(self) -> None:
                held.users[self.storage] -= 1

        return saved_tensors_hooks(Kept, lambda kept: kept.tensor)


def step(name: str, recompute: bool) -> tuple[nn.Module, list[Tensor], float, float]:
    torch.manual_seed(0)
    network = without_chance(timm.create_model(name, num_classes=10))
    if recompute:
        network.set_grad_checkpointing(True)
    x, y, held = torch.rand(8, 3, 64, 64, requires_grad=True), torch.arange(8), Held()
    with held.hooks():
        loss = F.cross_entropy(network(x), y, reduction="sum")
        forward = held.megabytes()
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        both = held.megabytes()
        return network, slopes(loss + g.flatten(1).norm(dim=1).sum(), network), forward, both


def main() -> None:
    for name in ("resnet18", "mobilenetv2_050", "convnext_atto"):
        plain, found, *before = step(name, recompute=False)
        again, recomputed, *after = step(name, recompute=True)
        same = all(torch.equal(a, b) for a, b in zip(plain.buffers(), again.buffers(), strict=True))
        print(f"{name:16} plain        {before[0]:6.1f} {before[1]:6.1f}")
        print(f"{name:16} checkpointed {after[0]:6.1f} {after[1]:6.1f} {cosine(found, recomputed):.7f} {same}")


if __name__ == "__main__":
    main()
