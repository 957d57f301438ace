"""Which device a run uses."""

import torch

from kdcompress.errors import UsageError


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
