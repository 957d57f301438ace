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


SHUFFLED = 8_192
"""Images among which those of shards are shuffled, over all lanes: shards are written in a random order themselves."""
MOST_LANES = 32


def sharded_order(shards: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """An order of N images that lie in shards, int64 (steps * B,), by which every shard is read from end to end.

    The shards in random order, one after the other, are cut into L equal lanes; a batch takes B / L images of each,
    shuffled within windows of a lane. L is the largest power of two that divides B, and is at most the number of shards
    and 32: processes that share batches, as many as divide L, read other shards each, and the batches are the same
    however many they are.

    Guarantees:
        No image comes twice; at most B + L of them do not come, others in every epoch.
    """
    N, B = len(shards), batch_size
    sizes: list[int] = torch.bincount(shards).tolist()
    parts = [part for part in torch.split(shards.argsort(stable=True), sizes) if len(part) > 0]
    everything = torch.cat([parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()])
    L = 1
    while B % (2 * L) == 0 and min(len(parts), MOST_LANES) >= 2 * L:
        L *= 2
    steps, length = N // B, N // L
    window = max(1, SHUFFLED // L)
    place = torch.arange(length, dtype=torch.float64) // window + torch.rand(
        (L, length), generator=generator, dtype=torch.float64
    )
    lanes = everything[: L * length].view(L, length).gather(1, place.argsort(1))
    return lanes[:, : steps * (B // L)].reshape(L, steps, B // L).transpose(0, 1).flatten()


def epoch_order(n: int, generator: torch.Generator) -> Tensor:
    """A random order of n images, int64 (n,), on the CPU."""
    return torch.randperm(n, generator=generator)
