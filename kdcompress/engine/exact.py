"""The gradient term by double backward: one forward, one backward to the input, one through both."""

from collections.abc import Callable

from torch import Tensor, nn

from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import gradient_distance

Alignment = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(student in train mode, x (B, C, H, W), target, g_t (B, C, H, W)) -> logits (B, K), ||g_s - g_t||_p (B,).

`target` is what the gradients are of: labels (B,) for CE, directions (B, K) for a combination of the logits.

Both lead back to the student's weights; BatchNorm's running statistics have moved once.
"""


def exact(p: float) -> Alignment:
    """Every derivative as it is, PyTorch eager."""

    def align(student: nn.Module, x: Tensor, target: Tensor, g_t: Tensor) -> tuple[Tensor, Tensor]:
        f, g_s = logits_and_input_gradient(student, x, target, create_graph=True)
        return f, gradient_distance(g_s, g_t, p)

    return align
