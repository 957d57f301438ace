"""How much of an audit goes at once: as much as the memory that is free lets through. What is found stays the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdcompress.bounds.memory import SHARE, available_memory
from kdcompress.errors import KdcompressError
from kdcompress.processes import by_leader

DOUBLE = 8


class TooLargeError(KdcompressError):
    """One image takes more memory than there is: the message says how much it needs."""


@dataclass(frozen=True)
class Room:
    """How many images are looked at together, and how many rows of theirs go through a network at once."""

    images: int
    rows: int


def memory_limit(memory: int | None, device: torch.device) -> int:
    """Bytes that an audit may take: those named, or a share of what is free now, the same in every process."""
    return by_leader(lambda: int(SHARE * available_memory(device))) if memory is None else memory


def room(limit: int, *, image: int, row: int, rows_an_image: int, most: int) -> Room:
    """What fits in `limit` bytes.

    Guarantees:
        images * image + rows * row <= limit, and rows <= most.

    Args:
        image, row: bytes that an image takes whatever it is searched for, and bytes of each of its rows at work.
        most: rows.

    Raises:
        TooLargeError: if one row of one image does not fit.
    """
    if image + row > limit:
        raise TooLargeError(f"needs {_gib(image + row)} for one image, and {_gib(limit)} may be taken")
    images = max(1, min(limit // (image + rows_an_image * row), most // rows_an_image))
    return Room(images, min((limit - images * image) // row, most))


def bytes_of_pass(model: nn.Module, one: Tensor) -> int:
    """What a forward and a backward of one image, (1, C, H, W), take beside the weights: an estimate from above.

    Every operation's answer, the three largest again for the backward, and the windows that a convolution in float64
    unfolds on a CPU, of all images of a batch at once (measured: 5.5 MiB an image where 8 are told).
    """
    counted = _Counted()
    with torch.enable_grad(), counted:
        model(one.detach().requires_grad_())
    return sum(counted.answers) + sum(sorted(counted.answers)[-3:]) + counted.windows


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what every operation leaves in memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.answers: list[int] = []
        self.windows: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.answers += [leaf.nbytes for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        if func is torch.ops.aten.convolution.default:
            weight, groups = args[1], args[8]
            places = math.prod(found.shape[2:])
            self.windows = max(self.windows, math.prod(weight.shape[1:]) * groups * places * found.element_size())
        return found


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB" if size >= 2**27 else f"{math.ceil(size / 2**20)} MiB"
