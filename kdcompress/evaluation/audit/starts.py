"""Where searches start by chance: drawn for each image by itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdcompress.maths.norms import uniform_in_ball
from kdcompress.maths.randomness import generator
from kdcompress.threat import ThreatModel


def random_starts(
    inputs: Tensor, names: Sequence[str], threat: ThreatModel, *, seed: int, purpose: str, count: int
) -> list[Tensor]:
    """`count` points uniform in each image's ball, (B, C, H, W) each, by the image's name alone.

    Guarantees:
        An image has the same starts alone, in any batch and at any place of it.
        Fewer starts are the first of more under Linf.

    Args:
        names: of the images, B of them: what tells one from another.
    """
    if count == 0:
        return []
    drawn = [
        uniform_in_ball(x.expand(count, *x.shape), threat, generator(seed, f"{purpose} {threat} {name}"))
        for x, name in zip(inputs, names, strict=True)
    ]
    return [inputs + noise for noise in torch.stack(drawn, 1)]
