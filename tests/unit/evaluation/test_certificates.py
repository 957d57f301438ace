"""Certificates in a report: each under its own name, the curve never rising."""

import pytest
import torch
from torch import nn

from kdcompress.data import Split
from kdcompress.evaluation.certificates import first_order, smoothing
from kdcompress.maths.smoothed_radius import radius_cap
from kdcompress.report import Smoothing
from kdcompress.settings import EvaluationSettings

CPU = torch.device("cpu")


def smoothed(model: nn.Module, images: Split, radii: tuple[float, ...] = (), **settings: object) -> Smoothing:
    chosen = EvaluationSettings.of(**({"sigma": 0.5, "n0": 20, "n": 200, "batch_size": 64} | settings))
    return smoothing(model, images, chosen, classes=2, device=CPU, radii=radii)


def test_the_curve_starts_at_zero_never_rises_and_ends_at_what_the_draws_can_reach(
    bright: nn.Module, greys: Split
) -> None:
    found = smoothed(bright, greys)
    values = [point.value for point in found.at]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]
    assert [point.radius for point in found.at] == [0.25 * i for i in range(len(values))]
    assert found.at[-1].radius <= found.cap < found.at[-1].radius + 0.25
    assert found.cap == radius_cap(200, sigma=0.5, alpha=0.001)
    assert all(point.low <= point.value <= point.high and point.n == 25 for point in found.at)


def test_a_radius_that_is_asked_for_is_in_the_curve_once_and_nothing_else_changes(
    bright: nn.Module, greys: Split
) -> None:
    usual, asked = smoothed(bright, greys), smoothed(bright, greys, radii=(0.3, 0.5))
    assert [point.radius for point in asked.at] == sorted({*(point.radius for point in usual.at), 0.3})
    assert [point for point in asked.at if point.radius != 0.3] == list(usual.at)
    assert [point.value for point in asked.at] == sorted((point.value for point in asked.at), reverse=True)


def test_a_certificate_never_exceeds_the_true_distance_of_a_linear_network(bright: nn.Module, greys: Split) -> None:
    # L2 distance to the edge: |mean - 1/2| sqrt(9). Alpha .001 on 25 images: wrong in one run of 40, fixed by the seed.
    found = smoothed(bright, greys)
    mean = torch.cat([x for x, _ in greys.batches(99)]).flatten(1).mean(1)
    right = (mean > 0.5) == (greys.labels == 1)
    for point in found.at:
        reachable = (right & (3 * (mean - 0.5).abs() >= point.radius)).float().mean()
        assert point.value <= float(reachable)


def test_images_of_the_wrong_class_are_not_certified_however_sure_the_network_is(
    bright: nn.Module, greys: Split
) -> None:
    wrong = greys.subset([24])
    found = smoothed(bright, wrong, sigma=0.01)
    assert [point.value for point in found.at] == [0.0] * len(found.at)
    assert found.abstained == 0


def test_an_image_on_the_edge_is_abstained_from_and_counts_as_not_certified(bright: nn.Module, greys: Split) -> None:
    found = smoothed(bright, greys.subset([12]))  # 127 of 255
    assert (found.abstained, found.at[0].value) == (1, 0.0)


def test_the_same_seed_gives_the_same_curve_and_another_may_not(bright: nn.Module, greys: Split) -> None:
    assert smoothed(bright, greys) == smoothed(bright, greys)
    assert smoothed(bright, greys, seed=1).at != smoothed(bright, greys).at


def test_so_few_draws_that_nothing_can_be_certified_leave_one_point(bright: nn.Module, greys: Split) -> None:
    found = smoothed(bright, greys.subset([0, 24]), n=1)
    assert [(point.radius, point.value) for point in found.at] == [(0.0, 0.0)]
    assert found.abstained == 2


def test_the_first_order_estimate_of_a_linear_network_is_its_median_distance(bright: nn.Module, greys: Split) -> None:
    for norm, factor in (("Linf", 1.0), ("L2", 3.0)):
        found = first_order(bright, greys, norm, batch_size=7, device=CPU)  # type: ignore[arg-type]
        levels = torch.arange(91, 166, 3).double()
        distance = (levels / 255 - 0.5).abs() * factor
        distance[-1] = 0  # misclassified
        assert found.kind == "estimate" and found.n == 25 and found.norm == norm
        assert found.median == pytest.approx(float(distance.median()), rel=1e-4)  # float32 pixels


def test_a_network_without_gradients_has_no_estimate(greys: Split) -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], 1)

    zeros = greys.subset([0, 1, 2])
    assert first_order(Constant().eval(), zeros, "Linf", batch_size=5, device=CPU) is None
