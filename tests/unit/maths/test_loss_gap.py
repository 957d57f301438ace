"""Both right sides of eq. 26: tight where losses are linear, true at every point elsewhere."""

import pytest
import torch
from torch import Tensor

from kdcompress.maths.loss_gap import Loss, gaps, loss_bound
from kdcompress.maths.norms import dual_exponent, steepest, uniform_in_ball
from kdcompress.maths.randomness import generator
from kdcompress.threat import NORMS, Norm, ThreatModel

B, P, D = 5, 9, 6


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(seed: int, delta: Tensor) -> Loss:
    value, gradient = normal(B, seed=seed).abs(), normal(B, D, seed=seed + 50)
    return Loss(value, gradient, value[:, None] + torch.einsum("bpd,bd->bp", delta, gradient))


def drawn(ball: ThreatModel) -> Tensor:
    return uniform_in_ball(torch.zeros(B * P, D), ball, generator(0, "points")).double().view(B, P, D)


def curved(seed: int, delta: Tensor) -> Loss:
    base = linear(seed, delta)
    return Loss(base.value, base.gradient, base.at_points + seed * delta.square().sum(2))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_between_linear_losses_the_bound_is_reached(norm: Norm) -> None:
    ball = ThreatModel(norm, 0.3)
    s, t = (linear(seed, torch.zeros(B, 1, D).double()) for seed in (1, 2))
    # Away from the teacher in the direction in which the student is ahead already.
    ahead = (s.value - t.value).sign()[:, None]
    worst = (ball.eps * ahead * steepest(s.gradient - t.gradient, norm))[:, None]
    s, t = linear(1, worst), linear(2, worst)
    bound = loss_bound(s, t, worst, ball)
    assert bound.remainder_s.max() < 1e-14 and bound.remainder_t.max() < 1e-14
    torch.testing.assert_close(gaps(s, t)[:, 0], bound.tight, rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_bound_holds_at_every_point_and_that_of_the_paper_is_never_below_it(norm: Norm) -> None:
    ball = ThreatModel(norm, 0.5)
    delta = drawn(ball)
    for seed in range(1, 6):
        s, t = curved(seed, delta), curved(seed + 20, delta)
        bound = loss_bound(s, t, delta, ball)
        assert (gaps(s, t) <= bound.tight[:, None] + 1e-12).all()
        assert (bound.tight <= bound.of_paper).all()


def test_the_terms_are_those_of_the_equation() -> None:
    ball = ThreatModel("Linf", 0.5)
    delta = drawn(ball)
    s, t = curved(1, delta), curved(4, delta)
    bound = loss_bound(s, t, delta, ball)
    torch.testing.assert_close(bound.remainder_s, delta.square().sum(2).amax(1))
    torch.testing.assert_close(bound.remainder_t, 4 * delta.square().sum(2).amax(1))
    assert torch.equal(bound.losses, (s.value - t.value).abs())
    assert torch.equal(bound.losses_of_paper, s.value + t.value)
    torch.testing.assert_close(bound.gradients, 0.5 * (s.gradient - t.gradient).abs().sum(1))
    assert dual_exponent("Linf") == 1


def test_between_a_network_and_itself_only_the_remainders_are_left() -> None:
    ball = ThreatModel("L2", 0.5)
    delta = drawn(ball)
    s = curved(3, delta)
    bound = loss_bound(s, s, delta, ball)
    assert gaps(s, s).max() == 0 and bound.losses.max() == 0 and bound.gradients.max() == 0
    assert torch.equal(bound.tight, 2 * bound.remainder_s)
