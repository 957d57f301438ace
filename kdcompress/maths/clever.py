"""CLEVER: an estimate of a lower bound on the distance to the decision boundary. It bounds nothing."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from kdcompress.maths.extremes import End, upper_end
from kdcompress.maths.norms import dual_exponent, flat_norm, full_precision, uniform_in_ball
from kdcompress.threat import Norm, ThreatModel


def clever(
    model: nn.Module,
    x: Tensor,
    label: int,
    norm: Norm,
    *,
    R: float,
    Nb: int,
    Ns: int,
    targets: Sequence[int] | None = None,
    batch_size: int,
    generator: Generator,
) -> tuple[Tensor, tuple[End, ...]]:
    """min(g(x) / L, R) for every target class j, with g = f_y - f_j; the least of them is the untargeted score.

    L estimates the largest ||grad g||_q in the ball of radius R: in each of Nb batches Ns points are drawn, uniform in
    the ball, and the largest norm among them is kept; L is where the distribution of the kept ones ends (`upper_end`).
    Source: Weng et al. (2018), arXiv:1801.10578, Algorithms 1 and 2. As in the authors' own program and in the
    Adversarial Robustness Toolbox, points are clipped to [0,1]. Departure: targets share their points.

    Guarantees:
        Exact for a linear network (away from the borders of [0,1]^D), up to R.
        The same generator state gives the same points, whatever `batch_size`.
        Never above the sample's own quotient g(x) / max ||grad g||_q.

    | case                              | score                    |
    |-----------------------------------|--------------------------|
    | misclassified, or a tie           | 0                        |
    | all gradients are zero            | R                        |
    | all norms equal                   | that quotient, or R      |
    | the fit fails                     | by the sample's maximum  |
    | a gradient that is not finite     | 0                        |

    Args:
        model: eval mode, (B, C, H, W) -> (B, K).
        x: one image (C, H, W) in [0,1].
        label: y.
        norm: of the radius, in pixel units of [0,1]; q is its dual.
        targets: classes j; None for all but y.
        batch_size: points a forward. A point costs a forward and a backward a target.

    Returns:
        Scores (J,) float64 on the CPU, in the order of the targets, and how each L was found.
    """
    with torch.no_grad():
        f = full_precision(model(x[None]))[0].double().cpu()
    chosen = [j for j in range(len(f)) if j != label] if targets is None else list(targets)
    g = f[label] - f[chosen]
    maxima = torch.stack(
        [
            _largest_norms(model, x, label, chosen, ThreatModel(norm, R), Ns, batch_size, generator)
            for _ in range(Nb if bool((g > 0).any()) else 0)
        ]
        or [torch.zeros(len(chosen))]
    ).double()
    ends = [upper_end(column.numpy()) for column in maxima.T]
    L = torch.tensor([end for end, _ in ends], dtype=torch.float64)
    score = torch.where(L == 0, torch.inf, g / L).nan_to_num(0.0, torch.inf).clamp(0.0, R)
    return torch.where(g > 0, score, 0.0), tuple(how for _, how in ends)


def _largest_norms(
    model: nn.Module,
    x: Tensor,
    label: int,
    targets: Sequence[int],
    ball: ThreatModel,
    Ns: int,
    batch_size: int,
    generator: Generator,
) -> Tensor:
    """The largest ||grad (f_y - f_j)||_q among Ns points, (J,); NaN where one is."""
    points = (x + uniform_in_ball(x.expand(Ns, *x.shape), ball, generator)).clamp(0, 1)
    q = dual_exponent(ball.norm)
    norms = []
    for part in torch.split(points, batch_size):
        with torch.enable_grad():
            at = part.detach().requires_grad_()
            f = full_precision(model(at))
            margins = [(f[:, label] - f[:, j]).sum() for j in targets]
            gradients = [torch.autograd.grad(margin, at, retain_graph=True)[0] for margin in margins]
        norms.append(torch.stack([flat_norm(full_precision(gradient), q) for gradient in gradients]))
    return torch.cat(norms, 1).amax(1).cpu()
