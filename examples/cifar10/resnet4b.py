"""The network behind a published robust checkpoint, as a factory: --teacher-arch examples/cifar10/resnet4b.py:resnet4b.

"ResNet-4B", trained for CIFAR-10 at Linf 2/255 by Wang et al. (2021), arXiv:2103.06624 (VNN-COMP 2021 benchmark).
Its layout is nobody's standard one, which is what a factory of your own is for: attribute names are the checkpoint's.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """relu(conv2(relu(conv1(x))) + shortcut(x))."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet4B(nn.Module):
    """Inputs (B, 3, 32, 32), normalised; logits (B, 10). No BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1))
        self.layer2 = nn.Sequential(Block(32, 32, 2), Block(32, 32, 1))
        self.linear1 = nn.Linear(32 * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = self.layer2(self.layer1(x)).flatten(1)
        return self.linear2(F.relu(self.linear1(x)))


def resnet4b() -> nn.Module:
    """The factory."""
    return ResNet4B()
