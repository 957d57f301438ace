"""A network that came from no file."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from kdcompress.errors import CheckpointError
from kdcompress.models.record import ModelRecord
from kdcompress.models.teachers import LoadedModel, Size

NOWHERE = "in memory"


def loaded_from(network: nn.Module, classes: Sequence[str] | int | None, input_size: Size) -> LoadedModel:
    """A copy of `network` (inputs in [0,1], (B, C, H, W) -> logits (B, K)) in eval mode; the network stays as it is.

    Args:
        classes: their names, or how many the data has at least; the network's outputs are counted where there are no
            names.

    Raises:
        CheckpointError: if it cannot be copied, does not answer with finite logits, or has too few of them.
    """
    name = type(network).__name__
    try:
        model = copy.deepcopy(network).eval().requires_grad_(False)
    except Exception as error:  # whatever a module's own attributes raise
        raise CheckpointError(f"{name} cannot be copied ({error}); save it, and name its file") from error
    first = next((tensor for tensor in model.state_dict().values()), torch.zeros(()))
    try:
        with torch.no_grad():
            logits = model(torch.rand(2, *input_size, device=first.device))
    except Exception as error:  # a network's own errors
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name} does not take images of {'x'.join(map(str, input_size))}: {told}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != 2 or not logits.isfinite().all():
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise CheckpointError(f"{name} must answer 2 images with finite logits (2, K), got {found}")
    count = logits.shape[1]
    names = tuple(map(str, range(count))) if classes is None or isinstance(classes, int) else tuple(classes)
    least = classes if isinstance(classes, int) else len(names)
    if count < least or (not isinstance(classes, int | None) and count != len(names)):
        raise CheckpointError(f"{name} has {count} logits, and the data {least} classes")
    record = ModelRecord(source="factory", arch=name, input_size=input_size, classes=names, mean=None, std=None)
    return LoadedModel(model.cpu(), record, _sha256(model), Path(NOWHERE) / name)


def _sha256(model: nn.Module) -> str:
    """Of the names, types, shapes and bytes of all weights and buffers."""
    seen = hashlib.sha256(repr(model).encode())
    for name, tensor in model.state_dict().items():
        seen.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()
