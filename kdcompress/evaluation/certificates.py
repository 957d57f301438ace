"""The first-order radius in a report: an estimate."""

import torch
from torch import nn

from kdcompress.data import Split
from kdcompress.evaluation.audit.numbers import finite, finite_median
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.maths.radii import first_order_radius
from kdcompress.report import FirstOrder
from kdcompress.threat import Norm


def first_order(
    model: nn.Module, images: Split, norm: Norm, *, batch_size: int, device: torch.device
) -> FirstOrder | None:
    """The median first-order radius (zero for misclassified images): an estimate, which bounds nothing.

    None for a network without gradients, of which the estimate would say that nothing can move it.
    """
    x, y = next(images.batches(8, device=device))
    if not has_gradients(model, x, y):
        return None
    radii = torch.cat(
        [first_order_radius(model, x, y, norm).cpu() for x, y in images.batches(batch_size, device=device)]
    )
    return FirstOrder(norm=norm, median=finite_median(radii), radii=finite(radii), n=len(radii))
