"""CIFAR ResNets: a 3x3 stem with stride 1, then stages of residual blocks, activation before or after the sum.

B batch, C channels, K classes. Names of modules are those of the published checkpoints.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

BlockKind = Literal["basic", "bottleneck"]
Shortcut = Literal["shortcut", "downsample", "pad"]
Head = Literal["linear", "fc"]
ShortcutFrom = Literal["input", "activation"]
EXPANSION = {"basic": 1, "bottleneck": 4}


class CifarResNet(nn.Module):
    """A ResNet for small images: conv1, bn1, layer1 ... layerN, mean over positions, classifier.

    Source: He et al. (2016), arXiv:1512.03385, section 4.2, and its widespread four-stage variant for CIFAR.

    Args:
        block: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 with four times the width).
        layers: blocks in each stage; the first block of every stage but the first has stride 2.
        widths: width of each stage.
        stem: channels after the stem.
        shortcut: name of a block's projection, 1x1 convolution and BatchNorm (`shortcut` or `downsample`); with `pad`
            there are no weights: every second pixel is taken, and missing channels are zero.
        head: name of the classifier, `linear` or `fc`.
        pool: a 3x3 max-pool with stride 2 after the stem. The weights cannot tell.
    """

    def __init__(
        self,
        *,
        block: BlockKind = "basic",
        layers: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        channels: int = 3,
        classes: int = 10,
        shortcut: Shortcut = "shortcut",
        head: Head = "linear",
        pool: bool = False,
    ) -> None:
        super().__init__()
        _check_choice("block", block, BlockKind)
        _check_choice("shortcut", shortcut, Shortcut)
        _check_choice("head", head, Head)
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if pool else None
        self.stages = [f"layer{number}" for number in range(1, len(layers) + 1)]
        before = stem
        for number, (name, count, width) in enumerate(zip(self.stages, layers, widths, strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if number and not index else 1
                blocks.append(_Block(block, before, width, stride, shortcut))
                before = width * EXPANSION[block]
            self.add_module(name, nn.Sequential(*blocks))
        self.head = head
        self.add_module(head, nn.Linear(before, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        features = F.relu(self.bn1(self.conv1(inputs)))
        if self.pool is not None:
            features = self.pool(features)
        for name in self.stages:
            features = self.get_submodule(name)(features)
        logits: Tensor = self.get_submodule(self.head)(features.mean((2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, kind: BlockKind, before: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.depth = _add_convolutions(self, kind, before, width, stride, norms="after")
        after = width * EXPANSION[kind]
        self.stride, self.missing = stride, after - before
        self.shortcut_name = shortcut
        if shortcut != "pad" and (stride != 1 or self.missing):
            projection = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.add_module(shortcut, nn.Sequential(projection, nn.BatchNorm2d(after)))

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs
        for number in range(1, self.depth + 1):
            features = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(features))
            if number < self.depth:
                features = F.relu(features)
        return F.relu(features + self._carried(inputs))

    def _carried(self, inputs: Tensor) -> Tensor:
        if self.stride == 1 and not self.missing:
            return inputs
        if self.shortcut_name == "pad":
            low = self.missing // 2
            return F.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, low, self.missing - low))
        carried: Tensor = self.get_submodule(self.shortcut_name)(inputs)
        return carried


class CifarPreActResNet(nn.Module):
    """A ResNet whose blocks begin with BatchNorm and ReLU: conv1, layer1 ... layerN, (bn), mean, linear.

    Source: He et al. (2016), arXiv:1603.05027.

    Args:
        final_norm: whether BatchNorm `bn` and ReLU follow the last stage.
        shortcut_from: what a block's projection sees, its input or the input after BatchNorm and ReLU. Both are in
            use under the same names and shapes, so the weights cannot tell.
        block, layers, widths, stem, channels, classes: as in `CifarResNet`.
    """

    def __init__(
        self,
        *,
        block: BlockKind = "basic",
        layers: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        channels: int = 3,
        classes: int = 10,
        final_norm: bool = False,
        shortcut_from: ShortcutFrom = "activation",
    ) -> None:
        super().__init__()
        _check_choice("block", block, BlockKind)
        _check_choice("shortcut_from", shortcut_from, ShortcutFrom)
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.stages = [f"layer{number}" for number in range(1, len(layers) + 1)]
        before = stem
        for number, (name, count, width) in enumerate(zip(self.stages, layers, widths, strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if number and not index else 1
                blocks.append(_PreActBlock(block, before, width, stride, shortcut_from))
                before = width * EXPANSION[block]
            self.add_module(name, nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(before) if final_norm else None
        self.linear = nn.Linear(before, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        features = self.conv1(inputs)
        for name in self.stages:
            features = self.get_submodule(name)(features)
        if self.bn is not None:
            features = F.relu(self.bn(features))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


class _PreActBlock(nn.Module):
    def __init__(self, kind: BlockKind, before: int, width: int, stride: int, shortcut_from: str) -> None:
        super().__init__()
        self.depth = _add_convolutions(self, kind, before, width, stride, norms="before")
        after = width * EXPANSION[kind]
        self.shortcut_from = shortcut_from
        self.shortcut: nn.Module | None = None
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False))

    def forward(self, inputs: Tensor) -> Tensor:
        carried, features = inputs, inputs
        for number in range(1, self.depth + 1):
            features = F.relu(self.get_submodule(f"bn{number}")(features))
            if number == 1 and self.shortcut is not None:
                carried = self.shortcut(features if self.shortcut_from == "activation" else inputs)
            features = self.get_submodule(f"conv{number}")(features)
        return features + carried


def _add_convolutions(
    module: nn.Module, kind: BlockKind, before: int, width: int, stride: int, *, norms: Literal["before", "after"]
) -> int:
    """Add conv1, bn1, conv2, bn2 (and conv3, bn3) to `module`; a bottleneck's stride is in its 3x3.

    Returns:
        The number of convolutions.
    """
    if kind == "basic":
        sizes = [(before, width, 3, stride), (width, width, 3, 1)]
    else:
        sizes = [(before, width, 1, 1), (width, width, 3, stride), (width, width * EXPANSION[kind], 1, 1)]
    for number, (a, b, kernel, step) in enumerate(sizes, start=1):
        module.add_module(f"conv{number}", nn.Conv2d(a, b, kernel, stride=step, padding=kernel // 2, bias=False))
        module.add_module(f"bn{number}", nn.BatchNorm2d(a if norms == "before" else b))
    return len(sizes)


def _check_choice(name: str, value: object, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value}")
