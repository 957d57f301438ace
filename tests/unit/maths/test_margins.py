"""The margin inequality: exact and tight for linear networks, true at every point for all."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.maths.jacobian import logits_and_jacobian
from kdcompress.maths.margins import Network, kept_margin, margin_gradients, margins, nonlinearity, slack
from kdcompress.maths.norms import steepest, uniform_in_ball
from kdcompress.maths.randomness import generator
from kdcompress.threat import NORMS, Norm, ThreatModel

SHAPE = (1, 2, 3)
D, K, B, P = 6, 4, 5, 9
X = torch.rand(B, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(B) % K
RIVALS = (Y[:, None] + torch.arange(1, K)) % K


def linear(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(D, K)).double().eval()


def curved(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, K)).double().eval()


def around(model: nn.Module, delta: Tensor) -> Network:
    """The network at X and at X + delta, (B, P, D)."""
    f, J = logits_and_jacobian(model, X)
    with torch.no_grad():
        at = model((X[:, None] + delta.view(B, -1, *SHAPE)).flatten(0, 1)).view(B, -1, K)
    return Network(margins(f, Y, RIVALS), margin_gradients(J, Y, RIVALS), margins(at, Y, RIVALS))


def drawn(ball: ThreatModel, seed: int = 0) -> Tensor:
    return uniform_in_ball(torch.zeros(B * P, D).double(), ball, generator(seed, "points")).double().view(B, P, D)


def test_margins_and_their_gradients_are_differences_class_by_class() -> None:
    f, J = logits_and_jacobian(curved(0), X)
    points = torch.stack([f, 2 * f], 1)
    for i in range(B):
        for place, k in enumerate(RIVALS[i].tolist()):
            y = int(Y[i])
            assert margins(f, Y, RIVALS)[i, place] == f[i, y] - f[i, k]
            assert torch.equal(margins(points, Y, RIVALS)[i, :, place], points[i, :, y] - points[i, :, k])
            assert torch.equal(margin_gradients(J, Y, RIVALS)[i, place], J[i, y] - J[i, k])


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_network_has_no_remainder(norm: Norm) -> None:
    ball = ThreatModel(norm, 0.3)
    delta = drawn(ball)
    network = around(linear(0), delta)
    assert network.remainders(delta).max() < 1e-14
    assert nonlinearity(network.remainders(delta).amax(1), network.gradient, ball).max() < 1e-12


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_between_linear_networks_the_inequality_is_tight_where_hoelders_is(norm: Norm) -> None:
    ball = ThreatModel(norm, 0.3)
    student, teacher = linear(1), linear(0)
    empty = torch.zeros(B, 1, D, dtype=torch.float64)
    s, t = around(student, empty), around(teacher, empty)
    # For each rival the d along which the student's margin falls furthest behind the teacher's.
    worst = -ball.eps * steepest((s.gradient - t.gradient).flatten(0, 1), norm).view(B, K - 1, D)
    s, t = around(student, worst), around(teacher, worst)
    kept = kept_margin(s, t, worst, ball)
    left = slack(s, t, kept).diagonal(dim1=1, dim2=2)
    ahead = (s.margin - t.margin).clamp_min(0)  # a student that starts ahead has that to spare, twice
    torch.testing.assert_close(left, 2 * ahead, rtol=0, atol=1e-12)
    assert (ahead == 0).any() and kept.gradients.min() > 0.01


@pytest.mark.parametrize("norm", NORMS)
def test_the_inequality_holds_at_every_point_whatever_the_networks(norm: Norm) -> None:
    ball = ThreatModel(norm, 0.5)
    for seed in range(5):
        delta = drawn(ball, seed)
        s, t = around(curved(seed), delta), around(curved(seed + 9), delta)
        kept = kept_margin(s, t, delta, ball)
        assert slack(s, t, kept).min() > -1e-12
        assert kept.remainder_s.min() > 0 and kept.remainder_t.min() > 0


def test_a_remainder_left_out_breaks_it() -> None:
    # So the remainders are needed: a student that is the teacher at x and its slope, and falls off beyond.
    ball = ThreatModel("Linf", 0.5)
    delta = drawn(ball)
    t = around(linear(0), delta)
    fallen = Network(t.margin, t.gradient, t.at_points - delta.square().sum(2, keepdim=True))
    kept = kept_margin(fallen, t, delta, ball)
    assert kept.logits.max() == 0 and kept.gradients.max() == 0 and kept.remainder_t.max() < 1e-12
    torch.testing.assert_close(kept.remainder_s, delta.square().sum(2).amax(1)[:, None].expand(B, K - 1))
    torch.testing.assert_close(slack(fallen, t, kept).amin((1, 2)), torch.zeros(B).double(), rtol=0, atol=1e-12)


def test_a_student_that_is_the_teacher_loses_its_remainders_twice_and_nothing_else() -> None:
    ball = ThreatModel("L2", 0.5)
    delta = drawn(ball)
    t = around(curved(0), delta)
    kept = kept_margin(t, t, delta, ball)
    assert kept.logits.max() == 0 and kept.gradients.max() == 0
    assert torch.equal(kept.lost, 2 * t.remainders(delta).amax(1))


def test_nonlinearity_is_a_share_of_the_linear_change_and_zero_for_a_constant() -> None:
    ball = ThreatModel("Linf", 0.5)
    gradient = torch.tensor([[[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]])
    found = nonlinearity(torch.tensor([[0.25, 0.0, 0.1]]), gradient, ball)
    assert found.tolist() == [[0.25, 0.0, torch.inf]]  # .25 / (.5 * 2)
