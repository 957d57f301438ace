"""Inner attacks: where a training step looks for its inputs, whatever it climbs."""

import torch
from torch import Generator, Tensor, nn

from kdcompress.attacks.ascent import Objective
from kdcompress.attacks.pgd import free, into_ball
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.norms import gaussian, steepest, uniform_in_ball
from kdcompress.threat import ThreatModel

NEAR = 0.001
"""Standard deviation of a start beside x. A divergence from what a network says at x has no gradient at x itself."""
FEW = {1: 1.25, 2: 0.75}
"""Step sizes over eps, by the number of steps, where 2.5 / steps is too much.

Two steps, `--recipe rslad --inner-steps 2` on digits as in examples/benchmarks, held-out PGD-10 accuracy of the best
and the last weights by seed, one thread of a shared two-core Xeon, torch 2.15, 2026-11-30:

| a / eps | seed 0      | seed 1      | seed 2      |
|---------|-------------|-------------|-------------|
| .625    | .650, .642  | .629, .621  |             |
| .75     | .654, .654  | .646, .646  | .625, .625  |
| 1       | .646, .637  | .621, .613  | .621, .608  |
| 1.25    | .504, .129  |             |             |

By 1.25, from beside x, most entries end at the ball's edge. Other starts, L2 and L1 were not measured.
"""


def climb(objective: Objective, inputs: Tensor, start: Tensor, threat: ThreatModel, *, steps: int) -> Tensor:
    """The last of `steps` iterates of PGD, (B, C, H, W) in the ball and in [0,1]; `steps` forward-backwards.

    delta <- project(delta + a steepest(grad objective)) with a = 2.5 eps / steps, of few as in `FEW`. Ten steps at
    8/255 are the literature's steps of 2/255; one step is that of Wong, Rice and Kolter (2020), arXiv:2001.03994.

    Args:
        objective: of networks in eval mode.
        start: (B, C, H, W); brought into the ball.
    """
    a = FEW.get(steps, 2.5 / steps) * threat.eps
    x = into_ball(inputs, start - inputs, threat)
    for _ in range(steps):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(at).sum(), at)
        x = into_ball(inputs, x - inputs + a * steepest(free(gradient, x, threat), threat.norm), threat)
    return x


def anywhere(inputs: Tensor, threat: ThreatModel, generator: Generator) -> Tensor:
    """A start uniform in the ball, (B, C, H, W): Madry et al. (2018), arXiv:1706.06083."""
    return inputs + uniform_in_ball(inputs, threat, generator)


def beside(inputs: Tensor, generator: Generator) -> Tensor:
    """A start x + N(0, NEAR^2), (B, C, H, W): Zhang et al. (2019), arXiv:1901.08573."""
    return inputs + gaussian(inputs, NEAR, generator)


def perturb(
    model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel, *, steps: int, generator: Generator
) -> Tensor:
    """The last PGD iterate on CE from a uniform start: what adversarial training needs. `model` is in eval mode."""
    start = anywhere(inputs, threat, generator)
    return climb(lambda x: cross_entropy(model(x), labels), inputs, start, threat, steps=steps)
