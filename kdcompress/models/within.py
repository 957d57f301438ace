"""A network built from what a file says may not outgrow that file's weights: whoever wrote it could ask for any."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from kdcompress.errors import UsageError

SLACK = 4
"""How many times as much may be made on the way: heads that are replaced, weights that are tied afterwards."""
MODULES = 50
"""A tensor's share of modules without weights: activations, identities, dropout."""
SMALL = 1000
SHRUNK = 32
"""How many times as much again, where pruning is said to have taken the rest."""
NUMBERS = 10_000_000
"""Tensors or modules, and numbers, that any network may have beyond that: a default head is there for a moment."""


@contextmanager
def within(state: Mapping[str, Tensor], *, shrunk: bool = False) -> Iterator[None]:
    """While the block runs, whatever builds more than `state` could fill is stopped.

    Args:
        shrunk: what is built is then pruned to the weights.

    Raises:
        UsageError: when it does, before the memory is touched.
    """
    left = {
        "tensors": SLACK * len(state) + SMALL,
        "numbers": SLACK * (SHRUNK if shrunk else 1) * sum(value.numel() for value in state.values()) + NUMBERS,
        "modules": MODULES * len(state) + SMALL,
    }

    def take(kind: str, count: int) -> None:
        left[kind] -= count
        if left[kind] < 0:
            raise UsageError(f"it describes a network of far more {kind} than the {len(state)} tensors beside it fill")

    def parameter(module: nn.Module, name: str, value: nn.Parameter | None) -> None:
        if value is not None:
            take("tensors", 1)
            take("numbers", value.numel())

    def submodule(module: nn.Module, name: str, value: nn.Module | None) -> None:
        take("modules", 1)

    hooks = (
        register_module_parameter_registration_hook(parameter),
        register_module_module_registration_hook(submodule),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
