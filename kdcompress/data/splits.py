"""Labelled images as batches of (inputs in [0,1], labels).

B batch, C channels, H height, W width, N images of a split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdcompress.data.selection import seeded_order
from kdcompress.errors import DataError

# Rows -> uint8 (len(rows), C, H, W): for splits that do not fit into memory.
ReadRows = Callable[[list[int]], Tensor]

_STATISTICS_BATCH = 4096
_STATISTICS_IMAGES = 20_000  # of a split on disk; one in memory is counted in full


@dataclass(frozen=True, eq=False)
class Split:
    """Images with labels, in a fixed order. Subsets share the pixels.

    Attributes:
        labels: int64 (N,).
        ids: a stable identifier for each image, such as `airplane/0000.jpg`.
        pixels: uint8 (M, C, H, W) in memory, or a function that reads rows of it; or float32 in [0,1], in memory.
        rows: int64 (N,), where the images lie in `pixels`.
        shards: int64 (N,), the file that each lies in, where many lie in one; see `views.sharded_order`.
        damaged: rows whose images could not be read, as far as they have been asked for, with what was found; shared
            by all subsets. Batches leave them out.

    >>> split = split_from_pixels(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    >>> len(split), split.ids
    (3, ('0', '1', '2'))
    >>> [tuple(inputs.shape) for inputs, _ in split.batches(2)]
    [(2, 1, 2, 2), (1, 1, 2, 2)]
    """

    labels: Tensor
    ids: tuple[str, ...]
    pixels: Tensor | ReadRows
    rows: Tensor
    damaged: Mapping[int, str] = field(default_factory=dict)
    shards: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Tensor | Sequence[int]) -> "Split":
        """The images at `indices`, in that order; negative ones count from the end.

        Raises:
            IndexError: if an index is outside the split.
        """
        chosen = torch.arange(len(self))[torch.as_tensor(indices, dtype=torch.int64)]
        ids = tuple(self.ids[i] for i in chosen.tolist())
        shards = None if self.shards is None else self.shards[chosen]
        return Split(self.labels[chosen], ids, self.pixels, self.rows[chosen], self.damaged, shards)

    def readable(self) -> "Split":
        """Without the images that are known to be damaged."""
        return self.subset(torch.nonzero(_are_readable(self.rows, self.damaged)).flatten()) if self.damaged else self

    def shuffled(self, n: int | None, seed: int) -> "Split":
        """The first `n` images (all, where None or too many) of a seeded shuffle.

        The order is that of a hash of seed and identifier: the same images on every machine and with every version,
        and those for a smaller `n` are the first of those for a larger one.
        """
        return self.subset(seeded_order(self.ids, seed, "shuffle")[:n])

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        order: Tensor | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (inputs, labels): float32 (B, C, H, W) in [0,1] and int64 (B,), on `device`.

        Args:
            batch_size: B, at least 1; the last batch may be smaller.
            device: where the batches go. The conversion to float happens there, so that bytes travel.
            order: int64 positions in this split, in the order wanted; None for the split's own order.
            drop_last: leave out a last batch smaller than B.

        Raises:
            ValueError: if `batch_size` is under 1.
            DataError: where images are read from disk, for one that has another size, or is damaged and may not be
                left out; for a batch without a readable image.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        positions = torch.arange(len(self)) if order is None else order.to("cpu", torch.int64)
        count = len(positions) // batch_size * batch_size if drop_last else len(positions)
        chunks = _chunks(positions[:count], batch_size)
        rows = [self.rows[chunk] for chunk in chunks]
        for chunk, pixels in zip(chunks, _read(self.pixels, rows), strict=True):
            if self.damaged:
                pixels, chunk = self._left_of(pixels, chunk)  # noqa: PLW2901
            # Division, not multiplication by 1/255, is rounded correctly: every device has the same inputs.
            inputs = pixels.to(device)
            if inputs.dtype == torch.uint8:
                inputs = inputs.to(torch.float32).div_(255)
            yield inputs, self.labels[chunk].to(device)

    def _left_of(self, pixels: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """A batch's pixels and positions, without those of damaged images."""
        readable = _are_readable(self.rows[chunk], self.damaged)
        if len(chunk) > 0 and not readable.any():
            told = self.damaged[int(self.rows[chunk[0]])]
            raise DataError(f"none of the {len(chunk)} images of a batch can be read; {told}")
        return pixels[readable], chunk[readable]


def split_from_pixels(pixels: Tensor, labels: Tensor, ids: Sequence[str] | None = None) -> Split:
    """A split of uint8 `pixels` (N, C, H, W) in memory, and int64 `labels` (N,)."""
    names = tuple(str(i) for i in range(len(pixels))) if ids is None else tuple(ids)
    return Split(labels, names, pixels, torch.arange(len(pixels)))


def channel_statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of `split`, in units of [0,1], to 4 digits.

    Exact counts of the 256 byte values, so the result does not depend on the order of summation. A split on disk is
    represented by 20,000 images of a seeded shuffle. A constant channel gets the deviation .0039 (one byte step), so
    that normalisation by it stays finite.

    >>> channel_statistics(split_from_pixels(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), torch.tensor([0])))
    ((0.5,), (0.5,))
    """
    if not isinstance(split.pixels, Tensor):
        split = split.shuffled(_STATISTICS_IMAGES, seed=0)
    counts: list[Tensor] = []
    chunks = _chunks(split.rows, _STATISTICS_BATCH)
    for rows, everything in zip(chunks, _read(split.pixels, chunks), strict=True):
        pixels = everything[_are_readable(rows, split.damaged)]
        found = [torch.bincount(channel.flatten(), minlength=256) for channel in pixels.transpose(0, 1)]
        counts = [old + new for old, new in zip(counts, found, strict=True)] if counts else found
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for count in counts:
        weights = count.double() / count.sum()
        mean = (weights * values).sum()
        means.append(round(mean.item(), 4))
        deviations.append(round(max((weights * (values - mean).square()).sum().sqrt().item(), 1 / 255), 4))
    return tuple(means), tuple(deviations)


def _are_readable(rows: Tensor, damaged: Mapping[int, str]) -> Tensor:
    return ~torch.isin(rows, torch.tensor(list(damaged), dtype=torch.int64))


def _chunks(indices: Tensor, size: int) -> list[Tensor]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _read(pixels: Tensor | ReadRows, chunks: list[Tensor]) -> Iterator[Tensor]:
    """The pixels of each chunk of rows; from disk, the next chunk is read while the caller works on this one."""
    if isinstance(pixels, Tensor):
        for rows in chunks:
            yield pixels[rows]
        return
    with ThreadPoolExecutor(1) as ahead:
        waiting = [ahead.submit(pixels, rows.tolist()) for rows in chunks[:1]]
        for rows in chunks[1:]:
            ready = waiting.pop().result()
            waiting.append(ahead.submit(pixels, rows.tolist()))
            yield ready
        for last in waiting:
            yield last.result()
