"""Projected gradient descent."""

import torch
from torch import Generator, Tensor, nn

from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.norms import project, steepest, uniform_in_ball
from kdcompress.threat import ThreatModel


def pgd(
    model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel, *, steps: int, generator: Generator
) -> Tensor:
    """x + delta after `steps` ascent steps on CE from a random start: (B, C, H, W) in [0,1] and in the ball.

    delta <- project(delta + a steepest(grad_x CE(f(x + delta), y))) with a = 2.5 eps / steps. Of all iterates the one
    of largest CE among the misclassified, or among all where none is. Source: Madry et al. (2018), arXiv:1706.06083.

    Guarantees:
        ||x_adv - x|| <= eps (to rounding) and x_adv in [0,1].
        The loss at the answer is never below the loss at the random start, unless the answer is misclassified.
        Where any iterate is misclassified, so is the answer: a later step never loses a success.

    Args:
        model: eval mode; its parameters receive no gradient.
        inputs: (B, C, H, W) in [0,1].
        labels: (B,).
        generator: draws the random start.
    """
    a = 2.5 * threat.eps / steps
    x = into_ball(inputs, uniform_in_ball(inputs, threat, generator), threat)
    best = x
    best_loss = torch.full((len(x),), -torch.inf, device=x.device)
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step in range(steps + 1):
        # The gradient at the last iterate is one backward too many: a tenth of PGD-10, for one path to read.
        logits, gradient = logits_and_input_gradient(model, x, labels, create_graph=False)
        loss, wrong = cross_entropy(logits, labels), logits.argmax(1) != labels
        better = (wrong & ~fooled) | ((wrong == fooled) & (loss > best_loss))
        best = torch.where(better.view(-1, 1, 1, 1), x, best)
        best_loss, fooled = torch.where(better, loss, best_loss), fooled | wrong
        if step < steps:
            x = into_ball(inputs, x - inputs + a * steepest(gradient, threat.norm), threat)
    return best


def perturb(
    model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel, *, steps: int, generator: Generator
) -> Tensor:
    """The last PGD iterate: what adversarial training (and an inner attack) needs, in `steps` forward-backwards."""
    a = 2.5 * threat.eps / steps
    x = into_ball(inputs, uniform_in_ball(inputs, threat, generator), threat)
    for _ in range(steps):
        _, gradient = logits_and_input_gradient(model, x, labels, create_graph=False)
        x = into_ball(inputs, x - inputs + a * steepest(gradient, threat.norm), threat)
    return x


def into_ball(inputs: Tensor, delta: Tensor, threat: ThreatModel) -> Tensor:
    """x + delta in the ball and in [0,1]: clipping to [0,1] after projecting shortens every entry, so both hold."""
    return (inputs + project(delta, threat)).clamp(0, 1)
