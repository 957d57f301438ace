"""One batch forwards and backwards, in as many parts as memory asks for.

Parts, not recomputed activations: checkpointing survives the double backward (cosine 1.0000000), but spares nothing,
since the graph of the input gradient keeps what was recomputed, and it moves BatchNorm's statistics twice. Megabytes
held after forward and after input gradient, batch 8 of 3x64x64 (`tests/benchmark/recomputation.py`, CPU, torch 2.15):

| network         | plain       | checkpointed |
|-----------------|-------------|--------------|
| ResNet-18       | 59.3   71.8 | 8.1   73.7   |
| MobileNetV2 050 | 30.9   49.9 | 4.0   49.9   |
| ConvNeXt atto   | 34.1   54.3 | 4.6   52.8   |
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdcompress.devices import out_of_memory
from kdcompress.errors import TrainingError
from kdcompress.progress import Listener
from kdcompress.training.recipes import Recipe

Batch = tuple[Tensor, ...]
"""Inputs (B, C, H, W) in [0,1], labels (B,), and from a teacher cache the lesson: each B long."""


class Backward:
    """Adds the gradient of a batch's mean loss to the weights, one part of the batch after the other.

    Without BatchNorm the parts do not matter, but to rounding. With it each has statistics of its own, which is said.

    Args:
        micro_batch: the most images whose graph is in memory at once; None for all. Where memory runs out on an
            accelerator it is halved, said, and the batch taken again.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, precision: str, listener: Listener, micro_batch: int | None = None
    ) -> None:
        self.model, self.recipe, self.precision, self.listener = model, recipe, precision, listener
        self.micro_batch = micro_batch
        self.is_split = False

    def __call__(
        self, batch: Batch, weights: dict[str, float], take_back: Callable[[], None] | None = lambda: None
    ) -> dict[str, Tensor]:
        """The batch's mean of every term, unweighted, and of their weighted sum, `loss`; detached.

        Args:
            take_back: called before a batch is taken again: its first forward has moved BatchNorm's statistics. None:
                it cannot be taken again, since other processes share its statistics and wait for none twice.

        Raises:
            TrainingError: where memory runs out for good.
        """
        B = len(batch[0])
        while True:
            parts = parts_of(B, self.micro_batch or B)
            if parts > 1 and not self.is_split:
                self.listener.note(self._told(B, parts))
                self.is_split = True
            try:
                return self._in_parts(batch, weights, parts)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if 4 * parts > B:
                    raise TrainingError(
                        f"out of memory, even with {math.ceil(B / parts)} images at a time; use a smaller --image-size "
                        "or student, --recipe kd or --iga-weight 0 (no second derivatives), or a larger device"
                    ) from error
                if take_back is None:
                    raise TrainingError(
                        "out of memory, with statistics over all processes; "
                        f"--iga-micro-batch {B // (2 * parts)} takes a batch in smaller parts"
                    ) from error
            # Outside the handler, which holds the failed graph.
            self.micro_batch, self.is_split = B // (2 * parts), False
            self.listener.note(
                "out of memory: the batch is taken again in smaller parts; "
                f"--iga-micro-batch {self.micro_batch} asks for them from the start"
            )
            for weight in self.model.parameters():
                weight.grad = None
            take_back()

    def _in_parts(self, batch: Batch, weights: dict[str, float], parts: int) -> dict[str, Tensor]:
        means: dict[str, Tensor] = {}
        for part in zip(*(tensor.tensor_split(parts) for tensor in batch), strict=True):
            share = len(part[0]) / len(batch[0])
            with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                terms = {
                    name: share * term.mean() for name, term in self.recipe.terms(self.model, weights, *part).items()
                }
            loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            for name, value in (terms | {"loss": loss}).items():
                means[name] = means[name] + value.detach() if name in means else value.detach()
        return means

    def _told(self, batch_size: int, parts: int) -> str:
        most = math.ceil(batch_size / parts)
        coupled = has_batch_norm(self.model)
        effect = f"; BatchNorm takes its statistics over them, not over {batch_size}" if coupled else ""
        return f"a batch goes through in {parts} parts of at most {most} images{effect}"


def has_batch_norm(model: nn.Module) -> bool:
    """Whether an image's logits depend on the others of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def parts_of(images: int, most: int) -> int:
    """In how many parts of at most `most` images a batch goes; of equal size where up to twice as many make them so.

    Compiled code is for one size, and a part of one image is too few for BatchNorm.

    >>> parts_of(128, 128), parts_of(128, 22), parts_of(9, 4), parts_of(97, 50)
    (1, 8, 3, 2)
    """
    least = math.ceil(images / most)
    even = (parts for parts in range(least, 2 * least + 1) if images % parts == 0 and images // parts > 1)
    return next(even, least)
