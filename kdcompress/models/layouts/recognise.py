"""Which layout a state dict is in, and with which depth, widths, channels and classes: read from keys and shapes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdcompress.errors import UsageError, did_you_mean
from kdcompress.models.layouts.deepmind import DeepMindPreActResNet, DeepMindWideResNet
from kdcompress.models.layouts.residual import CifarPreActResNet, CifarResNet
from kdcompress.models.layouts.wide import CifarWideResNet
from kdcompress.models.states import BOOKKEEPING

Arguments = dict[str, Any]

LAYOUTS: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet": CifarResNet,
    "cifar_preact_resnet": CifarPreActResNet,
    "cifar_wide_resnet": CifarWideResNet,
    "deepmind_wide_resnet": DeepMindWideResNet,
    "deepmind_preact_resnet": DeepMindPreActResNet,
}

# Arguments that leave no trace in the weights and for which there is no usual value: the user must name them.
UNREADABLE = {"deepmind_wide_resnet": "activation", "deepmind_preact_resnet": "activation"}


def build_layout(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The network of layout `name` with fresh weights.

    Raises:
        UsageError: if the layout or an argument is unknown or makes no sense.

    >>> build_layout("cifar_wide_resnet", {"layers": [1, 1, 1], "widths": [4, 8, 8]})(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if name not in LAYOUTS:
        raise UsageError(f"expected one of the layouts {', '.join(LAYOUTS)}, got {name}{did_you_mean(name, LAYOUTS)}")
    try:
        return LAYOUTS[name](**args)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        text = str(error).rpartition("__init__() ")[2]
        raise UsageError(f"the layout {name} cannot be built from its arguments: {text}") from error


def recognise(state: Mapping[str, Tensor]) -> tuple[str, Arguments] | None:
    """(layout, arguments) of a state dict without prefixes, or None.

    Guarantees:
        `build_layout` makes of them exactly the weights of `layout_state(name, state)`, in name and shape; where the
        layout is in `UNREADABLE`, that argument has to be added.
    """
    for name in LAYOUTS:
        if (args := read_arguments(name, state)) is not None and _fits(name, args, layout_state(name, state)):
            return name, args
    return None


def read_arguments(name: str, state: Mapping[str, Tensor]) -> Arguments | None:
    """The arguments of layout `name` as far as the weights tell; None if they are plainly of another layout.

    What the weights cannot tell, but for `UNREADABLE`, is set to what published robust checkpoints use; see
    `assumption`.
    """
    try:
        return _READERS[name](state)
    except (KeyError, IndexError):
        return None


def assumption(name: str, read: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """What `read_arguments` assumed and the user did not give, as a sentence, or None."""
    if name == "cifar_preact_resnet" and "shortcut_from" not in given:
        used, other = read["shortcut_from"], {"input": "activation", "activation": "input"}[read["shortcut_from"]]
        return (
            f"the weights do not tell what the shortcuts' convolutions see: assumed shortcut_from={used}; if the "
            f"accuracy is lower than published, try {other}"
        )
    if name == "cifar_resnet" and "pool" not in given and read["shortcut"] == "downsample":
        return (
            "the weights do not tell whether a max-pool follows the first convolution: assumed pool=False; if the "
            "accuracy is lower than published, try True"
        )
    return None


def layout_state(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without weights that the layout carries but never uses."""
    # TRADES' code builds the first group of blocks twice and runs one of them.
    unused = "sub_block1." if name == "cifar_wide_resnet" else None
    return {key: value for key, value in state.items() if unused is None or not key.startswith(unused)}


def _fits(name: str, args: Arguments, state: Mapping[str, Tensor]) -> bool:
    try:
        with torch.device("meta"):
            own = build_layout(name, args | {key: "relu" for key in [UNREADABLE.get(name)] if key}).state_dict()
    except UsageError:
        return False
    return _shapes(own) == _shapes(state)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items() if not key.endswith(BOOKKEEPING)}


def _read_resnet(state: Mapping[str, Tensor]) -> Arguments:
    if "bn1.weight" not in state:  # what tells it from the pre-activation layout
        raise KeyError("bn1.weight")
    keys = " ".join(state)
    projection = next((name for name in ("shortcut", "downsample") if f".{name}.0.weight" in keys), "pad")
    head = "linear" if "linear.weight" in state else "fc"
    block = _read_block(state)
    return block | _read_sizes(state, "conv1", "layer{}.{}.conv1", 1, head) | {"shortcut": projection, "head": head}


def _read_preact(state: Mapping[str, Tensor]) -> Arguments:
    args = _read_block(state) | _read_sizes(state, "conv1", "layer{}.{}.conv1", 1, "linear")
    args["final_norm"] = "bn.weight" in state
    # Both are in use. Networks with a final BatchNorm mostly follow the paper; those of two 3x3 without one mostly not.
    args["shortcut_from"] = "activation" if args["final_norm"] or args["block"] == "bottleneck" else "input"
    return args


def _read_block(state: Mapping[str, Tensor]) -> Arguments:
    return {"block": "bottleneck" if "layer1.0.conv3.weight" in state else "basic"}


def _read_wide(state: Mapping[str, Tensor]) -> Arguments:
    return _read_sizes(state, "conv1", "block{}.layer.{}.conv1", 1, "fc")


def _read_deepmind_wide(state: Mapping[str, Tensor]) -> Arguments:
    return _read_sizes(state, "init_conv", "layer.{}.block.{}.conv_0", 0, "logits")


def _read_deepmind_preact(state: Mapping[str, Tensor]) -> Arguments:
    return _read_sizes(state, "conv_2d", "layer_{}.{}.conv_2d_1", 0, "logits")


_READERS: dict[str, Callable[[Mapping[str, Tensor]], Arguments]] = {
    "cifar_resnet": _read_resnet,
    "cifar_preact_resnet": _read_preact,
    "cifar_wide_resnet": _read_wide,
    "deepmind_wide_resnet": _read_deepmind_wide,
    "deepmind_preact_resnet": _read_deepmind_preact,
}


def _read_sizes(state: Mapping[str, Tensor], stem: str, first_conv: str, start: int, head: str) -> Arguments:
    """Depth and sizes from the first convolution of every block, `first_conv` with stage (from `start`) and block."""
    layers: list[int] = []
    widths: list[int] = []
    while (key := f"{first_conv.format(start + len(layers), 0)}.weight") in state:
        widths.append(state[key].shape[0])
        layers.append(sum(f"{first_conv.format(start + len(layers), i)}.weight" in state for i in range(len(state))))
    if not layers:
        raise KeyError(first_conv)
    return {
        "layers": layers,
        "widths": widths,
        "stem": state[f"{stem}.weight"].shape[0],
        "channels": state[f"{stem}.weight"].shape[1],
        "classes": state[f"{head}.weight"].shape[0],
    }
