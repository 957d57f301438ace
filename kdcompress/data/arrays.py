"""Images that are in memory already: arrays, or the batches of a loader."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kdcompress.data.splits import Split
from kdcompress.errors import DataError

Batches = Iterable[tuple[Any, Any]]
"""Pairs of inputs and labels, as a `torch.utils.data.DataLoader` gives them."""


def split_from_arrays(data: tuple[Any, Any] | Batches, ids: Sequence[str] | None = None) -> Split:
    """Labelled images as a split, in their order.

    Args:
        data: (inputs, labels), tensors or NumPy arrays: inputs (N, C, H, W), uint8 or floats in [0,1], and integer
            labels (N,); or an iterable of such pairs, whose batches are put one after the other.
        ids: a name for each image; their numbers where there are none. Seeded shuffles go by the names.

    Raises:
        DataError: naming what was expected and what was found. Inputs outside [0,1] are mostly normalised ones:
            normalisation belongs into the network.

    >>> split = split_from_arrays((torch.rand(3, 1, 2, 2), [0, 1, 0]))
    >>> [(tuple(inputs.shape), labels.tolist()) for inputs, labels in split.batches(2)]
    [((2, 1, 2, 2), [0, 1]), ((1, 1, 2, 2), [0])]
    """
    pair = isinstance(data, tuple) and len(data) == 2 and not any(isinstance(side, tuple) for side in data)
    parts = [_checked(*data)] if pair else [_checked(*batch) for batch in _each_pair(data)]
    if not parts:
        raise DataError("expected images, got none: the loader gave no batch")
    shapes = {tuple(inputs.shape[1:]) for inputs, _ in parts}
    if len(shapes) > 1 or len({inputs.dtype for inputs, _ in parts}) > 1:
        raise DataError(f"batches must agree in size and type, got {sorted(shapes)}")
    inputs, labels = (torch.cat(side) for side in zip(*parts, strict=True))
    names = tuple(map(str, range(len(inputs)))) if ids is None else tuple(ids)
    if len(names) != len(inputs) or len(set(names)) != len(names):
        raise DataError(f"ids must be a different name for each of the {len(inputs)} images, got {len(set(names))}")
    return Split(labels, names, inputs, torch.arange(len(inputs)))


def _each_pair(data: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise DataError(f"data must be (inputs, labels), or batches of such pairs, got {type(data).__name__}")
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise DataError(f"batches must be pairs of inputs and labels, got {type(batch).__name__}")
        yield batch[0], batch[1]


def _tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())[:120]
        raise DataError(f"{what} must be a tensor, an array or numbers, got {type(values).__name__}: {told}") from error


def _checked(inputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
    x, y = _tensor(inputs, "inputs"), _tensor(labels, "labels")
    if x.ndim != 4 or len(x) == 0:
        raise DataError(f"inputs must be (N, C, H, W), got {tuple(x.shape)}")
    if y.shape != x.shape[:1]:
        raise DataError(f"labels must be ({len(x)},), one for each image, got {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or int(y.min()) < 0:
        raise DataError(f"labels must be integers of at least 0, got {y.dtype} from {y.min().item():g}")
    if x.dtype != torch.uint8:
        x = x.to(torch.float32)
        low, high = float(x.min()), float(x.max())
        if not (low >= 0 and high <= 1):  # NaN too
            raise DataError(
                f"inputs must be pixels in [0,1] (or uint8), got {low:g} to {high:g}: eps has no meaning elsewhere; "
                "leave normalisation to the network"
            )
    return x.contiguous(), y.to(torch.int64)
