"""IDBH: diverse and strong views, made for adversarial training.

B batch, C channels, H height, W width. Every image has draws of its own, on the CPU from the caller's generator; images
that drew the same transform go through it together.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as transforms

from kdcompress.data.erasing import random_erasing
from kdcompress.data.views import augment
from kdcompress.seats import own_rows

SHIFT = 10 / 32
"""Of the side of an image, what CropShift takes off at most, both directions together."""

# Factor 0 of each is the image that factor 1, the original, is mixed with.
_MIXED: dict[str, tuple[Callable[[Tensor, float], Tensor], float, float]] = {
    "saturation": (transforms.adjust_saturation, 0.1, 1.9),
    "brightness": (transforms.adjust_brightness, 0.5, 1.9),
    "contrast": (transforms.adjust_contrast, 0.5, 1.9),
    "sharpness": (transforms.adjust_sharpness, 0.1, 1.9),
}
_FIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "autocontrast": transforms.autocontrast,
    "equalize": transforms.equalize,
}
KINDS = (*_MIXED, *_FIXED, "shear", "rotate")
"""Of which every image gets one, all equally likely."""


def idbh(inputs: Tensor, *, generator: Generator, flips: bool) -> Tensor:
    """Flip, CropShift, one transform of colour or shape, Random Erasing with probability 1/2: a view of each image.

    Source: Li and Spratling (2023), arXiv:2301.09879, with the settings that their code (TreeLLi/DA-Alone-Improves-AT
    on GitHub) calls `cifar10-weak`; `cifar10-strong` always erases. Departures: CropShift is in proportion to the side,
    and degrees of rotation are not whole.

    Cost, for 1,000 images of 3x32x32 in batches of 128: 77 ms, where crop and flip take 15, Cutout with them 28, and
    torchvision's transforms applied to image after image 640 (one thread of a busy two-core Xeon, torch 2.15,
    2026-11-23, median of 7).

    Guarantees:
        - inputs in [0,1] stay there;
        - every device sees the same views, but for rounding.

    Args:
        inputs: (B, C, H, W) in [0,1], C 1 or 3.
        generator: a CPU generator.
        flips: whether to flip left to right at all.

    Returns:
        (B, C, H, W) on the inputs' device.
    """
    views = crop_shift(augment(inputs, generator=generator, flips=flips, crop_padding=0), generator=generator)
    views = color_or_shape(views, generator=generator)
    return random_erasing(views, generator=generator)


def crop_shift(inputs: Tensor, *, generator: Generator) -> Tensor:
    """A window of each image, smaller by s pixels of rows and columns together, at a place of its own among zeros.

    s is uniform over 0, ..., SHIFT H; how many of them are rows, and both places, are uniform too.
    """
    B, C, H, W = inputs.shape

    def up_to(most: Tensor) -> Tensor:
        return (own_rows(lambda B: torch.rand(B, generator=generator), B) * (most + 1)).long()

    s = up_to(torch.full((B,), round(SHIFT * min(H, W))))
    rows_off = up_to(s)
    columns_off = s - rows_off
    index, seen = [], []
    for size, off in ((H, rows_off), (W, columns_off)):
        taken_from, put_at = up_to(off), up_to(off)
        place = torch.arange(size) - put_at[:, None]
        seen.append((place >= 0) & (place < size - off[:, None]))
        index.append((place + taken_from[:, None]).clamp(0, size - 1))
    flat = (index[0][:, :, None] * W + index[1][:, None, :]).view(B, 1, H * W).to(inputs.device)
    window = (seen[0][:, :, None] & seen[1][:, None, :]).view(B, 1, H, W).to(inputs.device)
    return inputs.flatten(2).gather(2, flat.expand(B, C, H * W)).view(B, C, H, W) * window


def color_or_shape(inputs: Tensor, *, generator: Generator) -> Tensor:
    """One of `KINDS` for each image, of a strength of its own: what their code calls colour-biased."""
    B = len(inputs)
    kinds = own_rows(lambda B: torch.randint(len(KINDS), (B,), generator=generator), B)
    strength = own_rows(lambda B: torch.rand(B, generator=generator), B)
    sign = own_rows(lambda B: torch.randint(2, (B,), generator=generator), B) * 2 - 1
    across = own_rows(lambda B: torch.randint(2, (B,), generator=generator), B).bool()
    views = inputs.clone()
    for number, kind in enumerate(KINDS):
        chosen = (kinds == number).nonzero()[:, 0]
        if len(chosen) == 0:
            continue
        rows = chosen.to(inputs.device)
        x, u = inputs[rows], strength[chosen]
        if kind in _MIXED:
            adjust, low, high = _MIXED[kind]
            views[rows] = mixed(x, adjust(x, 0.0), low + (high - low) * u)
        elif kind in _FIXED:
            views[rows] = _FIXED[kind](x)
        elif kind == "shear":
            views[rows] = moved(x, shears(sign[chosen] * (0.05 + 0.1 * u), across[chosen]))
        else:
            views[rows] = moved(x, rotations(sign[chosen] * torch.deg2rad(1 + 9 * u)))
    return views


def mixed(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """other + factor (x - other), clipped to [0,1]; a factor an image."""
    return torch.lerp(other.expand_as(x), x, factor.view(-1, 1, 1, 1).to(x.device)).clamp(0, 1)


def rotations(angle: Tensor) -> Tensor:
    """(B,) radians, counter-clockwise as seen -> (B, 2, 2): a pixel's (x, y) from the centre -> where it is from."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def shears(slope: Tensor, across: Tensor) -> Tensor:
    """(B,) slopes -> (B, 2, 2) as above: rows slide left or right where `across`, else columns up or down."""
    found = torch.eye(2).repeat(len(slope), 1, 1)
    found[:, 0, 1], found[:, 1, 0] = slope * across, slope * ~across
    return found


def moved(x: Tensor, source: Tensor) -> Tensor:
    """Each pixel from its place in the source, the nearest pixel there; zeros from outside."""
    H, W = x.shape[2:]
    # Coordinates of the grid run from -1 to 1 in both directions.
    unit = torch.tensor([[1.0, H / W], [W / H, 1.0]])
    theta = torch.cat([source * unit, torch.zeros(len(source), 2, 1)], 2).to(x.device)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)
