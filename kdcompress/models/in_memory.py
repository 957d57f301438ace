"""A network that came from no file."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcompress.errors import CheckpointError
from kdcompress.models.record import ModelRecord
from kdcompress.models.teachers import LoadedModel, Size, check_size
from kdcompress.report import IN_MEMORY


def loaded_from(network: nn.Module | LoadedModel, classes: Sequence[str] | int, input_size: Size) -> LoadedModel:
    """A copy of `network` (inputs in [0,1], (B, C, H, W) -> logits (B, K)) in eval mode; the network stays as it is.

    What was loaded from a file may have been changed since: of it the names are kept, and the weights are hashed anew.

    Args:
        classes: their names, or how many the data has at least, where they have none.

    Raises:
        CheckpointError: if its file told that it was made for images of another size; if it cannot be copied, does not
            answer with finite logits, or for other classes.
    """
    found = network.record if isinstance(network, LoadedModel) else None
    module = network.model if isinstance(network, LoadedModel) else network
    name = type(module).__name__ if found is None else found.arch
    if isinstance(network, LoadedModel) and network.tells_size:
        check_size(input_size, network.record.input_size, name, cure="resize them")
    try:
        model = copy.deepcopy(module).eval().requires_grad_(False).cpu()
    except Exception as error:  # whatever a module's own attributes raise
        raise CheckpointError(f"{name} cannot be copied ({error}); save it, and name its file") from error
    count = _classes_of(model, name, input_size)
    numbers = tuple(map(str, range(count)))
    if isinstance(classes, int):
        names = numbers if found is None else found.classes
        if count < classes:
            raise CheckpointError(f"{name} has {count} logits, and the data {classes} classes")
    else:
        names = tuple(classes)
        if len(names) != count:
            raise CheckpointError(f"{name} has {count} logits, and the data {len(names)} classes")
        if found is not None and found.classes not in (names, numbers):
            raise CheckpointError(f"{name} was made for the classes {_few(found.classes)}, got {_few(names)}")
    record = ModelRecord(source="factory", arch=name, input_size=input_size, classes=names, mean=None, std=None)
    notes = network.notes if isinstance(network, LoadedModel) else ()
    return LoadedModel(model, record, _sha256(model), Path(IN_MEMORY) / name, notes)


def _classes_of(model: nn.Module, name: str, input_size: Size) -> int:
    """K, as it answers."""
    try:
        with torch.no_grad():
            logits = model(torch.rand(2, *input_size, generator=torch.Generator().manual_seed(0)))
    except Exception as error:  # a network's own errors
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name} does not take images of {'x'.join(map(str, input_size))}: {told}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2 or not logits.isfinite().all():
        told = str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
        raise CheckpointError(f"{name} must answer 2 images with finite logits (2, K), got {told}")
    return logits.shape[1]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _sha256(model: nn.Module) -> str:
    """Of structure, and of names, types, shapes and bytes of all weights and buffers; code it cannot see."""
    seen = hashlib.sha256(repr(model).encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        seen.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()
