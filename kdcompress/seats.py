"""Which rows of every batch are this process's, where several processes share one.

Each draws the chance of the whole batch and takes its own rows of it: N processes then see what one would see. What is
drawn for the whole batch is little for GPUs, a key an image (see `maths.keyed`); on a CPU noise costs each process the
draws of all, 5 ns a number.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_SEAT: ContextVar[tuple[int, int]] = ContextVar("seat", default=(0, 1))


@contextmanager
def seated(rank: int, count: int) -> Iterator[None]:
    """Inside, a batch is part number `rank` of `count` equal ones, in their order."""
    token = _SEAT.set((rank, count))
    try:
        yield
    finally:
        _SEAT.reset(token)


def own_rows(draw: Callable[[int], Tensor], rows: int, dim: int = 0) -> Tensor:
    """`draw(B)` of the whole batch of B, narrowed along `dim` to the `rows` that are here.

    >>> import torch
    >>> with seated(1, 2):
    ...     own_rows(torch.arange, 3)
    tensor([3, 4, 5])
    """
    rank, count = _SEAT.get()
    return draw(rows * count).narrow(dim, rows * rank, rows)


def own_part(of: Tensor) -> Tensor:
    """The rows of a whole batch that are this process's."""
    rank, count = _SEAT.get()
    return of.tensor_split(count)[rank]
