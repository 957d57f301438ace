"""Whether what was written answers as the network does."""

from collections.abc import Iterable

import torch
from torch import Tensor

from kdcompress.data import Split
from kdcompress.errors import ExportError
from kdcompress.export.programs import Run
from kdcompress.export.record import Agreement

TOLERANCE = 1e-4
"""Of the largest logit, or of 1: float32 kernels add in another order, which moved logits by 4e-7 of the largest at
most (the teachers of examples/digits and examples/cifar10; 2026-11-24)."""
ROUNDING = 2.0
"""Integer kernels round in another order too, each time by a step, and no tolerance in steps holds for every depth. So
the runtime may move logits by so many times what rounding itself moved them, on average: measured 0.34 to 0.73 times
(the same two teachers, 300 and 240 held-out images). Meant for sums that overflow on processors without VNNI, which
were not at hand."""
BATCHES = (1, 2, 7)
"""Of random images: one size would not show that the batch is free."""
FORWARD = 50


def compared(meant: Run, found: Run, images: Split, input_size: tuple[int, int, int]) -> tuple[Agreement, Agreement]:
    """Two functions of images, on the real ones and on random ones."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(n, *input_size, generator=generator) for n in BATCHES]
    return (
        _agreement("real", meant, found, (x for x, _ in images.batches(FORWARD))),
        _agreement("random", meant, found, noise),
    )


def _agreement(on: str, meant: Run, found: Run, batches: Iterable[Tensor]) -> Agreement:
    with torch.no_grad():
        pairs = [(meant(x).float(), found(x).float()) for x in batches]
    f, g = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
    if not torch.isfinite(g).all():
        raise ExportError(f"the written network gives NaN or infinity on {on} images: nothing was kept of it")
    return Agreement.model_validate(
        {
            "on": on,
            "largest": float((f - g).abs().max()),
            "mean": float((f - g).abs().mean()),
            "logit": float(f.abs().max()),
            "labels_differ": int((f.argmax(1) != g.argmax(1)).sum()),
            "n": len(f),
        }
    )


def refuse_difference(agreements: Iterable[Agreement], what: str) -> float:
    """The tolerance, where every logit keeps within it and every label is the same.

    Raises:
        ExportError: naming what differs.
    """
    agreements = tuple(agreements)
    tolerance = TOLERANCE * max(1.0, *(one.logit for one in agreements))
    for one in agreements:
        if one.largest > tolerance or one.labels_differ:
            raise ExportError(
                f"{what} does not answer as the network does: on {one.n} {one.on} images logits differ by up to "
                f"{one.largest:.2g} ({tolerance:.2g} is allowed) and {one.labels_differ} labels; it was not kept"
            )
    return tolerance


def refuse_other_function(agreements: Iterable[Agreement]) -> None:
    """Stop where the copy that attacks are made on is not the rounded network: they would be made on another.

    Raises:
        ExportError: naming how far the two are apart.
    """
    agreements = tuple(agreements)
    apart = max(one.largest for one in agreements)
    if apart > TOLERANCE * max(1.0, *(one.logit for one in agreements)):
        raise ExportError(
            f"--int8: the straight-through copy differs from the rounded network by up to {apart:.2g}, so that it says "
            "nothing about it; please report this network, and leave out --int8"
        )


def refuse_runtime(agreements: Iterable[Agreement], rounding: Agreement, what: str) -> None:
    """Stop where the runtime's integer kernels give another network than the rounded one.

    Raises:
        ExportError: naming what differs.
    """
    for one in agreements:
        if one.on == rounding.on and one.mean > ROUNDING * max(rounding.mean, TOLERANCE):
            raise ExportError(
                f"{what} does not answer as the rounded network does: on {one.n} {one.on} images its runtime moves "
                f"logits by {one.mean:.2g} on average, rounding to int8 alone by {rounding.mean:.2g}; it was not kept. "
                "Processors without VNNI overflow in such sums: export where it is to run, or leave out --int8"
            )
