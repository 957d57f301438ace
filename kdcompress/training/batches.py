"""The batches of an epoch: fresh views of the images, or fixed ones that the teacher has been asked about before."""

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from kdcompress.data import Data, augment, cutout, epoch_order, idbh
from kdcompress.devices import LAYOUT
from kdcompress.maths.randomness import generator
from kdcompress.settings import RunSettings
from kdcompress.training.backward import Batch
from kdcompress.training.ingredients import training_split

Batches = Callable[[int], Iterator[Batch]]
"""Epoch number, from 1 -> that epoch's batches, augmented and on the device."""


def batch_size(data: Data, run: RunSettings) -> int:
    """Images a step: as asked, or all there are."""
    return min(run.batch_size, len(training_split(data)))


def random_views(pixels: Tensor, data: Data, run: RunSettings, draws: Generator) -> Tensor:
    """One random view of each image (B, C, H, W), as `--augment` says."""
    if run.augment == "idbh":
        return idbh(pixels, generator=draws, flips=data.flips)
    crops = run.augment != "none"
    flips = run.augment == "crop-flip" or (run.augment in ("auto", "cutout") and data.flips)
    views = augment(pixels, generator=draws, flips=flips, crop_padding=data.crop_padding if crops else 0)
    return cutout(views, generator=draws) if run.augment == "cutout" else views


def fresh_batches(data: Data, run: RunSettings, device: torch.device, purpose: str = "") -> Batches:
    """Another order and other views in every epoch, drawn for a purpose of their own where one is named."""
    images = training_split(data)
    order, draws = generator(run.seed, f"{purpose}order"), generator(run.seed, f"{purpose}views")

    def batches(epoch: int) -> Iterator[Batch]:
        shuffled = epoch_order(len(images), order)
        for pixels, y in images.batches(batch_size(data, run), device=device, order=shuffled, drop_last=True):
            yield random_views(pixels, data, run, draws).contiguous(memory_format=LAYOUT), y

    return batches
