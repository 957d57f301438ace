import pytest
import torch
from torch import Tensor

from kdcompress.attacks.ascent import ascend, extremes
from kdcompress.maths.norms import dual_exponent, flat_norm, norm_of
from kdcompress.threat import NORMS, Norm, ThreatModel

SHAPE = (6, 2, 3, 3)
X = 0.4 + 0.2 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
G = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
EPS: dict[Norm, float] = {"Linf": 0.1, "L2": 0.3, "L1": 0.35}


def linear(x: Tensor) -> Tensor:
    return (G * (x - X)).flatten(1).sum(1)


def wavy(x: Tensor) -> Tensor:
    return (30 * x).sin().flatten(1).sum(1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("steps", [1, 20])
def test_the_largest_value_of_a_linear_function_is_found_exactly(norm: Norm, steps: int) -> None:
    threat = ThreatModel(norm, EPS[norm])
    found = ascend(linear, X, X, threat, steps=steps)
    torch.testing.assert_close(linear(found), threat.eps * flat_norm(G, dual_exponent(norm)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_answer_is_in_the_ball_and_in_the_unit_cube_wherever_the_start_was(norm: Norm) -> None:
    threat = ThreatModel(norm, EPS[norm])
    inputs = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2))
    found = ascend(wavy, inputs, inputs + 5 * G, threat, steps=7)
    assert norm_of(found - inputs, norm).le(threat.eps * (1 + 1e-5)).all()  # float32
    assert found.amin() >= 0 and found.amax() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_the_answer_is_never_worse_than_the_start(norm: Norm) -> None:
    threat = ThreatModel(norm, EPS[norm])
    for seed in range(5):
        start = X + 0.01 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
        for steps in (1, 3):
            assert wavy(ascend(wavy, X, start, threat, steps=steps)).ge(wavy(start) - 1e-5).all()


def test_each_image_is_searched_by_itself() -> None:
    threat = ThreatModel("Linf", 0.1)
    together = ascend(wavy, X, X, threat, steps=10)
    alone = torch.cat([ascend(wavy, X[i : i + 1], X[i : i + 1], threat, steps=10) for i in range(len(X))])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("restarts", [0, 2])
def test_both_ends_of_a_linear_function_are_among_the_extremes(norm: Norm, restarts: int) -> None:
    threat = ThreatModel(norm, EPS[norm])
    found = extremes(linear, X, G, threat, steps=5, starts=[X] * 2 * restarts)
    assert len(found) == 2 + 2 * restarts
    values = torch.stack([linear(point) for point in found])
    most = threat.eps * flat_norm(G, dual_exponent(norm))
    torch.testing.assert_close(values.amax(0), most, rtol=1e-5, atol=0)
    torch.testing.assert_close(values.amin(0), -most, rtol=1e-5, atol=0)


def test_each_sign_starts_from_its_own_end() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return wavy(x)

    threat = ThreatModel("Linf", 0.1)
    extremes(watched, X, G, threat, steps=1, starts=[])
    assert len(seen) == 4  # two values a run: its start and its only step
    torch.testing.assert_close(seen[0], X + 0.1 * G.sign())
    torch.testing.assert_close(seen[2], X - 0.1 * G.sign())


def test_the_starts_that_are_given_are_taken_by_each_sign_in_turn() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return wavy(x)

    threat = ThreatModel("Linf", 0.1)
    up, down = X + 0.05 * G.sign(), X - 0.02 * G.sign()
    found = extremes(watched, X, G, threat, steps=1, starts=[up, down])
    assert torch.equal(seen[4], up) and torch.equal(seen[6], down)
    assert wavy(found[2]).ge(wavy(up)).all() and wavy(found[3]).le(wavy(down)).all()
