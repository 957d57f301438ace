"""Smoothing in a report: the curve, the average radius and the draws behind them, by every method."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.smoothing.certified import LAST_RADIUS, smoothing
from kdcompress.evaluation.smoothing.kept import KeptVotes
from kdcompress.evaluation.smoothing.votes import Noise
from kdcompress.maths.sequential_radius import sequential_cap
from kdcompress.maths.smoothed_radius import radius_cap
from kdcompress.report import Smoothing
from kdcompress.settings import EvaluationSettings

CPU = torch.device("cpu")
METHODS = ("fixed", "sequential", "adaptive")


def settings(**changes: object) -> EvaluationSettings:
    return EvaluationSettings.of(
        **({"sigma": 0.2, "n0": 20, "n": 400, "batch_size": 1000, "smoothing": "fixed"} | changes)
    )


def smoothed(model: nn.Module, images: Split, radii: tuple[float, ...] = (), **changes: object) -> Smoothing:
    return smoothing(model, images, settings(**changes), device=CPU, radii=radii)


def distances(images: Split) -> Tensor:
    """L2 distance of a grey 3x3 image to the edge of `bright`: |mean - 1/2| sqrt(9)."""
    mean = torch.cat([x for x, _ in images.batches(99)]).flatten(1).mean(1)
    return 3 * (mean - 0.5).abs()


@pytest.mark.parametrize("method", METHODS)
def test_a_certificate_never_exceeds_the_true_distance_of_a_linear_network(
    method: str, bright: nn.Module, greys: Split
) -> None:
    # Alpha .001 on 25 images: wrong in one run of 40, fixed by the seed.
    found = smoothed(bright, greys, smoothing=method)
    true = distances(greys).tolist()
    assert all(radius <= distance for radius, distance in zip(found.radii, true, strict=True))
    assert sum(radius > 0 for radius in found.radii) > 5
    expected = (torch.tensor([x.mean() for x, _ in greys.batches(1)]) > 0.5).long().tolist()
    assert all(said in (-1, right) for said, right in zip(found.predictions, expected, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_the_curve_starts_at_zero_never_rises_and_is_that_of_the_images_radii(
    method: str, bright: nn.Module, greys: Split
) -> None:
    found = smoothed(bright, greys, smoothing=method)
    values = [point.value for point in found.at]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    assert [point.radius for point in found.at] == [0.1 * i for i in range(len(values))]
    right = [said == label for said, label in zip(found.predictions, greys.labels.tolist(), strict=True)]
    for point in found.at:
        reached = [ok and radius >= point.radius for ok, radius in zip(right, found.radii, strict=True)]
        assert point.value == sum(reached) / 25 and point.n == 25
        assert point.low <= point.value <= point.high
    kept = [radius if ok else 0.0 for ok, radius in zip(right, found.radii, strict=True)]
    assert found.average_radius == pytest.approx(sum(kept) / 25)
    assert found.abstained == found.predictions.count(-1) == sum(cause.images for cause in found.reasons)
    assert found.method == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 400, 20_000])
def test_the_cap_is_what_n_agreeing_draws_reach_and_the_usual_radii_end_there(method: str, n: int) -> None:
    calm = type("Calm", (nn.Module,), {"forward": lambda self, x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2)})()
    pixel = Split(torch.tensor([0]), ("a",), torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([0]))
    found = smoothed(calm, pixel, smoothing=method, n=n)
    cap = (sequential_cap if method == "sequential" else radius_cap)(n, sigma=0.2, alpha=0.001)
    assert found.cap == max(0.0, cap)
    last = min(found.cap, LAST_RADIUS * 0.2) if method == "sequential" else found.cap
    assert found.at[-1].radius <= last < found.at[-1].radius + 0.1
    if method == "sequential" and n > 1:
        assert found.radii == (found.at[-1].radius,)
    if method == "fixed":
        assert found.radii == (found.cap,)


@pytest.mark.parametrize("method", METHODS)
def test_a_radius_that_is_asked_for_is_in_the_curve_once_and_no_other_figure_rises(
    method: str, bright: nn.Module, greys: Split
) -> None:
    usual, asked = (smoothed(bright, greys, radii=radii, smoothing=method) for radii in ((), (0.15, 0.2)))
    assert [point.radius for point in asked.at] == sorted({*(point.radius for point in usual.at), 0.15})
    if method != "sequential":  # where a further radius is a further reason to go on, or to give up
        assert [point for point in asked.at if point.radius != 0.15] == list(usual.at)


@pytest.mark.parametrize("method", METHODS)
def test_images_of_the_wrong_class_are_not_certified_however_sure_the_network_is(
    method: str, bright: nn.Module, greys: Split
) -> None:
    found = smoothed(bright, greys.subset([24]), sigma=0.01, smoothing=method)
    assert [point.value for point in found.at] == [0.0] * len(found.at)
    assert (found.abstained, found.average_radius, found.turned) == (0, 0.0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_on_the_edge_is_abstained_from_and_counts_as_not_certified(
    method: str, bright: nn.Module, greys: Split
) -> None:
    found = smoothed(bright, greys.subset([12]), smoothing=method)  # 127 of 255
    assert (found.abstained, found.at[0].value, found.average_radius) == (1, 0.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_report_whatever_the_batch_size_and_another_may_not(
    method: str, bright: nn.Module, greys: Split
) -> None:
    images = greys.subset(range(0, 25, 3))
    found = smoothed(bright, images, smoothing=method)
    assert smoothed(bright, images, smoothing=method, batch_size=77) == found
    assert smoothed(bright, images, smoothing=method, seed=1) != found


def test_fixed_draws_n0_and_n_of_every_image_and_sequential_fewer(bright: nn.Module, greys: Split) -> None:
    assert smoothed(bright, greys).draws == 25 * 420
    spent = smoothed(bright, greys, smoothing="sequential").draws
    assert spent is not None and spent < 25 * 420 * 0.7


def test_a_method_goes_on_from_the_votes_of_another(bright: nn.Module, greys: Split, tmp_path: Path) -> None:
    """Sequential reads what fixed has drawn, and calls the network only to see that it is the same."""
    sizes: list[int] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            logits: Tensor = bright(x)
            return logits

    def run(model: nn.Module, method: str) -> Smoothing:
        def kept(noise: Noise) -> KeptVotes:
            return KeptVotes(tmp_path / str(noise.sigma), model)

        return smoothing(model, greys, settings(smoothing=method, n=2000), device=CPU, kept=kept)

    run(bright, "fixed")
    found = run(Watched(), "sequential")
    assert found == smoothed(bright, greys, smoothing="sequential", n=2000)
    assert sum(sizes) == sizes.count(1) + 25  # the clean predictions are one batch


def test_predict_is_counted_where_n_is_fixed_with_abstentions_as_wrong(bright: nn.Module, greys: Split) -> None:
    found = smoothed(bright, greys)
    assert found.predicted is not None and found.predicted.n == 25
    # PREDICT asks two-sided about the two top classes, CERTIFY one-sided about one against a half: with two classes
    # and the same n, alpha for the one is 2 alpha for the other.
    assert found.predicted.value <= found.at[0].value
    assert smoothed(bright, greys, smoothing="sequential").predicted is None
    sure = smoothed(bright, greys.subset([0, 1, 23]), sigma=0.01)
    assert sure.predicted is not None and sure.predicted.value == 1.0
    assert binomtest(400, 400, 0.5).pvalue < 0.001


def test_the_networks_own_accuracy_under_noise_is_the_share_of_votes_for_the_label(
    bright: nn.Module, greys: Split
) -> None:
    images = greys.subset([0, 12, 24])  # sure and right, on the edge, sure and wrong
    found = smoothed(bright, images, sigma=0.01, n=2000)
    assert found.noisy_accuracy == pytest.approx(0.5, abs=0.1)
    calm = smoothed(bright, greys.subset([0, 1, 24]), sigma=0.01)
    assert calm.noisy_accuracy == pytest.approx(2 / 3, abs=0.01)  # ten standard deviations to the edge


def test_votes_that_cannot_be_kept_are_told(bright: nn.Module, greys: Split, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    found = smoothing(
        bright,
        greys,
        settings(),
        device=CPU,
        kept=lambda noise: KeptVotes(tmp_path / "file" / "kept", bright),
        note=notes.append,
    )
    assert found == smoothed(bright, greys)
    assert len(notes) == 1 and "cannot be kept" in notes[0]


def test_sequential_certifies_on_the_grid_what_fixed_certifies_on_the_same_draws_but_for_images_beside_a_radius(
    bright: nn.Module, greys: Split
) -> None:
    # Beside a radius a look at every draw costs some certainty: there fixed n sees a little more. Images are .18 sigma
    # apart, and with 2,000 draws the two differ by some .05 sigma.
    fixed, early = (smoothed(bright, greys, smoothing=method, n=2000) for method in ("fixed", "sequential"))
    curve = {point.radius: point.value for point in fixed.at}
    assert all(curve[point.radius] - 2 / 25 <= point.value <= curve[point.radius] for point in early.at)
    assert np.mean([curve[point.radius] - point.value for point in early.at]) <= 1 / 25
