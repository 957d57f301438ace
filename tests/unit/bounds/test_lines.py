"""The lines about a ReLU, on a grid."""

import pytest
import torch

from kdcompress.bounds.interval import Box
from kdcompress.bounds.lines import Lines, adaptive_lines

# p, the least and the most that goes into the ReLU.
CASES = torch.tensor(
    [
        [0.3, -1.0, 2.0],
        [-0.3, -2.0, 1.0],
        [0.5, -1.0, 1.0],  # a tie: alpha 0
        [0.1, -1e-9, 3.0],
        [0.2, -5.0, 0.2],
        [1.0, 0.5, 2.0],
        [-1.0, -2.0, -0.5],
        [0.0, 0.0, 1.0],
        [0.0, -1.0, 0.0],
        [0.0, 0.0, 0.0],
    ],
    dtype=torch.float64,
).t()


def found() -> tuple[Lines, torch.Tensor, torch.Tensor]:
    """The lines, a grid of d, and relu(p + d) - relu(p) on it: (201, 10)."""
    p, least, most = CASES
    least = torch.minimum(least, p)
    d = (least - p) + torch.linspace(0, 1, 201).double()[:, None] * (most - least)
    d = torch.cat([d, torch.maximum(torch.minimum(-p, most - p), least - p)[None]])  # the kink
    return adaptive_lines(p[None], Box((least - p)[None], (most - p)[None])), d, (p + d).clamp(min=0) - p.clamp(min=0)


def test_the_function_lies_between_the_lines_and_no_further_from_them_than_the_gaps() -> None:
    lines, d, value = found()
    above, below = value - (lines.alpha * d + lines.t_low), lines.s * d + lines.t_high - value
    for distance, gap in ((above, lines.gap_low), (below, lines.gap_high)):
        assert distance.min() >= -1e-12  # float64
        assert (distance <= gap + 1e-12).all()
        torch.testing.assert_close(distance.amax(0), gap[0], rtol=1e-9, atol=1e-9)  # and the gap is reached


def test_slopes_are_the_chord_and_whichever_of_zero_and_one_leaves_less_room() -> None:
    lines, _, _ = found()
    assert lines.alpha[0].tolist() == [1, 0, 0, 1, 0, 1, 0, 1, 0, 1]
    chords = torch.tensor([2 / 3, 1 / 3, 0.5, 1, 0.2 / 5.2, 1, 0, 1, 0, 1])
    torch.testing.assert_close(lines.s[0].float(), chords, rtol=1e-6, atol=0)


def test_where_the_sign_is_known_there_is_one_line_and_no_constant() -> None:
    lines, _, _ = found()
    stable = slice(5, None)
    assert torch.equal(lines.alpha[0, stable], lines.s[0, stable])
    for constant in (lines.t_low, lines.t_high, lines.gap_low, lines.gap_high):
        assert not constant[0, stable].any()


def test_slopes_can_be_held_by_float32() -> None:
    lines, _, _ = found()
    assert torch.equal(lines.s.float().double(), lines.s)


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e6])
def test_lines_hold_at_any_scale(eps: float) -> None:
    p = eps * CASES[0, :2]
    box = Box(eps * (CASES[1, :2] - CASES[0, :2])[None], eps * (CASES[2, :2] - CASES[0, :2])[None])
    lines = adaptive_lines(p[None], box)
    for d in (box.low, -p[None], box.high):
        value = (p + d).clamp(min=0) - p.clamp(min=0)
        assert (lines.alpha * d + lines.t_low <= value + 1e-15 * eps).all()
        assert (lines.s * d + lines.t_high >= value - 1e-15 * eps).all()
