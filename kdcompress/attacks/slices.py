"""A network whose calls are cut into slices: an attack's batch stays what it is, and memory is that of one slice."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Sliced(nn.Module):
    """x (B, C, H, W) -> logits (B, K), at most `size` images a forward.

    Where gradients are asked for, a slice keeps its inputs alone and is computed again on the way back: half as much
    work more, and the activations of one slice in memory instead of the batch's. A batch of at most `size` images goes
    through as it is.

    Attributes:
        size: images a forward; may be lowered between calls.
        work: forwards of one image so far, a backward counted as two.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.work = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, C, H, W)."""
        self.work += len(x)
        logits = self._in_slices(x)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count_backward(len(x)))  # type: ignore[no-untyped-call]  # one forward may see several
        return logits

    def _in_slices(self, x: Tensor) -> Tensor:
        if len(x) <= self.size:
            whole: Tensor = self.model(x)
            return whole
        parts = [x[start : start + self.size] for start in range(0, len(x), self.size)]
        if not (torch.is_grad_enabled() and x.requires_grad):
            return torch.cat([self.model(part) for part in parts])
        return torch.cat([checkpoint(self.model, part, use_reentrant=False) for part in parts])

    def _count_backward(self, images: int) -> None:
        self.work += 2 * images
