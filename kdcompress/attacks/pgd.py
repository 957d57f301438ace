"""Projected gradient descent."""

import torch
from torch import Generator, Tensor, nn

from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.norms import norm_of, project, steepest, uniform_in_ball
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
            x = into_ball(inputs, x - inputs + a * steepest(free(gradient, x, threat), threat.norm), threat)
    return best


def free(gradient: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """Under L1, which moves few entries at a time: zero where x would leave [0,1], a step for nothing."""
    if threat.norm != "L1":
        return gradient
    return gradient * ((gradient > 0) & (x < 1) | (gradient < 0) & (x > 0))


def kept_in_ball(inputs: Tensor, found: Tensor, threat: ThreatModel) -> Tensor:
    """An attack's answers, (B, C, H, W): as they are where they are in the ball and in [0,1], brought back where not.

    The edge of the ball and of [0,1] is a matter of rounding: an answer 1e-6 eps + 1e-7 outside is inside, so that
    answers beside a decision boundary stay on their side of it; under L1 2e-5 eps, as the attacks' own projections sum
    thousands of entries in float32. An answer that is no number is none: the input takes its place.
    """
    found = torch.where(found.isfinite(), found, inputs)
    slack = 2e-5 if threat.norm == "L1" else 1e-6
    edge = found.clamp(0, 1)  # by a rounding or by more: no other entry moves, and the ball is not left
    inside = norm_of(edge - inputs, threat.norm) <= threat.eps * (1 + slack) + 1e-7
    return torch.where(inside.view(-1, 1, 1, 1), edge, into_ball(inputs, found - inputs, threat))


def into_ball(inputs: Tensor, delta: Tensor, threat: ThreatModel) -> Tensor:
    """x + delta in the ball and in [0,1]: clipping to [0,1] after projecting shortens every entry, so both hold."""
    return (inputs + project(delta, threat)).clamp(0, 1)
