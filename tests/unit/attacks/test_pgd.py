from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.inner import perturb
from kdcompress.attacks.pgd import into_ball, pgd
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.norms import norm_of, steepest, uniform_in_ball
from kdcompress.maths.radii import first_order_radius
from kdcompress.threat import NORMS, Norm, ThreatModel

Attack = Callable[..., Tensor]
RADII = {"Linf": 0.1, "L2": 0.8, "L1": 1.0}


def linear(classes: int, channels: int = 3, side: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, classes)).eval()


def curved(classes: int, channels: int, side: int = 6) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * (side - 2) ** 2, classes)
    ).eval()


def grey(count: int, channels: int = 3, side: int = 6) -> Tensor:
    """Far from the borders of [0,1], where balls are whole."""
    return 0.4 + 0.2 * torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(2))


def chance(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def length(delta: Tensor, norm: Norm) -> Tensor:
    return norm_of(delta, norm)


@pytest.mark.parametrize("attack", [pgd, perturb])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_answers_are_inside_the_ball_and_in_zero_to_one(attack: Attack, norm: Norm, channels: int) -> None:
    x = torch.rand(8, channels, 6, 6, generator=chance())
    x[0], x[1] = 0.0, 1.0  # at the borders
    threat = ThreatModel(norm, RADII[norm])
    found = attack(curved(3, channels), x, torch.arange(8) % 3, threat, steps=5, generator=chance())
    assert found.shape == x.shape
    assert not found.requires_grad
    assert found.ge(0).all()
    assert found.le(1).all()
    # x + delta - x in float32 misses delta by up to 6e-8 a pixel.
    assert length(found - x, norm).le(threat.eps + 1e-6).all()
    assert length(found - x, norm).gt(threat.eps / 2).any()


@pytest.mark.parametrize("attack", [pgd, perturb])
def test_on_a_linear_network_the_linf_attack_finds_the_exact_worst_case(attack: Attack) -> None:
    network, x, y = linear(2), grey(10), torch.arange(10) % 2
    W = network.get_parameter("1.weight").detach()
    threat = ThreatModel("Linf", 0.1)
    found = attack(network, x, y, threat, steps=10, generator=chance())
    margin = network(x).gather(1, y[:, None]) - network(x).gather(1, 1 - y[:, None])
    worst = margin.squeeze(1) - 0.1 * (W[0] - W[1]).abs().sum()
    reached = (network(found).gather(1, y[:, None]) - network(found).gather(1, 1 - y[:, None])).squeeze(1)
    torch.testing.assert_close(reached, worst, rtol=1e-5, atol=1e-5)  # a hundred float32 additions of size .1


@pytest.mark.parametrize("steps", [10, 100])
def test_on_a_linear_network_the_l2_attack_turns_towards_the_worst_case_as_theory_says(steps: int) -> None:
    """On the sphere theta' = -sin theta, over steps of 2.5 eps in all: cos theta = tanh(2.5 + atanh cos theta_0).

    From a right angle, near which random starts lie in 108 dimensions, that is .987 of the worst case.
    """
    network, x, y = linear(2), grey(10), torch.arange(10) % 2
    W = network.get_parameter("1.weight").detach()
    threat = ThreatModel("L2", 0.5)
    away = steepest((W[1 - y] - W[y]).view_as(x), "L2")
    start = steepest(uniform_in_ball(x, threat, chance()), "L2")
    theory = torch.tanh(2.5 + torch.atanh((start * away).flatten(1).sum(1)))
    found = pgd(network, x, y, threat, steps=steps, generator=chance())
    gained = ((found - x) * away).flatten(1).sum(1) / 0.5
    # The first term is Euler's error, in proportion to the step; the other, the start's one percent inside the sphere.
    torch.testing.assert_close(gained, theory, rtol=0, atol=0.1 / steps + 0.003)
    assert gained.le(1 + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_network_no_attack_succeeds_within_the_exact_radius(norm: Norm) -> None:
    network, x = linear(4), grey(20)
    y = network(x).argmax(1)
    threat = ThreatModel(norm, 0.99 * float(first_order_radius(network, x, y, norm).min()))
    assert torch.equal(network(pgd(network, x, y, threat, steps=50, generator=chance())).argmax(1), y)


@pytest.mark.parametrize("norm", ["Linf", "L2"])  # under L1 the radius is spent on one pixel, which ends at 0 or 1
def test_on_a_linear_network_of_two_classes_the_attack_succeeds_beyond_the_exact_radius(norm: Norm) -> None:
    network, x = linear(2), grey(20)
    y = network(x).argmax(1)
    # Five percent beyond: L2 loses up to two by theory (above).
    threat = ThreatModel(norm, 1.05 * float(first_order_radius(network, x, y, norm).max()))
    assert torch.equal(network(pgd(network, x, y, threat, steps=50, generator=chance())).argmax(1), 1 - y)


@pytest.mark.parametrize("norm", NORMS)
def test_the_loss_at_the_answer_is_not_below_the_loss_at_the_start_unless_misclassified(norm: Norm) -> None:
    network = curved(5, 3)
    x, y = grey(40), torch.arange(40) % 5
    threat = ThreatModel(norm, RADII[norm])
    start = into_ball(x, uniform_in_ball(x, threat, chance()), threat)
    for steps in (1, 2, 10):
        found = pgd(network, x, y, threat, steps=steps, generator=chance())
        wrong = network(found).argmax(1) != y
        risen = cross_entropy(network(found), y) >= cross_entropy(network(start), y) - 1e-6
        assert (wrong | risen).all()


CONFIDENT, RIGHT, HARDLY_RIGHT = (5.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.1, 0.0, 0.0)
WRONG, JUST_WRONG = (0.0, 4.0, 0.0), (0.0, 0.1, -9.0)  # the last has a smaller CE, .74, than HARDLY_RIGHT, 1.03


class Scripted(nn.Module):
    """Answers with the next logits of a list, whatever the inputs: iterates without an ascent."""

    def __init__(self, *script: tuple[float, float, float]) -> None:
        super().__init__()
        self.script, self.seen = list(script), list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        slope = (x - x.detach()).flatten(1).sum(1, keepdim=True)  # zero, with a gradient
        return torch.tensor([self.script.pop(0)]) + slope * torch.tensor([[1.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("script", "chosen"),
    [
        ((CONFIDENT, RIGHT, HARDLY_RIGHT, RIGHT), 2),  # no success: the largest loss
        ((CONFIDENT, JUST_WRONG, HARDLY_RIGHT, RIGHT), 1),  # the only success, though not the largest loss
        ((HARDLY_RIGHT, HARDLY_RIGHT, RIGHT, JUST_WRONG), 3),  # the same, at the very last
        ((JUST_WRONG, HARDLY_RIGHT, HARDLY_RIGHT, CONFIDENT), 0),  # the same, at the start
        ((JUST_WRONG, WRONG, JUST_WRONG, RIGHT), 1),  # several: the largest loss among them
    ],
)
def test_where_any_iterate_is_misclassified_so_is_the_answer_and_the_largest_loss_is_taken(
    script: tuple[tuple[float, float, float], ...], chosen: int
) -> None:
    network = Scripted(*script)
    found = pgd(network, grey(1), torch.tensor([0]), ThreatModel("Linf", 0.1), steps=3, generator=chance())
    assert len(network.seen) == 4
    assert torch.equal(found, network.seen[chosen])


@pytest.mark.parametrize("norm", NORMS)
def test_robust_images_are_no_more_than_clean_ones_and_no_more_at_a_larger_eps(norm: Norm) -> None:
    network = curved(3, 3)
    x = torch.rand(60, 3, 6, 6, generator=chance())
    y = network(x).argmax(1)
    y[::10] = (y[::10] + 1) % 3  # some are misclassified from the start
    robust = [int((network(x).argmax(1) == y).sum())]
    for eps in (1e-6, 0.25 * RADII[norm], RADII[norm], 4 * RADII[norm]):
        found = pgd(network, x, y, ThreatModel(norm, min(eps, 1.0)), steps=20, generator=chance())
        robust.append(int((network(found).argmax(1) == y).sum()))
    assert robust == sorted(robust, reverse=True)
    assert robust[0] == robust[1] == 54  # as eps goes to zero, the clean count
    assert robust[-1] < robust[0]


@pytest.mark.parametrize("attack", [pgd, perturb])
@pytest.mark.parametrize("norm", NORMS)
def test_answers_go_to_the_inputs_as_eps_goes_to_zero(attack: Attack, norm: Norm) -> None:
    x = grey(3)
    found = attack(curved(3, 3), x, torch.arange(3), ThreatModel(norm, 1e-6), steps=3, generator=chance())
    torch.testing.assert_close(found, x, rtol=0, atol=1.1e-6)


@pytest.mark.parametrize(("attack", "norm"), list(product([pgd, perturb], NORMS)))
def test_the_generator_alone_decides_the_answer(attack: Attack, norm: Norm) -> None:
    network, x, y = curved(3, 3), grey(3), torch.arange(3)
    threat = ThreatModel(norm, RADII[norm])
    state = torch.get_rng_state()
    one, again = (attack(network, x, y, threat, steps=2, generator=chance(7)) for _ in range(2))
    other = attack(network, x, y, threat, steps=2, generator=chance(8))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("attack", [pgd, perturb])
def test_the_attacked_networks_parameters_receive_no_gradient(attack: Attack) -> None:
    network = curved(3, 3)
    attack(network, grey(2), torch.arange(2), ThreatModel("Linf", 0.1), steps=2, generator=chance())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_training_inputs_are_the_last_iterate_of_the_same_ascent() -> None:
    network = Scripted(*[RIGHT] * 4)
    perturbed = perturb(network, grey(1), torch.tensor([0]), ThreatModel("Linf", 0.1), steps=3, generator=chance())
    assert len(network.seen) == 3  # three forward-backwards and no more
    full = Scripted(*[RIGHT] * 4)
    pgd(full, grey(1), torch.tensor([0]), ThreatModel("Linf", 0.1), steps=3, generator=chance())
    assert torch.equal(perturbed, full.seen[-1])
