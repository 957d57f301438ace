"""Learning rates against their formulas, and optimizers against steps taken by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from kdcompress.settings import RunSettings
from kdcompress.training.schedules import optimizer_of, schedule_of


def rates(steps: int, **run: object) -> list[float]:
    """The learning rate of each step."""
    settings = RunSettings.of(**run)
    optimizer = optimizer_of([nn.Parameter(torch.zeros(1))], settings)
    schedule = schedule_of(optimizer, settings, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 100])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_cosine_warms_up_over_a_twentieth_and_falls_to_zero_after_the_last_step(steps: int, optimizer: str) -> None:
    W = steps // 20
    warm = [0.3 * (t + 1) / (W + 1) for t in range(W)]
    cosine = [0.3 * (1 + math.cos(math.pi * t / (steps - W))) / 2 for t in range(steps - W)]
    assert rates(steps, schedule="cosine", optimizer=optimizer, lr=0.3) == pytest.approx(warm + cosine, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 100])
def test_steps_are_tenths_from_one_half_and_from_three_quarters_of_the_run_on(steps: int) -> None:
    expected = [0.1 ** (1 + (t / steps >= 0.5) + (t / steps >= 0.75)) for t in range(steps)]
    assert rates(steps, schedule="step", optimizer="sgd") == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_cycle_is_pytorchs_own(optimizer: str) -> None:
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(plain, max_lr=0.2, total_steps=40, cycle_momentum=False)
    expected = []
    for _ in range(40):
        expected.append(plain.param_groups[0]["lr"])
        plain.step()
        cycle.step()
    assert rates(40, optimizer=optimizer, lr=0.2) == expected
    assert max(expected) == pytest.approx(0.2)


def test_one_cycle_leaves_the_momentum_that_was_asked_for() -> None:
    run = RunSettings.of(optimizer="sgd", momentum=0.7)
    optimizer = optimizer_of([nn.Parameter(torch.zeros(1))], run)
    schedule = schedule_of(optimizer, run, 10)
    for _ in range(5):
        assert optimizer.param_groups[0]["momentum"] == 0.7
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_nesterovs_steps_with_decay(momentum: float) -> None:
    run = RunSettings.of(optimizer="sgd", lr=0.05, weight_decay=0.1, momentum=momentum)
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = optimizer_of([weight], run)
    w, v = torch.tensor([2.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def gradient(w: Tensor) -> Tensor:
        return 3 * w.square()

    for _ in range(5):
        weight.grad = gradient(weight.detach())
        optimizer.step()
        g = gradient(w) + 0.1 * w
        v = momentum * v + g
        w = w - 0.05 * (g + momentum * v)
    torch.testing.assert_close(weight.detach(), w)


def test_adamw_is_the_default_with_its_own_rate_and_decay() -> None:
    optimizer = optimizer_of([nn.Parameter(torch.zeros(1))], RunSettings())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (3e-3, 0.01)
