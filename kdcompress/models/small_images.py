"""Stride surgery: networks made for 224 pixels, given back their resolution on small images.

The earliest strides become 1: same weights, same number of parameters, a larger final map. Nothing here knows an
architecture by name: what is strided, and at which resolution it runs, is seen in one forward.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.models.record import Change

Shape = tuple[int, int, int]
"""(C, H, W) of one image."""


@dataclass(frozen=True)
class StridedModule:
    """A leaf module with a stride above 1, and what the probe saw of it."""

    name: str
    stride: int
    resolution: int
    """Smaller side of its input."""
    input_shape: tuple[int, ...]
    is_pool: bool


def default_stride(side: int, positions: int = 4) -> int:
    """Largest power of two that leaves at least `positions` positions along `side` pixels.

    >>> [default_stride(side) for side in (224, 64, 32, 28, 16, 8)]
    [32, 16, 8, 4, 4, 2]
    """
    # Above 32 no timm network goes, but for a few that were made so for large images.
    return min(32, 1 << int(math.log2(max(1, side // positions))))


def strided_modules(network: nn.Module, input_size: Shape) -> list[StridedModule]:
    """The strided leaf modules of `network` in the order in which they run on one image of `input_size`.

    A module that runs at several resolutions is left out: it cannot be altered for one of them only.
    """
    seen: dict[str, StridedModule] = {}
    shared: set[str] = set()

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shape = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else ()
        if len(shape) != 4:
            return
        found = StridedModule(name, _stride(module), min(shape[-2:]), shape, not any(True for _ in module.parameters()))
        if name in seen and seen[name].resolution != found.resolution:
            shared.add(name)
        seen.setdefault(name, found)

    def watched(probe: nn.Module, inputs: Tensor) -> None:
        handles = [
            module.register_forward_pre_hook(partial(_forward_note, note, name))
            for name, module in probe.named_modules()
            if _stride(module) > 1 and next(module.children(), None) is None
        ]
        try:
            probe(inputs)
        finally:
            for handle in handles:
                handle.remove()

    _probe(network, input_size, watched)
    return [module for name, module in seen.items() if name not in shared]


def total_stride(network: nn.Module, input_size: Shape) -> int:
    """How many times smaller than the image the final map is, along a side, as a power of two.

    Measured on `forward_features`, so that reductions without a strided module (patch merging, space to depth) count.
    """
    features: Tensor | None = None

    def extract(probe: nn.Module, inputs: Tensor) -> None:
        nonlocal features
        features = _first_tensor(cast(Any, probe).forward_features(inputs))

    _probe(network, input_size, extract)
    if features is None:
        raise ValueError("forward_features returned no tensor")
    shape, width = tuple(features.shape), getattr(network, "num_features", None)
    if len(shape) == 3 and shape[1] > 3:  # (B, N, C): tokens
        positions = shape[1]
    elif len(shape) == 4:  # (B, C, H, W), or (B, H, W, C) in Swin and its kin
        last = shape[-1] == width and shape[1] != width
        positions = math.prod(shape[1:3]) if last else math.prod(shape[2:])
    else:  # class tokens or pooled features only
        final = _levels(strided_modules(network, input_size))[-1:]
        positions = max((m.resolution // m.stride for level in final for m in level), default=min(input_size[1:])) ** 2
    return 1 << max(0, round(math.log2(math.sqrt(input_size[1] * input_size[2] / max(1, positions)))))


def planned_changes(network: nn.Module, strided: Sequence[StridedModule], factor: int) -> tuple[Change, ...] | None:
    """What to alter so that the total stride falls by `factor`, a power of two, from the image onwards.

    Strided modules that run at the same resolution make one level: a strided convolution and the pool or convolution of
    its shortcut. A level's stride is the smallest of them; larger ones do not lie on the way to the next level (the
    spatial reduction inside an attention, say) and stay.

    Args:
        network: as timm builds it.
        strided: its strided modules.
        factor: old total stride / new total stride.

    Returns:
        The changes in order; None if there are not strides enough to remove.
    """
    changes: list[Change] = []
    for level in _levels(strided):
        if factor <= 1:
            break
        stride = min(module.stride for module in level)
        wanted = max(1, stride // factor)
        wanted = 1 << int(math.log2(wanted))
        factor = math.ceil(factor * wanted / stride)
        changes.extend(_change(network, module, wanted) for module in level if module.stride == stride)
    return tuple(changes) if factor <= 1 else None


def apply_changes(network: nn.Module, changes: Iterable[Change]) -> None:
    """Alter `network` in place. Names and shapes of its weights stay.

    Raises:
        AttributeError: if a change names a module that the network lacks.
    """
    for change in changes:
        if change.action == "removed":
            network.set_submodule(change.module, nn.Identity(), strict=True)
            continue
        module = cast(Any, network.get_submodule(change.module))
        stride = int(change.action.removeprefix("stride "))
        module.stride = (stride, stride) if isinstance(module.stride, tuple) else stride
        if change.pad != (0, 0):
            # A hook and not the module's own padding: that has no uneven form, and subclasses read it differently.
            module.register_forward_pre_hook(partial(_pad_input, change.pad * 2))


def skips_pixels(network: nn.Module, input_size: Shape) -> bool:
    """Whether the first layer takes patches that are smaller than the distance between them."""
    found = next((m for m in strided_modules(network, input_size) if m.input_shape[1] == input_size[0]), None)
    kernel = getattr(network.get_submodule(found.name), "kernel_size", None) if found else None
    return found is not None and isinstance(kernel, tuple) and min(kernel) < found.stride


def _levels(strided: Sequence[StridedModule]) -> list[list[StridedModule]]:
    """Modules that run at one resolution, from the image onwards."""
    resolutions = sorted({module.resolution for module in strided}, reverse=True)
    return [[module for module in strided if module.resolution == resolution] for resolution in resolutions]


def _change(network: nn.Module, found: StridedModule, stride: int) -> Change:
    if found.is_pool and stride == 1:
        return Change(module=found.name, action="removed")
    change = Change.model_validate({"module": found.name, "action": f"stride {stride}"})
    # Kernels without padding (4x4 patches with stride 4) would lose their border: pad until output = input / stride.
    alone = nn.Module()
    alone.add_module("module", copy.deepcopy(network.get_submodule(found.name)).to("meta"))
    apply_changes(alone, [change.model_copy(update={"module": "module"})])
    output = cast(Tensor, alone.get_submodule("module")(torch.empty(found.input_shape, device="meta")))
    missing = (math.ceil(found.resolution / stride) - min(output.shape[-2:])) * stride
    pad = (missing // 2, missing - missing // 2) if missing > 0 else (0, 0)
    return change.model_copy(update={"pad": pad})


def _pad_input(pad: tuple[int, ...], module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (F.pad(inputs[0], pad), *inputs[1:])


def _forward_note(note: Callable[..., None], name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    note(name, module, inputs)


def _stride(module: nn.Module) -> int:
    stride = getattr(module, "stride", 1)
    values = stride if isinstance(stride, tuple | list) else (stride,)
    return max((value for value in values if isinstance(value, int)), default=1)


def _first_tensor(output: Any) -> Tensor | None:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _probe(network: nn.Module, input_size: Shape, run: Callable[[nn.Module, Tensor], None]) -> None:
    """Call `run` with a copy of `network` and one image of shapes only; with real numbers where that fails."""
    with torch.no_grad():
        try:
            run(copy.deepcopy(network).to("meta").eval(), torch.empty(1, *input_size, device="meta"))
        except Exception:  # networks that hold plain tensors, or branch on values
            run(copy.deepcopy(network).eval(), torch.zeros(1, *input_size))
