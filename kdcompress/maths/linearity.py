"""How linear the loss is inside the ball: the first-order remainder."""

from torch import Tensor


def first_order_remainder(loss: Tensor, loss_adversarial: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
    """mean |CE(x+d) - CE(x) - d.g| / mean |CE(x+d) - CE(x)|, a scalar: the share of the loss's change in the ball that
    its gradient misses. About .01 to .02 for robust networks, .5 for natural ones (mean over images of each part).

    | case                      | value |
    |---------------------------|-------|
    | CE linear on the ball     | 0     |
    | CE constant, gradient 0   | 0     |
    | CE constant, gradient not | inf   |

    Args:
        loss, loss_adversarial: CE at x and at x + delta, (B,).
        gradient: grad_x CE at x, (B, C, H, W).
        delta: (B, C, H, W), usually found by PGD.
    """
    change = loss_adversarial - loss
    missed = (change - (delta * gradient).flatten(1).sum(1)).abs().mean()
    total = change.abs().mean()
    return missed / total if total > 0 else missed.where(missed == 0, missed.new_tensor(float("inf")))


def remainder(values: Tensor, value: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
    """|h(x + d) - h(x) - d . grad h(x)| for each of P points and each of M functions h, (B, P, M).

    Its maximum over the ball is LLM(f) for h = CE (eq. 26), and R_k for h = m_k.

    Args:
        values: h(x + d), (B, P, M).
        value: h(x), (B, M).
        gradient: grad h(x), (B, M, D).
        delta: (B, P, D).
    """
    return (values - value[:, None] - delta @ gradient.transpose(1, 2)).abs()
