"""Certificates of images: what is proved, how far, and that nothing false is."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdcompress.bounds import verify
from kdcompress.bounds.region import Region
from kdcompress.bounds.verify import TOLERANCE, Bounded, Certificate, bounded, certificate, margin_bounds
from kdcompress.threat import Norm
from tests.bounded import Residual, ready, seeded


class Bright(nn.Module):
    """Class 1 where the mean exceeds one half, through ReLUs that matter: the distance is |mean - 1/2|."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 2)
        self.up.weight.data = torch.stack([torch.ones(16), -torch.ones(16)]) / 16
        self.up.bias.data = torch.tensor([-0.5, 0.5])

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x.flatten(1)).relu()
        return hidden @ torch.tensor([[-1.0, 1.0], [1.0, -1.0]])


@pytest.fixture(scope="module")
def bright() -> Bounded:
    return bounded(ready(Bright()), (1, 4, 4))


@pytest.fixture(scope="module")
def residual() -> Bounded:
    return bounded(seeded(Residual), (1, 6, 6))


def grey(level: float) -> Tensor:
    return torch.full((1, 4, 4), level)


@pytest.mark.parametrize("level", [0.1, 0.4, 0.55, 0.9])
@pytest.mark.parametrize(("norm", "length"), [("Linf", 1.0), ("L2", 4.0)])
def test_the_largest_eps_is_the_distance_to_the_boundary_to_the_tolerance(
    bright: Bounded, level: float, norm: Norm, length: float
) -> None:
    found = certificate(bright, grey(level), int(level > 0.5), norm, ()).largest
    truth = length * abs(level - 0.5)
    assert found is not None and truth / (1 + TOLERANCE) * (1 - 1e-6) <= found <= truth


def test_radii_are_certified_up_to_the_distance(bright: Bounded) -> None:
    found = certificate(bright, grey(0.7), 1, "Linf", (0.05, 0.15, 0.199, 0.201, 0.5), largest=False)
    assert found == Certificate((True, True, True, False, False), None)


def test_a_misclassified_image_is_certified_at_no_radius(bright: Bounded) -> None:
    assert certificate(bright, grey(0.7), 0, "Linf", (0.01,)) == Certificate((False,), 0.0)
    assert certificate(bright, grey(0.5), 1, "Linf", (0.01,)) == Certificate((False,), 0.0)  # a tie


def test_nothing_is_tried_where_an_attack_succeeded(bright: Bounded, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    honest = verify.region
    monkeypatch.setattr(verify, "region", lambda x, norm, eps: tried.append(eps) or honest(x, norm, eps))
    found = certificate(bright, grey(0.7), 1, "Linf", (0.1, 0.3, 0.4), broken_at=0.3)
    assert found.verified == (True, False, False)
    assert max(tried) < 0.3 and found.largest is not None and found.largest > 0.19


def test_a_constant_network_is_certified_on_all_of_the_box() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    model[1].weight.data.zero_()
    model[1].bias.data = torch.tensor([1.0, 0.0])
    subject = bounded(ready(model), (1, 4, 4))
    assert certificate(subject, grey(0.3), 0, "Linf", ()).largest == 1.0
    assert certificate(subject, grey(0.3), 0, "L2", ()).largest == 4.0


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_search_ends_where_bounds_do(residual: Bounded, norm: Norm) -> None:
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    y = residual.model(x).argmax(1)
    for one, label in zip(x, y.tolist(), strict=True):
        found = certificate(residual, one, label, norm, ()).largest
        assert found is not None and found > 0
        # A hundredth for what float32 costs in the search.
        around = [found * 0.99, found * (1 + TOLERANCE) * 1.01]
        low, high = (margin_bounds(residual, one[None], y.new_tensor([label]), norm, eps).min() for eps in around)
        assert low > 0 >= high or high < 1e-6


def test_many_images_give_what_each_gives_alone(residual: Bounded) -> None:
    x = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(6))
    y = torch.tensor([0, 2, 1])
    together = margin_bounds(residual, x, y, "Linf", 0.02)
    assert together.shape == (3, 2)
    for i in range(3):
        assert torch.equal(together[i : i + 1], margin_bounds(residual, x[i : i + 1], y[i : i + 1], "Linf", 0.02))


