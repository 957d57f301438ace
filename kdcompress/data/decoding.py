"""Image files -> uint8 pixels, with a small thread pool.

Threads, not processes: PIL decodes and resizes without the interpreter lock, errors arrive as they were raised, and
nothing has to be pickled or put into shared memory.
"""

import os
import re
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kdcompress.data.items import Items
from kdcompress.errors import DamagedImageError, DataError

# C, H, W.
Size = tuple[int, int, int]
# Position of an image that could not be read -> one line that says so.
Damaged = dict[int, str]
# What is going on, how much is done, how much there is.
OnProgress = Callable[[str, int, int], None]

_CHUNK = 128  # images a task at most: tasks cost little, progress stays smooth
_SMALL = 128 * 128  # pixels of an image that costs Python more than it costs the decoder
_PEEKED = 16  # images of a split whose headers are read first
_GREY_MODES = frozenset({"1", "L"})
# What PIL raises for files that are damaged in one way or another.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError),
    MemoryError,  # a header that claims to be of a huge image
)


def common_size(
    splits: Sequence[Items], image_size: int | None, *, colour: bool = False, skip_corrupt: bool = False
) -> Size:
    """(C, H, W) that the images of all `splits` will have: one channel where every image is grey and `colour`
    is not asked for, else three.

    H and W are those of the first image, or `image_size`.

    Args:
        skip_corrupt: images without a readable header have no say.

    Raises:
        DataError: for a damaged image.
    """
    width, height, _ = _first_header(splits[0], range(len(splits[0]))) if skip_corrupt else _header(splits[0], 0)
    if image_size is not None:
        width = height = image_size
    # Reading every header costs a tenth of decoding, so colour data, the usual case, is recognised by a few of them.
    grey = (
        not colour
        and all(_is_grey(items, range(0, len(items), max(1, len(items) // _PEEKED)), skip_corrupt) for items in splits)
        and all(_is_grey(items, range(len(items)), skip_corrupt) for items in splits)
    )
    return (1 if grey else 3, height, width)


def decoded(
    items: Items,
    size: Size,
    image_size: int | None,
    positions: Sequence[int],
    on_progress: Callable[[int], None] | None = None,
    damaged: Damaged | None = None,
) -> Tensor:
    """Images of `items` at `positions` as uint8 (N, C, H, W).

    Args:
        damaged: takes up the images that cannot be read, whose pixels are then 0; without it such an image is an error.

    Raises:
        DataError: for the first image, in the order of `positions`, that is damaged or has another size.
    """
    channels, height, width = size
    pixels = torch.empty((len(positions), channels, height, width), dtype=torch.uint8)

    threads = _threads(items, positions)
    size_of_task = min(_CHUNK, -(-len(positions) // threads)) or 1  # a batch that is smaller keeps all threads busy

    def fill(start: int) -> int:
        chosen = positions[start : start + size_of_task]
        chunk = np.stack([_pixels_or_black(items, i, size, image_size, damaged) for i in chosen])
        pixels[start : start + len(chosen)] = torch.from_numpy(chunk).permute(0, 3, 1, 2)
        return start + len(chosen)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for done in pool.map(fill, range(0, len(positions), size_of_task)):
                if on_progress is not None:
                    on_progress(done)
        except BaseException:  # an interrupt too: do not decode the rest first
            pool.shutdown(cancel_futures=True)
            raise
    return pixels


def _pixels_or_black(
    items: Items, position: int, size: Size, image_size: int | None, damaged: Damaged | None
) -> NDArray[np.uint8]:
    try:
        return _pixels(items, position, size, image_size)
    except DamagedImageError as error:
        if damaged is None:
            raise
        damaged[position] = str(error)
        channels, height, width = size
        return np.zeros((height, width, channels), dtype=np.uint8)


def _pixels(items: Items, position: int, size: Size, image_size: int | None) -> NDArray[np.uint8]:
    """One image, decoded, uint8 (H, W, C)."""
    channels, height, width = size
    try:
        with items.open(position) as image:
            if image_size is None and image.size != (width, height):
                found = f"{image.width}x{image.height}"
                raise DataError(
                    f"{items.name(position)} is {found} pixels, the first image is {width}x{height}: all must have "
                    "one size; give --image-size N to resize and crop them"
                )
            plain = _converted(items.name(position), image, "L" if channels == 1 else "RGB")
            if image_size is not None:
                plain = _resized(plain, image_size)
            return np.asarray(plain).reshape(height, width, channels)
    except _DAMAGE as error:
        raise _damaged(items.name(position), error) from error


def _converted(name: str, image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        image.load()
        return image
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{name}: expected 8 bits a channel, found PIL mode {image.mode}, whose range is unknown; "
            "convert the image to 8 bits"
        )
    if "transparency" in image.info:
        image = image.convert("RGBA")  # else PIL warns about palettes
    return image.convert(mode)


def _resized(image: Image.Image, side: int) -> Image.Image:
    """The shorter side scaled to `side`, then the centre cut out: one antialiased bicubic step on the centre square."""
    if image.size == (side, side):
        return image
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))


def _first_header(items: Items, positions: Sequence[int]) -> tuple[int, int, str]:
    """Of the first image that has one; the first one's error where none has."""
    for position in positions:
        try:
            return _header(items, position)
        except DamagedImageError:
            continue
    return _header(items, positions[0])


def _header(items: Items, position: int) -> tuple[int, int, str]:
    try:
        with items.open(position) as image:
            return image.width, image.height, image.mode
    except _DAMAGE as error:
        raise _damaged(items.name(position), error) from error


def _is_grey(items: Items, positions: range, skip_corrupt: bool) -> bool:
    for position in positions:
        try:
            if _header(items, position)[2] not in _GREY_MODES:
                return False
        except DamagedImageError:
            if not skip_corrupt:
                raise
    return True


def _damaged(name: str, error: Exception) -> DamagedImageError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    detail = re.sub(r"<_io\.BytesIO object at 0x\w+>", "in its bytes", detail)
    return DamagedImageError(
        f"{name}: expected an image, found a damaged or foreign file ({detail}); replace or remove it, or leave such "
        "training images out by --skip-corrupt"
    )


def _threads(items: Items, positions: Sequence[int]) -> int:
    """As many as there are cores, up to 8; one for small images, whose threads would only wait for each other's lock.

    Measured on two cores: 55,000 CIFAR-10 JPEGs cost 8.7 s of processor time with one thread, 12.7 s with two, and no
    less time on the clock.
    """
    try:
        width, height, _ = _first_header(items, positions)
    except (DamagedImageError, IndexError):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores) if width * height > _SMALL else 1
