"""Ways to fit a timm network to the size of its images: arguments where it takes them, altered strides where not."""

import inspect
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from torch import nn

from kdcompress.errors import UsageError
from kdcompress.models.arguments import as_python_value
from kdcompress.models.record import Change, ModelRecord
from kdcompress.models.small_images import (
    Shape,
    StridedModule,
    default_stride,
    planned_changes,
    strided_modules,
    total_stride,
)

# Set from the data, or by timm for its own loading of files.
RESERVED = frozenset(inspect.signature(timm.create_model).parameters) | {
    "num_classes",
    "in_chans",
    "features_only",
    "device",
    "dtype",
}


def candidates(original: nn.Module, plain: ModelRecord, stride: int | None) -> Iterator[tuple[ModelRecord, int]]:
    """Ways to fit the network to its images, the best first, each with the total stride that would suit.

    Whether one works, and which stride it comes to, is for the caller to try.

    Args:
        original: the network that `plain` builds.
        plain: the record without changes.
        stride: the total stride asked for; by the rule of `create_student` if None.

    Raises:
        UsageError: if the network does not even run at its own size, or `stride` is larger than its own.
    """
    accepted = set(accepted_arguments(original))
    height, width = plain.input_size[1:]
    side = min(height, width)
    native = _native_size(original, plain)
    sized = "img_size" in accepted and "img_size" not in plain.args
    at_size = {"img_size": _image_size(height, width)} if sized and (height, width) != native[1:] else {}

    def record(extra: Mapping[str, Any], changes: tuple[Change, ...] = ()) -> ModelRecord:
        return plain.model_copy(update={"args": {**plain.args, **extra}, "changes": changes})

    if stride is None and side >= min(native[1:]):
        yield record(at_size), max(height, width)  # any stride will do
        if at_size:
            yield record({}), max(height, width)
        return

    try:
        native_stride = total_stride(original, native)
        strided = strided_modules(original, native)
    except Exception as error:
        raise UsageError(
            f"--student {plain.arch} must run at its own size {native[1]}x{native[2]}, but fails: {one_line(error)}; "
            "check --student-arg, or choose another --student"
        ) from error
    if stride is not None and stride > native_stride:
        raise UsageError(f"--student-stride must be at most {native_stride}, the stride of {plain.arch}, got {stride}")

    def surgery(extra: Mapping[str, Any], goal: int) -> Iterator[tuple[ModelRecord, int]]:
        try:
            changes = planned_changes(original, strided, native_stride // goal)
        except Exception:  # a strided module that does not run alone
            return
        if changes is not None:
            yield record(extra, changes), best

    patch = _patch_size(original, strided) if {"img_size", "patch_size"} <= accepted else None
    later = native_stride if patch is None else max(1, native_stride >> round(math.log2(patch)))
    # Tokens of one resolution from end to end: 8x8 of them; a pyramid ends in 4x4 like a convolutional network.
    best = stride or min(default_stride(side, 8 if later == 1 else 4), native_stride)
    for goal in [stride] if stride is not None else _nearest_strides(best, native_stride):
        if patch is not None and "patch_size" not in plain.args:
            yield record({**at_size, "patch_size": min(patch, max(1, goal // later))}), best
        if at_size:
            # The network works out its later resolutions from img_size and its own strides; where those are altered
            # afterwards, it must be told the size that leads to the same resolutions.
            times = native_stride // goal
            yield from surgery({"img_size": _image_size(height * times, width * times)}, goal)
            yield from surgery(at_size, goal)
        yield from surgery({}, goal)


def accepted_arguments(network: nn.Module) -> list[str]:
    """Names of the keyword arguments that the network's class takes."""
    names: dict[str, None] = {}
    for kind in type(network).__mro__:
        if kind is nn.Module:
            break
        parameters = inspect.signature(kind).parameters.values()
        names.update({p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)})
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in names if name != "self" and name not in RESERVED]


def one_line(error: Exception, longest: int = 200) -> str:
    """The error's own words, in one line of bounded length."""
    text = " ".join(str(error).split())
    if not text:  # a bare assert says nothing but where it stands
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "torch" not in Path(f.filename).parts]
        text = f"{type(error).__name__} at `{frames[-1].line}`" if frames else type(error).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _nearest_strides(best: int, largest: int) -> list[int]:
    """Powers of two up to `largest`: the best, then the larger ones (less surgery), then the smaller ones.

    >>> _nearest_strides(8, 32)
    [8, 16, 32, 4, 2, 1]
    """
    exponent, last = best.bit_length() - 1, largest.bit_length() - 1
    return [1 << e for e in (*range(exponent, last + 1), *reversed(range(exponent)))]


def _native_size(network: nn.Module, record: ModelRecord) -> Shape:
    """(C, H, W) of the images that the network was made for; `img_size` among its arguments counts first."""
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    size = as_python_value(record.args.get("img_size")) or config.get("input_size", (3, 224, 224))[1:]
    height, width = (size, size) if isinstance(size, int) else size
    return record.input_size[0], height, width


def _patch_size(network: nn.Module, strided: Sequence[StridedModule]) -> int | None:
    """Side of the patches that become tokens: as the network says, else the stride of its first layer."""
    declared = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(declared, tuple | list):
        declared = declared[0] if len(set(declared)) == 1 else None
    return declared if isinstance(declared, int) else next((module.stride for module in strided), None)


def _image_size(height: int, width: int) -> int | list[int]:
    # Some networks take one number only.
    return height if height == width else [height, width]
