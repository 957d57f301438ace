"""The wide and pre-activation ResNets of Gowal et al. and of most robust checkpoints that built on theirs.

They differ from the other layouts in names, in padding (a stride of 2 pads below and to the right only) and in that
the activation is chosen, often SiLU: their weights cannot tell which, so it must be named.
B batch, C channels, K classes.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["silu", "relu"]


class DeepMindWideResNet(nn.Module):
    """init_conv, three groups of blocks, batchnorm, activation, mean over positions, logits.

    Source: Gowal et al. (2020), arXiv:2010.03593.

    Args:
        activation: silu (also called swish) or relu.
        layers: blocks in each group; the first block of every group but the first has stride 2.
        widths: width of each group.
        stem: channels after the first convolution.
    """

    def __init__(
        self,
        *,
        activation: Activation,
        layers: Sequence[int] = (4, 4, 4),
        widths: Sequence[int] = (160, 320, 640),
        stem: int = 16,
        channels: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.activation = _activation(activation)
        self.init_conv = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        groups = []
        before = stem
        for number, (count, width) in enumerate(zip(layers, widths, strict=True)):
            groups.append(_WideGroup(count, before, width, 2 if number else 1, activation))
            before = width
        self.layer = nn.Sequential(*groups)
        self.batchnorm = nn.BatchNorm2d(before)
        self.logits = nn.Linear(before, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        features = self.activation(self.batchnorm(self.layer(self.init_conv(inputs))))
        logits: Tensor = self.logits(features.mean((2, 3)))
        return logits


class _WideGroup(nn.Module):
    def __init__(self, count: int, before: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(_WideBlock(width if i else before, width, 1 if i else stride, activation) for i in range(count))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.block(inputs)
        return features


class _WideBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activation = _activation(activation)
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(before)
        self.conv_0 = nn.Conv2d(before, width, 3, stride=stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(width)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        projects = stride != 1 or before != width
        self.shortcut = nn.Conv2d(before, width, 1, stride=stride, bias=False) if projects else None

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.activation(self.batchnorm_0(inputs))
        features = self.activation(self.batchnorm_1(self.conv_0(_padded(active, self.stride))))
        carried = inputs if self.shortcut is None else self.shortcut(active)
        total: Tensor = carried + self.conv_1(features)
        return total


class DeepMindPreActResNet(nn.Module):
    """conv_2d, layer_0 ... layer_N of pre-activation blocks, batchnorm, activation, mean over positions, logits.

    Source: Rebuffi et al. (2021), arXiv:2103.01946.

    Args:
        activation, layers, widths, stem: as in `DeepMindWideResNet`.
    """

    def __init__(
        self,
        *,
        activation: Activation,
        layers: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        channels: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.activation = _activation(activation)
        self.conv_2d = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.stages = [f"layer_{number}" for number in range(len(layers))]
        before = stem
        for number, (name, count, width) in enumerate(zip(self.stages, layers, widths, strict=True)):
            blocks = []
            for index in range(count):
                blocks.append(_PreActBlock(before, width, 2 if number and not index else 1, activation))
                before = width
            self.add_module(name, nn.Sequential(*blocks))
        self.batchnorm = nn.BatchNorm2d(before)
        self.logits = nn.Linear(before, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        features = self.conv_2d(inputs)
        for name in self.stages:
            features = self.get_submodule(name)(features)
        features = self.activation(self.batchnorm(features))
        logits: Tensor = self.logits(features.mean((2, 3)))
        return logits


class _PreActBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activation = _activation(activation)
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(before)
        self.conv_2d_1 = nn.Conv2d(before, width, 3, stride=stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(width)
        self.conv_2d_2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        projects = stride != 1 or before != width
        self.shortcut = nn.Conv2d(before, width, 3, stride=stride, bias=False) if projects else None

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.activation(self.batchnorm_0(inputs))
        # Unlike in the wide network the shortcut is 3x3 and starts from the block's input.
        carried = inputs if self.shortcut is None else self.shortcut(_padded(inputs, self.stride))
        features = self.activation(self.batchnorm_1(self.conv_2d_1(_padded(active, self.stride))))
        total: Tensor = carried + self.conv_2d_2(features)
        return total


def _padded(inputs: Tensor, stride: int) -> Tensor:
    return F.pad(inputs, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


def _activation(name: Activation) -> nn.Module:
    if name not in get_args(Activation):
        raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {name}")
    return nn.SiLU() if name == "silu" else nn.ReLU()
