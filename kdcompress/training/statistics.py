"""BatchNorm's statistics for weights that no training step has seen."""

from itertools import islice

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from kdcompress.data import Data
from kdcompress.maths.norms import gaussian
from kdcompress.maths.randomness import generator
from kdcompress.settings import RunSettings
from kdcompress.training.averaging import Refresh
from kdcompress.training.batches import fresh_batches

BATCHES = 10
"""Of training images that the statistics are taken over, or an epoch's where it has fewer: 1,280 images by default."""


def refreshing(data: Data, run: RunSettings, device: torch.device) -> Refresh:
    """A function that takes a network's statistics anew: over views of training images, under `--noise-sigma`'s noise.

    Noise in the ball and attacks, which are a recipe's own, are left out: what is validated next sees clean images too.

    Guarantees:
        - the same images, views and noise every time, drawn from generators of their own;
        - the global generators, which dropout draws from, are left where they were.
    """

    def refresh(network: nn.Module) -> None:
        noise = generator(run.seed, "statistics noise")
        batches = fresh_batches(data, run, device, purpose="statistics ")(1)
        inputs = (x + gaussian(x, run.noise_sigma, noise) if run.noise_sigma > 0 else x for x, *_ in batches)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            update_bn(islice(inputs, BATCHES), network)

    return refresh
