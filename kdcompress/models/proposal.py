"""A student to begin with, for a teacher that is at hand."""

from typing import Any

import timm
import torch

from kdcompress.models.cost import parameter_count


def smaller_student(teacher: int, classes: int, channels: int) -> tuple[dict[str, list[int]], int]:
    """Arguments of timm's resnet18 that leave at most half of the teacher's parameters, and how many these are.

    The smallest that is tried, where none is so small. Arithmetic is another matter: on small images a student's early
    layers keep the resolution.

    Args:
        teacher: its parameters.
        channels: of the images.
    """
    found: tuple[dict[str, Any], int] = {}, 0
    for first in (None, 64, 32, 16, 8, 4):
        widths = [] if first is None else [first * times for times in (1, 2, 4, 8)]
        arguments: dict[str, Any] = {"layers": [1] * 4, "channels": widths} if widths else {}
        with torch.device("meta"):  # shapes alone
            network = timm.create_model("resnet18", num_classes=classes, in_chans=channels, **arguments)
        found = arguments, parameter_count(network)
        if found[1] <= teacher / 2:
            break
    return found


def as_pairs(arguments: dict[str, list[int]]) -> list[str]:
    """As `--student-arg` takes them."""
    return [f"{name}={','.join(map(str, values))}" for name, values in arguments.items()]
