"""What the student learns from: the inputs, and what the teacher says of them."""

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from kdcompress.attacks.pgd import into_ball
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import logit_directions
from kdcompress.maths.norms import gaussian, uniform_in_ball
from kdcompress.settings import LossSettings
from kdcompress.threat import ThreatModel

Kind = Literal["logits", "ce", "jacobian"]
Lesson = tuple[Tensor, ...]
"""By kind, each tensor along the batch:

| kind       | lesson                                                         |
|------------|----------------------------------------------------------------|
| `logits`   | f_t (B, K): eq. 13 needs no more                               |
| `ce`       | f_t, g_t = grad_x CE(f_t(x), y) (B, C, H, W): eq. 14           |
| `jacobian` | f_t, g_t = v^T J, the directions v (B, K): `--align jacobian`  |
"""


def kind_of(loss: LossSettings, iga_weight: float) -> Kind:
    """What these weights need to know of the teacher."""
    return "logits" if iga_weight == 0 else loss.align


def noisy(x: Tensor, loss: LossSettings, threat: ThreatModel, generator: Generator, noise_sigma: float = 0.0) -> Tensor:
    """The inputs that are learned from: x + N(0, noise_sigma^2), not clipped, where that is asked for.

    Else x, or x plus uniform noise in the ball, in [0,1].
    """
    if noise_sigma > 0:
        return x + gaussian(x, noise_sigma, generator)
    if loss.input_noise == "none":
        return x
    return into_ball(x, uniform_in_ball(x, threat, generator), threat)


def lesson(teacher: nn.Module, x: Tensor, y: Tensor, kind: Kind, generator: Generator, classes: int) -> Lesson:
    """One forward of the teacher, and where a gradient is needed one backward to the input; all detached.

    Args:
        teacher: eval mode, frozen.
        generator: draws the directions.
        classes: K.
    """
    if kind == "logits":
        with torch.no_grad():
            return (teacher(x),)
    if kind == "ce":
        return logits_and_input_gradient(teacher, x, y, create_graph=False)
    v = logit_directions(len(y), classes, generator, y.device)
    return (*logits_and_input_gradient(teacher, x, v, create_graph=False), v)
