"""Rectangles of zeros in images: Cutout, and Random Erasing.

B batch, C channels, H height, W width. All randomness is drawn on the CPU from the caller's generator. The libraries'
versions draw one rectangle a batch (torchvision) or loop over its images in Python (timm).
"""

import math
from functools import partial

import torch
from torch import Generator, Tensor

from kdcompress.seats import own_rows

TRIES = 10
"""Rectangles drawn for an image until one fits, as in torchvision."""


def cutout(inputs: Tensor, *, generator: Generator) -> Tensor:
    """A square of side H / 2 of each image set to zero, its centre anywhere, so that part of it may lie outside.

    Source: DeVries and Taylor (2017), arXiv:1708.04552, Sec. 3.2; 16 of 32 pixels is their choice for CIFAR-10.

    Args:
        inputs: (B, C, H, W) on any device.

    Returns:
        (B, C, H, W) on the inputs' device.
    """
    B, _, H, W = inputs.shape
    side = max(H // 2, 1)
    top, left = (own_rows(partial(_below, size, generator), B) - side // 2 for size in (H, W))
    return _erased(inputs, top, left, torch.tensor(side), torch.tensor(side))


def random_erasing(inputs: Tensor, *, generator: Generator, p: float = 0.5) -> Tensor:
    """With probability p a rectangle of .02 to .33 of an image's area and aspect ratio .3 to 3.3 set to zero.

    Source: Zhong et al. (2017), arXiv:1708.04896, Algorithm 1, with torchvision's defaults: zeros, whole rectangles
    inside the image, log-uniform aspect ratios.
    """
    B, _, H, W = inputs.shape

    def between(low: float, high: float) -> Tensor:
        return own_rows(lambda B: torch.empty(TRIES, B).uniform_(low, high, generator=generator), B, dim=1)

    def share() -> Tensor:
        return own_rows(lambda B: torch.rand(B, generator=generator), B)

    applied = share() < p
    area = H * W * between(0.02, 0.33)
    aspect = between(math.log(0.3), math.log(3.3)).exp()
    heights, widths = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (heights < H) & (widths < W)
    first = fits.int().argmax(0, keepdim=True)  # the first that fits
    height, width = (
        sizes.gather(0, first)[0] * (applied & fits.any(0)) for sizes in (heights, widths)
    )  # 0 x 0 where nothing is erased
    top, left = ((share() * (size - taken + 1)).floor() for size, taken in ((H, height), (W, width)))
    return _erased(inputs, top, left, height, width)


def _below(size: int, generator: Generator, B: int) -> Tensor:
    return torch.randint(size, (B,), generator=generator)


def _erased(inputs: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    rows, columns = torch.arange(inputs.shape[2]), torch.arange(inputs.shape[3])
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return inputs.masked_fill(inside.to(inputs.device), 0)
