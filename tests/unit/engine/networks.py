"""Small students, smooth and with kinks, with dropout and BatchNorm, and one whose layer has no second derivative."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CLASSES = 3
Batch = tuple[Tensor, Tensor, Tensor]


class Once(Function):
    """tanh without a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return dy * (1 - y * y)


class OnceLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = Once.apply(x)
        return y


def student(middle: Callable[[], nn.Module], dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        middle(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(6 * 36, CLASSES),
    ).train()
