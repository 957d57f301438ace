"""The largest value of any function over the ball: what attacks on other things than CE are made of.

Mean over 40 training images of `digits` of the largest value found, over the best of some 40 runs, Linf .15 and 20
steps a run (2026-11-23). `|r|`: its own ascent; `+r, -r`: one run for each sign; `ends`: +r from x + eps
steepest(grad h), -r from x - eps steepest(grad h). LLM is the remainder of CE, R that of a margin, the gap CE_s - CE_t:

| starts, runs         | LLM: teacher, KD, KDIGA | R: teacher, KD | gap: KD, KDIGA |
|----------------------|-------------------------|----------------|----------------|
| random, |r|, 2       | .74, .85, .78           | .87, .92       | .66, .88       |
| random, |r|, 4       | .80, .92, .85           | .91, .96       | .71, .91       |
| random, +r, -r, 2    | .75, .82, .71           | .85, .90       | .93, .89       |
| random, +r, -r, 4    | .79, .89, .80           | .88, .95       | .95, .94       |
| ends, +r, -r, 2      | .98, .93, .97           | .98, .96       | .91, .92       |

Under L2 (eps 1) LLM is .72, .90, .83 in row one, .85, .95, .92 in row two and .89, .90, .82 in the last: so both the
ends and a random start are taken. A step of 2.5 eps / steps, as PGD takes, finds .57, .70
and .56 of LLM (Linf) in one run of |r|; a step that falls from eps to zero .70, .84 and .75.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdcompress.attacks.pgd import into_ball
from kdcompress.maths.norms import steepest
from kdcompress.threat import ThreatModel

Objective = Callable[[Tensor], Tensor]
"""Points (B, C, H, W) -> one value a point, (B,)."""


def ascend(objective: Objective, inputs: Tensor, start: Tensor, threat: ThreatModel, *, steps: int) -> Tensor:
    """The point of largest value seen in `steps` steps from `start`, (B, C, H, W) in the ball and in [0,1].

    x + d <- project(d + a steepest(grad objective)), where a falls linearly from eps to zero.

    Guarantees:
        Never below the start's own value.
        Exact for a linear function where the ball lies in [0,1]^D (Linf, L2).

    Args:
        objective: of a network in eval mode whose parameters take no gradient.
    """
    x = into_ball(inputs, start - inputs, threat)
    best, best_value = x, torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(steps + 1):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            value = objective(at)
            (gradient,) = torch.autograd.grad(value.sum(), at)
        better = value.detach() > best_value
        best = torch.where(better.view(-1, 1, 1, 1), x, best)
        best_value = torch.where(better, value.detach().to(best_value.dtype), best_value)
        if step < steps:
            a = threat.eps * (1 - step / steps)
            x = into_ball(inputs, x - inputs + a * steepest(gradient, threat.norm), threat)
    return best


def extremes(
    r: Objective, inputs: Tensor, gradient: Tensor, threat: ThreatModel, *, steps: int, starts: Sequence[Tensor]
) -> list[Tensor]:
    """Points of large |r|, (B, C, H, W) each: +r and -r in turn, from the ball's ends along `gradient` and `starts`.

    Args:
        gradient: (B, C, H, W): of r at x, or of the function whose remainder r is.
        starts: where +r, -r, +r, ... start from too: an even number, commonly drawn by chance.
    """
    end = threat.eps * steepest(gradient, threat.norm)
    signs: tuple[Objective, Objective] = (r, lambda x: -r(x))
    return [
        ascend(signs[place % 2], inputs, start, threat, steps=steps)
        for place, start in enumerate([inputs + end, inputs - end, *starts])
    ]
