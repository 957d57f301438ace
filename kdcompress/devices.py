"""Which device a run uses."""

import torch

from kdcompress.errors import UsageError

LAYOUT = torch.channels_last
"""Of images and weights in memory. Time of a step in it over the same step in the contiguous layout (3x32x32, one
thread of a shared two-core Xeon, torch 2.15, 2026-11-23, medians of 7 side by side):

| student               | KD   | KDIGA |
|-----------------------|------|-------|
| ResNet-18             | 1.03 | 0.91  |
| ResNet-26             | 0.93 | 0.88  |
| MobileNetV2 050       | 0.74 | 0.75  |
| MobileNetV3 small 050 | 0.72 | 0.69  |
| EfficientNet-B0       | 0.77 | 0.80  |
| RegNetX 002           | 0.80 | 0.79  |
| ConvNeXt atto         | 1.02 | 1.08  |
| ViT tiny, 4 blocks    | 0.92 | 0.99  |
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
