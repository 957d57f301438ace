"""The built-in data: scikit-learn's handwritten digits, 1,797 grey images of 8x8 pixels."""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from kdcompress.data.splits import Split, split_from_pixels

DIGITS_SIDE = 16
_TRAIN, _HOLDOUT = 1197, 240  # and 360 for test


def digits_splits(image_size: int | None) -> dict[str, Split]:
    """Train, hold-out and test of the digits, each (N, 1, side, side), bilinear from 8x8; side 16 unless given.

    The split is the same for every seed: 1,197, 240 and 360 images of one permutation by NumPy's RandomState(0), whose
    stream NumPy has frozen.
    """
    from sklearn.datasets import load_digits  # a slow import

    source = load_digits()
    side = DIGITS_SIDE if image_size is None else image_size
    grey = torch.from_numpy(cast(NDArray[np.float64], source.images)).unsqueeze(1) / 16
    # In float64 the products are exact, so the bytes are the same on every platform.
    resized = F.interpolate(grey, size=(side, side), mode="bilinear", antialias=side < grey.shape[-1])
    labels = torch.from_numpy(cast(NDArray[np.int64], source.target)).to(torch.int64)
    ids = [f"{label}/{number:04d}" for number, label in enumerate(labels.tolist())]
    everything = split_from_pixels((resized * 255).round().to(torch.uint8), labels, ids)
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(ids)))
    return {
        "train": everything.subset(order[:_TRAIN]),
        "holdout": everything.subset(order[_TRAIN : _TRAIN + _HOLDOUT]),
        "test": everything.subset(order[_TRAIN + _HOLDOUT :]),
    }
