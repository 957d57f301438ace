"""Wide ResNets in the layout of TRADES and most robust checkpoints since.

B batch, C channels, K classes. Names of modules are those of the published checkpoints.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class CifarWideResNet(nn.Module):
    """conv1, block1 ... blockN of pre-activation blocks, bn1, ReLU, mean over positions, fc.

    Source: Zagoruyko and Komodakis (2016), arXiv:1605.07146. Dropout, which has no weights, is left out: the networks
    are used in eval mode.

    Args:
        layers: blocks in each group; the first block of every group but the first has stride 2.
        widths: width of each group.
        stem: channels after the first convolution.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int] = (5, 5, 5),
        widths: Sequence[int] = (160, 320, 640),
        stem: int = 16,
        channels: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.groups = [f"block{number}" for number in range(1, len(layers) + 1)]
        before = stem
        for number, (name, count, width) in enumerate(zip(self.groups, layers, widths, strict=True)):
            self.add_module(name, _Group(count, before, width, stride=2 if number else 1))
            before = width
        self.bn1 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        features = self.conv1(inputs)
        for name in self.groups:
            features = self.get_submodule(name)(features)
        logits: Tensor = self.fc(F.relu(self.bn1(features)).mean((2, 3)))
        return logits


class _Group(nn.Module):
    def __init__(self, count: int, before: int, width: int, stride: int) -> None:
        super().__init__()
        blocks = [_Block(width if index else before, width, 1 if index else stride) for index in range(count)]
        self.layer = nn.Sequential(*blocks)

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layer(inputs)
        return features


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        projects = stride != 1 or before != width
        self.convShortcut = nn.Conv2d(before, width, 1, stride=stride, bias=False) if projects else None

    def forward(self, inputs: Tensor) -> Tensor:
        active = F.relu(self.bn1(inputs))
        features = self.conv2(F.relu(self.bn2(self.conv1(active))))
        # Where the width changes, the shortcut too starts from the activated features.
        carried = inputs if self.convShortcut is None else self.convShortcut(active)
        total: Tensor = carried + features
        return total
