"""A network with steps in it, differentiated as if they were not there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Not the in-place ones: what the network calls on a tensor for its effect must have that effect.
SIGNS = {torch.sign, Tensor.sign}
ROUNDS = {torch.round, Tensor.round, torch.floor, Tensor.floor, torch.ceil, Tensor.ceil, torch.trunc, Tensor.trunc}


class StraightThrough(nn.Module):
    """The same function with gradients: rounding passes them on as they are, sign where its argument is in [-1, 1].

    Source: Bengio, Leonard and Courville (2013), arXiv:1308.3432; for sign Hubara et al. (2016), arXiv:1602.02830; as
    an attack, BPDA, Athalye, Carlini and Wagner (2018), arXiv:1802.00420.

    Guarantees:
        The outputs are the network's own, to rounding.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, C, H, W)."""
        with _Steps():
            logits: Tensor = self.model(x)
        return logits


class _Steps(TorchFunctionMode):
    """Rounds and signs, as torch's functions and tensors' methods call them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in SIGNS | ROUNDS or not torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        x, *rest = args if args else (kwargs.pop("input"),)
        stepped = func(x.detach(), *rest, **kwargs)
        passed = x.clamp(-1, 1) if func in SIGNS else x
        return stepped + (passed - passed.detach())
