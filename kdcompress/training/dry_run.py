"""A training step without its numbers: shapes alone go through the very code, and memory and arithmetic are counted.

Counted memory beside that of PyTorch's own allocator (as its profiler tells), one step of AdamW in float32 on a CPU,
torch 2.15, 2026-11-24:

| teacher, student, recipe, batch                            | counted, MB | allocated, MB |
|------------------------------------------------------------|-------------|---------------|
| resnet18, resnet18, kdiga-noise, 32 of 3x32x32             | 389.0       | 388.9         |
| resnet50, resnet18, kdiga, 16 of 3x64x64                   | 451.5       | 453.8         |
| resnet18, vit_tiny_patch16_224, kdiga, 16 of 3x64x64       | 395.4       | 373.4         |
| resnet18, mobilenetv3_small_050, rslad, 16 of 3x64x64      | 110.1       | 115.9         |

What a GPU's libraries take for themselves, and what its allocator leaves unused, is not in it.
"""

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from kdcompress.devices import LAYOUT
from kdcompress.progress import Listener
from kdcompress.settings import RunSettings
from kdcompress.training.backward import Backward
from kdcompress.training.recipes import Recipe
from kdcompress.training.schedules import optimizer_of


@dataclass(frozen=True)
class StepCost:
    """What a step of B images takes.

    Attributes:
        peak: bytes at the most beyond what lies there between steps: activations, gradients, inputs.
        flops: of convolutions, matrix products and attention, two a multiply-accumulate.
    """

    peak: int
    flops: int


def dry_run(
    student: nn.Module,
    teacher: nn.Module,
    recipe: Callable[[nn.Module], Recipe],
    input_size: tuple[int, int, int],
    run: RunSettings,
    *,
    batch_size: int,
    micro_batch: int | None = None,
) -> StepCost:
    """The cost of a step late in a run, the second that is made: the first makes the optimizer's state.

    Takes the memory of two networks' shapes, and some seconds whatever the batch.

    Args:
        student, teacher: left as they are.
        recipe: of the teacher that is given to it.
        input_size: (C, H, W).
        run: its optimizer and its precision.
        batch_size: B, of this process.
        micro_batch: as `--iga-micro-batch`.
    """
    mode = FakeTensorMode()
    f_s, f_t = _shapes_of(student, mode).train(), _shapes_of(teacher, mode).eval().requires_grad_(False)
    with mode:
        composed = recipe(f_t)
        weights = composed.weights(1, 1)
        backward = Backward(f_s, composed, run.precision, Listener(), micro_batch)
        updates = optimizer_of(f_s.parameters(), run)

        def step() -> None:
            updates.zero_grad()
            x = torch.empty((batch_size, *input_size)).contiguous(memory_format=LAYOUT)
            backward((x, torch.zeros(batch_size, dtype=torch.int64)), dict(weights))
            updates.step()

        step()
        updates.zero_grad()
        with _Counted() as counted:
            step()
    return StepCost(counted.peak, counted.flops)


def _shapes_of(network: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The network with shapes in place of numbers; a parameter that is used twice stays one."""
    shapes = copy.deepcopy(network)
    known: dict[int, tuple[Tensor, Tensor]] = {}  # with the tensor, whose id would be given to another else
    for module in shapes.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in known:
                    fake: Tensor = mode.from_tensor(tensor.detach())
                    parameter = isinstance(tensor, nn.Parameter)
                    known[id(tensor)] = tensor, nn.Parameter(fake, tensor.requires_grad) if parameter else fake
                held[name] = known[id(tensor)][1]  # type: ignore[assignment]
    return shapes


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what every operation makes, as long as something holds it, and what it calculates."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.flops = 0
        self.held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=found)
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._holds(leaf)
        return found

    def _holds(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.held:
            return

        def gone(_: object) -> None:
            self.now -= size
            self.held.pop(key, None)

        self.held[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)
