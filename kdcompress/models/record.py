"""What a model file must say so that the network can be rebuilt from it alone."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Rows = Annotated[int, Field(ge=0, le=64)]
"""Patches are at most 64 pixels wide, and a pad is smaller."""


Positive = Annotated[int, Field(ge=1)]


class Change(BaseModel):
    """One module of the timm network altered for small images: a smaller stride, or a pool removed.

    Attributes:
        module: its name in the network, as in `named_modules()`.
        action: the stride it was given, or that an identity stands in its place.
        pad: zero rows and columns put before and after its input, so that its output is input / stride.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    action: Literal["stride 1", "stride 2", "stride 4", "stride 8", "stride 16", "removed"]
    pad: tuple[Rows, Rows] = (0, 0)


class Shrunk(BaseModel):
    """What pruning left of the network that the rest of the record builds.

    Attributes:
        sizes: by module, by attribute (`out_channels`, `num_features`, `head_dim`, ...), what is left of it.
        shapes: by parameter or buffer, the shape that is left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: dict[str, dict[str, Positive | tuple[Positive, ...]]]
    shapes: dict[str, tuple[Positive, ...]]


class ModelRecord(BaseModel):
    """Everything but the weights. Stored in the metadata of the safetensors file and in its JSON sidecar.

    Attributes:
        source: who builds the network: timm, a layout of `kdcompress.models.layouts`, or a user's factory.
        arch: the timm name, the layout's name, or the factory's `module:function` or `file.py:function`.
        args: keyword arguments of the builder.
        input_size: (C, H, W) of the images the network was made for.
        classes: class names, in the order of the logits.
        mean, std: per-channel normalisation in units of [0,1]; None where inputs enter as they are.
        changes: what was altered in the built network, in order.
        shrunk: what pruning took from it afterwards; None where nothing was pruned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    source: Literal["timm", "layout", "factory"]
    arch: str
    args: dict[str, Any] = {}
    input_size: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    changes: tuple[Change, ...] = ()
    shrunk: Shrunk | None = None
