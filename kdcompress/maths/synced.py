"""BatchNorm over the batch of all processes, which can be differentiated twice, as PyTorch's SyncBatchNorm cannot."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.overrides import TorchFunctionMode

_IS_ON: ContextVar[bool] = ContextVar("synced", default=False)


@contextmanager
def synced(wanted: bool) -> Iterator[None]:
    """Inside, and where it is wanted, `F.batch_norm` in train mode takes its statistics over all processes."""
    if not wanted:
        yield
        return
    token = _IS_ON.set(True)
    try:
        with _Synced():
            yield
    finally:
        _IS_ON.reset(token)


def is_synced() -> bool:
    """Whether `synced` is at work: then `F.batch_norm` must be left to it."""
    return _IS_ON.get()


class _Synced(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return batch_norm(*args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `F.batch_norm`, (B, C, ...), with mean and variance over the batches of all processes.

    Two messages a layer: the variance is taken about the mean of all, since E[x^2] - E[x]^2 would cancel. Every process
    must have as many numbers; backward sends the same messages, in the same order.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x = input.float()
    over, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
    n = x.numel() // x.shape[1] * dist.get_world_size()
    mean = _sum_of_all(x.sum(over)) / n
    centred = x - mean.view(shape)
    variance = _sum_of_all(centred.square().sum(over)) / n
    with torch.no_grad():
        for running, now in ((running_mean, mean), (running_var, variance * n / max(n - 1, 1))):
            if running is not None:
                running.lerp_(now.to(running.dtype), momentum)
    y: Tensor = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        y = y * weight.view(shape)
    if bias is not None:
        y = y + bias.view(shape)
    return y.to(input.dtype)


def _sum_of_all(x: Tensor) -> Tensor:
    found: Tensor = all_reduce(x)  # type: ignore[no-untyped-call]
    return found
