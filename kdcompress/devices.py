"""Which device a run uses, and what to do where its memory runs out."""

from collections.abc import Callable
from typing import TypeVar

import torch

from kdcompress.errors import UsageError

T = TypeVar("T")

LAYOUT = torch.channels_last
"""Of images and weights in memory. Time of a step in it over the same step in the contiguous layout (3x32x32, one
thread of a shared two-core Xeon, torch 2.15, 2026-11-23, medians of 5 side by side, `tests/benchmark/second_order.py`):

| student                                | CE   | CE and gradient distance |
|----------------------------------------|------|--------------------------|
| ResNet-18 of one block, 16 to 128 wide | 0.71 | 0.79                     |
| ResNet-18                              | 1.00 | 1.01                     |
| ResNet-26                              | 0.91 | 0.88                     |
| RegNetX 002                            | 0.81 | 0.76                     |
| MobileNetV2 050                        | 0.73 | 0.82                     |
| MobileNetV3 small 050                  | 0.60 | 0.76                     |
| EfficientNet-B0                        | 0.70 | 0.85                     |
| ConvNeXt atto                          | 1.01 | 0.95                     |
| ViT tiny, 4 blocks                     | 0.97 | 1.01                     |
"""


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU; any other name is taken as it is.

    >>> resolve_device("cpu")
    device(type='cpu')

    Raises:
        UsageError: if the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    there = {
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
    }
    if not there[device.type]:
        found = [kind for kind, is_there in there.items() if is_there]
        raise UsageError(f"--device must be on this machine, got {name}; found: {', '.join(found)}")
    return device


def device_name(device: torch.device) -> str:
    """The device for people and records: the GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an accelerator's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def within_memory(work: Callable[[int], T], images: int, note: Callable[[str], None]) -> T:
    """What `work` returns, given how many images to take at once: half as many each time that memory runs out.

    Raises:
        RuntimeError: the device's own, if it runs out with a single image.
    """
    while True:
        try:
            return work(images)
        except RuntimeError as error:
            if not out_of_memory(error) or images == 1:
                raise
        images //= 2  # outside the handler, which holds what filled the memory
        note(f"out of memory: again, {images} images at a time")
