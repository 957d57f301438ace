"""Arrays as small PNGs inside the page."""

import base64
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST = 128
"""Pixels along the longer side: larger images are averaged down, for the sake of the page's size."""

LOW, MIDDLE, HIGH = (33, 74, 144), (247, 247, 247), (178, 76, 12)
"""Ends and middle of the signed scale: blue and orange of equal lightness, which colour-blind eyes tell apart."""


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class SignedMap:
    """A picture of signed numbers, and the size at which its colour is full; 0 where there is nothing but zeros."""

    picture: Picture
    scale: float


def photograph(image: NDArray[np.uint8]) -> Picture:
    """An image (H, W, C) as it is: grey for one channel, colour for three, the channels' mean for any other number."""
    channels = image.shape[2]
    if channels == 3:
        return _png(_reduced(Image.fromarray(np.ascontiguousarray(image))))
    grey = image[:, :, 0] if channels == 1 else image.mean(axis=2).round().astype(np.uint8)
    return _png(_reduced(Image.fromarray(np.ascontiguousarray(grey))))


def signed_map(values: NDArray[np.float32], percentile: float) -> SignedMap:
    """Numbers (H, W, C), averaged over the channels, in blue below zero and orange above.

    Args:
        percentile: of the sizes, where colour is full: 100 for the largest; less where a few would leave the rest pale.
    """
    averaged = np.nan_to_num(values.astype(np.float64).mean(axis=2), nan=0.0, posinf=0.0, neginf=0.0)
    reduced = np.asarray(_reduced(Image.fromarray(averaged.astype(np.float32))))
    scale = float(np.percentile(np.abs(reduced), percentile)) or float(np.abs(reduced).max())
    shares = np.clip(reduced / scale, -1, 1) if scale > 0 else np.zeros_like(reduced)
    indexed = Image.fromarray((127 + np.round(127 * shares)).astype(np.uint8))
    indexed.putpalette(_palette())
    return SignedMap(_png(indexed), scale)


def _reduced(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= LARGEST:
        return image
    width, height = (max(1, round(side * LARGEST / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


@cache
def _palette() -> bytes:
    """255 colours: 127 below, the middle, 127 above."""
    shares = np.arange(-127, 128)[:, None] / 127
    ends = np.where(shares < 0, np.array(LOW), np.array(HIGH))
    colours = np.array(MIDDLE) + np.abs(shares) * (ends - np.array(MIDDLE))
    return bytes(colours.round().astype(np.uint8).tobytes())


def _png(image: Image.Image) -> Picture:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return Picture(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}", *image.size)