def test_verdicts_at_given_radii_are_those_of_float64(residual: Bounded) -> None:
    """A radius at which float32 alone just misses: the second look proves it."""
    x = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(5))
    y = int(residual.model(x[None]).argmax())
    low, high = 0.0, 1.0
    for _ in range(40):
        eps = (low + high) / 2
        proved = bool(margin_bounds(residual, x[None], torch.tensor([y]), "Linf", eps).min() > 0)
        low, high = (eps, high) if proved else (low, eps)
    assert certificate(residual, x, y, "Linf", (low,), largest=False).verified == (True,)
    assert certificate(residual, x, y, "Linf", (high * (1 + 1e-9),), largest=False).verified == (False,)


def test_float32_is_used_only_where_it_rounds_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready(Bright())
    assert bounded(model, (1, 4, 4)).fast.steps != bounded(model, (1, 4, 4)).network.steps
    torch.set_float32_matmul_precision("medium")
    try:
        subject = bounded(model, (1, 4, 4))
        assert subject.fast is subject.network
    finally:
        torch.set_float32_matmul_precision("highest")


def test_without_a_float32_network_the_answers_are_the_same(residual: Bounded) -> None:
    x = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(7))
    y = int(residual.model(x[None]).argmax())
    slow = replace(residual, fast=residual.network)
    found = [certificate(subject, x, y, "Linf", ()).largest for subject in (residual, slow)]
    assert found[0] is not None and found[1] is not None
    assert math.isclose(found[0], found[1], rel_tol=2 * TOLERANCE)
    one = [margin_bounds(subject, x[None], torch.tensor([y]), "Linf", 0.03) for subject in (residual, slow)]
    torch.testing.assert_close(one[0], one[1], rtol=1e-6, atol=1e-6)


def hinged(bias: float) -> Bounded:
    """A margin of `bias` until the second pixel rises by .1004, and far below zero beyond."""
    first, second, last = nn.Linear(2, 3).double(), nn.Linear(3, 3).double(), nn.Linear(3, 2).double()
    for layer, weight, offset in (
        (first, [[7.3, 0, 0], [7.3, 0, 0], [0, 1, 0]], [1, 1.3, -0.6004]),
        (second, [[1.7, -0.9, 0], [1.7, -0.9, 0], [0, 0, 1]], [1e-7 - 0.53, 1e-7 + 9.47, 0]),
        (last, [[-1, 1, -1000], [0, 0, 0]], [bias - 10, 0]),
    ):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight, dtype=torch.float64)[:, : layer.in_features])
            layer.bias.copy_(torch.tensor(offset, dtype=torch.float64))
    network = bounded(nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last).eval(), (1, 1, 2))
    assert isinstance(network, Bounded)
    return network


def test_what_a_certified_ball_settled_is_not_taken_for_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast pass just misses the smaller radius, float64 proves it; the larger holds an adversarial point."""
    by_crown = verify._Search._by_crown

    def rounded_down(self: verify._Search, ball: Region, precise: bool) -> tuple[float, Any]:
        margin, boxes = by_crown(self, ball, precise)
        return margin - (0.0 if precise else 1.01e-3), boxes

    monkeypatch.setattr(verify._Search, "_by_crown", rounded_down)
    network, x = hinged(1e-3), torch.tensor([[[0.05, 0.5]]], dtype=torch.float64)
    search = verify._Search(network, x, 0, "Linf", math.inf)
    assert search._margin(0.1, precise=False) <= 0 < search._margin(0.1, precise=True)
    assert certificate(network, x, 0, "Linf", (0.1, 0.101), largest=False).verified == (True, False)
    adversarial = x + torch.tensor([[[0.0, 0.101]]])
    assert int(network.model(adversarial[None]).argmax()) == 1
