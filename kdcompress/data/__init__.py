"""A spec -> batches of (inputs in [0,1], labels)."""

from kdcompress.data.arrays import Batches, split_from_arrays
from kdcompress.data.erasing import cutout
from kdcompress.data.idbh import idbh
from kdcompress.data.loading import Data, load_data
from kdcompress.data.splits import Split, channel_statistics, split_from_pixels
from kdcompress.data.views import augment, epoch_order, sharded_order

__all__ = [
    "Batches",
    "Data",
    "Split",
    "augment",
    "channel_statistics",
    "cutout",
    "epoch_order",
    "idbh",
    "load_data",
    "sharded_order",
    "split_from_arrays",
    "split_from_pixels",
]
