"""Networks of which structured pruning took channels: what is left, and how it is built again."""

import torch
from torch import Tensor, nn

from kdcompress.errors import UsageError
from kdcompress.models.record import Shrunk

SIZES = (
    *("in_channels", "out_channels", "groups", "num_channels", "num_groups"),
    *("num_features", "normalized_shape", "in_features", "out_features"),
    *("num_heads", "head_dim", "attn_dim"),
)
"""Attributes by which torch's and timm's layers know how wide they are, and no others: a file may set these alone."""


def shrunk_from(whole: nn.Module, left: nn.Module) -> Shrunk:
    """What to take from `whole` so that it has the sizes and shapes of `left`, a pruned copy of it."""
    sizes: dict[str, dict[str, int | tuple[int, ...]]] = {}
    others = dict(left.named_modules())
    for name, module in whole.named_modules():
        for attribute in SIZES:
            was, now = _own(module, attribute), _own(others[name], attribute)
            if isinstance(now, int | tuple) and now != was:
                sizes.setdefault(name, {})[attribute] = now
    shapes, tensors = {}, _tensors(left)
    for name, tensor in _tensors(whole).items():
        if tensors[name].shape != tensor.shape:
            shapes[name] = tuple(tensors[name].shape)
    return Shrunk(sizes=sizes, shapes=shapes)


def shrink(network: nn.Module, shrunk: Shrunk) -> None:
    """Take from `network`, in place, what was taken: the first channels stay, whose weights are loaded afterwards.

    Raises:
        UsageError: if a module or tensor is not there, or would grow.
    """
    modules, tensors = dict(network.named_modules()), _tensors(network)
    for name, sizes in shrunk.sizes.items():
        for attribute, size in sizes.items():
            was = _own(modules.get(name), attribute)
            if attribute not in SIZES or not _smaller(size, was):
                raise UsageError(f"cannot be pruned as it says: {name}.{attribute} is {was}, not to become {size}")
            setattr(modules[name], attribute, size)
    for name, shape in shrunk.shapes.items():
        whole = tensors.get(name)
        if whole is None or not _smaller(shape, tuple(whole.shape)):
            found = None if whole is None else tuple(whole.shape)
            raise UsageError(f"cannot be pruned as it says: {name} is {found}, not to become {shape}")
        rest = whole.detach()[tuple(slice(side) for side in shape)].clone()
        owner, _, attribute = name.rpartition(".")
        is_weight = isinstance(whole, nn.Parameter)
        setattr(modules[owner], attribute, nn.Parameter(rest, whole.requires_grad) if is_weight else rest)


def _own(module: nn.Module | None, attribute: str) -> object:
    """Its value where the module itself holds it; one that it tells of an inner module's follows from that."""
    return None if module is None else vars(module).get(attribute)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _smaller(size: object, was: object) -> bool:
    if isinstance(size, tuple):
        return isinstance(was, tuple) and len(size) == len(was) and all(map(_smaller, size, was))
    return isinstance(size, int) and isinstance(was, int) and 1 <= size <= was


def same_function(one: nn.Module, other: nn.Module, x: Tensor) -> bool:
    """Whether two networks, both in eval mode, give the same logits bit by bit."""
    with torch.no_grad():
        return torch.equal(one(x), other(x))
