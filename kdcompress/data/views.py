"""Random views of a batch: crop and flip, and the order of an epoch.

All randomness is drawn on the CPU from the caller's generator, so that every device sees the same views.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcompress.seats import own_rows


def augment(inputs: Tensor, *, generator: torch.Generator, flips: bool, crop_padding: int) -> Tensor:
    """Each image padded with zeros, cropped at random to its own size, and flipped left to right with probability 1/2.

    Guarantees:
        - every image has its own offset and flip, uniform over (2 * crop_padding + 1)^2 offsets and both sides;
        - with no padding and no flips the inputs come back as they are, and nothing is drawn;
        - values are copied, never interpolated: inputs in [0,1] stay there.

    Args:
        inputs: (B, C, H, W) on any device.
        generator: a CPU generator.
        flips: whether to flip at all.
        crop_padding: pixels of zeros on each side, and so the largest shift.

    Returns:
        (B, C, H, W) on the inputs' device, contiguous.
    """
    if not flips and crop_padding == 0:
        return inputs
    B, C, H, W = inputs.shape
    rows, columns = torch.arange(H).expand(B, H), torch.arange(W).expand(B, W)
    if flips:
        flipped = own_rows(lambda B: torch.randint(2, (B, 1), generator=generator), B).bool()
        columns = torch.where(flipped, W - 1 - columns, columns)
    if crop_padding:
        shift = own_rows(lambda B: torch.randint(2 * crop_padding + 1, (2, B, 1), generator=generator), B, dim=1)
        rows, columns = rows + shift[0], columns + shift[1]
        inputs = F.pad(inputs, [crop_padding] * 4)
    # One flat index an image, shared by its channels.
    index = (rows[:, :, None] * inputs.shape[-1] + columns[:, None, :]).view(B, 1, H * W).to(inputs.device)
    return inputs.flatten(2).gather(2, index.expand(B, C, H * W)).view(B, C, H, W)


def epoch_order(n: int, generator: torch.Generator) -> Tensor:
    """A random order of n images, int64 (n,), on the CPU."""
    return torch.randperm(n, generator=generator)
