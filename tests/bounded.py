"""Small networks that bounds can pass, and the truth about them: sampled, attacked, or enumerated."""

import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import Tensor, nn

from kdcompress.bounds.crown import crown
from kdcompress.bounds.graph import Network, trace
from kdcompress.bounds.region import Region
from kdcompress.bounds.tangents import Tangents


def ready(model: nn.Module) -> nn.Module:
    """Eval mode, no gradients for weights."""
    return model.eval().requires_grad_(False)


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The module that `build` makes under a seed, with BatchNorms that have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean = 0.3 * torch.randn_like(module.weight)
                module.running_var = 0.3 + torch.rand_like(module.weight)
                module.weight.data = torch.randn_like(module.weight)
                module.bias.data = 0.3 * torch.randn_like(module.bias)
    return ready(model)


class Residual(nn.Module):
    """Everything at once: BatchNorm, groups, strides, dilation, a shortcut, both kinds of mean, a normalised input."""

    def __init__(self, channels: int = 1, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.4))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 0.3))
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, groups=2, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width))
        self.fc = nn.Linear(2 * width, 6)
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem((x - self.mean) / self.std))
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        logits: Tensor = self.head(self.fc(F.relu(y).mean((2, 3))).relu())
        return logits


def perceptron(widths: tuple[int, ...] = (4, 6, 5, 3), seed: int = 0) -> nn.Module:
    """Linear layers with ReLUs between, over images of 1 x 1 x widths[0]."""

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return seeded(build, seed)


def tangents(network: Network, ball: Region, *, rows: int = 16, single: bool = False, precise: bool = True) -> Tangents:
    """CROWN; `single` with float32 coefficients."""
    return crown(network, network.to(torch.float32) if single else network, ball, rows=rows, precise=precise)


def traced(model: nn.Module, *shape: int) -> Network:
    return trace(model, shape)


def points(ball: Region, count: int, seed: int = 0) -> Tensor:
    """Points of the region, (count, C, H, W), float64: corners of the box or of the ball, and the inside."""
    draw = torch.Generator().manual_seed(seed)
    low, high = ball.low, ball.high
    d = low + torch.rand(count, *low.shape[1:], generator=draw, dtype=torch.float64) * (high - low)
    corner = torch.rand(count, *low.shape[1:], generator=draw) < 0.5
    d = torch.where((torch.arange(count) % 2 == 0).view(-1, 1, 1, 1), torch.where(corner, low, high), d)
    if ball.norm == "L2":
        length = d.flatten(1).norm(dim=1).clamp(min=1e-300).view(-1, 1, 1, 1)
        d = d * (ball.eps / length).clamp(max=1)
    return ball.x + d


def lowest_found(network: Network, ball: Region, functional: Tensor, steps: int = 60, starts: int = 20) -> Tensor:
    """The smallest C f(x') that descent finds, (R,), for C (R, K): an upper bound of the minimum."""
    found = []
    for row in functional:
        x = points(ball, starts, 1)
        best = torch.full((), torch.inf, dtype=torch.float64)
        for step in range(steps):
            x = x.detach().requires_grad_()
            value = network.values(x)[-1] @ row
            best = torch.minimum(best, value.detach().min())
            (gradient,) = torch.autograd.grad(value.sum(), x)
            size = ball.eps * 2 * (1 - step / steps)
            if ball.norm == "Linf":
                move = gradient.sign()
            else:
                move = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-300).view(-1, 1, 1, 1)
            x = x.detach() - size * move
            d = torch.minimum(torch.maximum(x - ball.x, ball.low), ball.high)
            if ball.norm == "L2":
                d = d * (ball.eps / d.flatten(1).norm(dim=1).clamp(min=1e-300).view(-1, 1, 1, 1)).clamp(max=1)
            x = ball.x + d
        found.append(best)
    return torch.stack(found)


def exact_minimum(model: nn.Module, ball: Region, row: Tensor) -> float:
    """min over the box of row . f(x) for a perceptron of one or two hidden layers: a linear program a ReLU pattern."""
    layers = [module for module in model if isinstance(module, nn.Linear)]  # type: ignore[attr-defined]
    weights = [(layer.weight.double().numpy(), layer.bias.double().numpy()) for layer in layers]
    sides = list(zip((ball.x + ball.low).flatten().tolist(), (ball.x + ball.high).flatten().tolist(), strict=True))
    hidden = [len(bias) for _, bias in weights[:-1]]
    best = np.inf
    for pattern in itertools.product((0, 1), repeat=sum(hidden)):
        A, b = np.eye(len(sides)), np.zeros(len(sides))
        over, limits, start = [], [], 0
        for (W, bias), width in zip(weights[:-1], hidden, strict=True):
            A, b = W @ A, W @ b + bias
            on = np.array(pattern[start : start + width])
            sign = 1 - 2 * on  # on: -(A x + b) <= 0
            over.append(sign[:, None] * A)
            limits.append(-sign * b)
            A, b, start = on[:, None] * A, on * b, start + width
        W, bias = weights[-1]
        goal, rest = row.numpy() @ W @ A, float(row.numpy() @ (W @ b + bias))
        answer = linprog(goal, np.vstack(over), np.concatenate(limits), bounds=sides)
        if answer.status == 0:
            best = min(best, answer.fun + rest)
    return float(best)
