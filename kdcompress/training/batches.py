"""The batches of an epoch: fresh views of the images, or fixed ones that the teacher has been asked about before."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Generator, Tensor

from kdcompress.data import Data, Split, augment, cutout, epoch_order, idbh, sharded_order
from kdcompress.devices import LAYOUT
from kdcompress.errors import UsageError
from kdcompress.maths.randomness import generator
from kdcompress.processes import Processes
from kdcompress.seats import own_part
from kdcompress.settings import DataSettings, RunSettings
from kdcompress.training.backward import Batch
from kdcompress.training.ingredients import training_split


class Chance(Protocol):
    """What draws, and can be taken back to where it was: a `torch.Generator`, or an `Order`."""

    def get_state(self) -> Tensor:
        """Where it is, as bytes."""

    def set_state(self, state: Tensor) -> object:
        """Go there."""


class Order:
    """The shuffled order of the images, epoch by epoch.

    Its state is that from before the epoch: whoever goes back there can go through the same epoch again.
    """

    def __init__(self, images: Split, batch_size: int, draws: Generator) -> None:
        self.images, self.batch_size, self.draws = images, batch_size, draws
        self.before = draws.get_state()

    def next_epoch(self, skip: int) -> Tensor:
        """Positions of the next epoch's images, but for those of its first `skip` batches."""
        self.before = self.draws.get_state()
        shards = self.images.shards
        if shards is None:
            return epoch_order(len(self.images), self.draws)[skip * self.batch_size :]
        return sharded_order(shards, self.batch_size, self.draws)[skip * self.batch_size :]

    def get_state(self) -> Tensor:
        """That from before the epoch that was last asked for."""
        return self.before

    def set_state(self, state: Tensor) -> None:
        """The next epoch is the one that followed there."""
        self.draws.set_state(state)
        self.before = state


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch, augmented and on the device.

    Attributes:
        of: (epoch from 1, how many batches of it to leave out) -> the others, in order.
        chance: what they are drawn from, by purpose.
    """

    of: Callable[[int, int], Iterator[Batch]]
    chance: Mapping[str, Chance] = field(default_factory=dict)

    def __call__(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The epoch's batches, or those after the first `skip`."""
        return self.of(epoch, skip)


def batch_size(data: Data, run: RunSettings) -> int:
    """Images a step: as asked, or all there are."""
    return min(run.batch_size, len(training_split(data)))


def refuse_uneven(data: Data, run: RunSettings, asked: DataSettings, processes: Processes) -> None:
    """Every process has as many images of a batch as the others.

    Raises:
        UsageError: if that cannot be.
    """
    B = batch_size(data, run)
    if B % processes.count != 0:
        raise UsageError(f"--batch-size must be a multiple of the {processes.count} processes, got {B}")
    if processes.count > 1 and asked.skip_corrupt and not isinstance(training_split(data).pixels, Tensor):
        raise UsageError("--skip-corrupt needs images that fit into memory where several processes share the batches")


def random_views(pixels: Tensor, data: Data, run: RunSettings, draws: Generator) -> Tensor:
    """One random view of each image (B, C, H, W), as `--augment` says."""
    if run.augment == "idbh":
        return idbh(pixels, generator=draws, flips=data.flips)
    crops = run.augment != "none"
    flips = run.augment == "crop-flip" or (run.augment in ("auto", "cutout") and data.flips)
    views = augment(pixels, generator=draws, flips=flips, crop_padding=data.crop_padding if crops else 0)
    return cutout(views, generator=draws) if run.augment == "cutout" else views


def fresh_batches(data: Data, run: RunSettings, device: torch.device, purpose: str = "") -> Batches:
    """Another order and other views in every epoch, drawn for a purpose of their own where one is named.

    A process that shares the batches with others reads its own part of each.
    """
    images, B = training_split(data), batch_size(data, run)
    order = Order(images, B, generator(run.seed, f"{purpose}order"))
    draws = generator(run.seed, f"{purpose}views")

    def of(epoch: int, skip: int) -> Iterator[Batch]:
        left = order.next_epoch(skip)
        own = [own_part(batch) for batch in left[: len(left) // B * B].view(-1, B)]
        if not own:
            return
        for pixels, y in images.batches(len(own[0]), device=device, order=torch.cat(own)):
            yield random_views(pixels, data, run, draws).contiguous(memory_format=LAYOUT), y

    return Batches(of, {"order": order, "views": draws})
