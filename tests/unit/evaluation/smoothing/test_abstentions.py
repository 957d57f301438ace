"""Why there is no answer, on networks built to fail in one way."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.evaluation.smoothing.abstentions import Undecided, explained, reason
from kdcompress.evaluation.smoothing.certified import smoothing
from kdcompress.maths.draws import draws_for_majority
from kdcompress.report import Abstention, Smoothing
from kdcompress.settings import EvaluationSettings

CPU = torch.device("cpu")
SIGMA = 0.25
NEVER = -5.0


class Ball(nn.Module):
    """Class 0 within `radius` of the plain grey image; beyond it classes 1, 2 and 3, by the sign of two pixels.

    The noise of 16 pixels has length 4 sigma, more or less: 1 at sigma .25, and .5 at half of it.
    """

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, x: Tensor) -> Tensor:
        d = x.flatten(1) - 0.5
        beyond = 2 * (d.norm(dim=1) - self.radius)
        a, b = d[:, 0], d[:, 1]
        return torch.stack([-beyond, beyond + a, beyond + b, beyond - a - b], 1)


class Edge(nn.Module):
    """Class 0 where the mean exceeds a threshold, else class 1."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        over = x.flatten(1).mean(1) - self.threshold
        return torch.stack([over, -over], 1)


def grey(label: int = 0) -> Split:
    pixels = torch.full((1, 1, 4, 4), 128, dtype=torch.uint8)
    return split_from_pixels(pixels, torch.tensor([label]))


def seen(model: nn.Module, label: int = 0, method: str = "fixed", **settings: object) -> Smoothing:
    chosen = EvaluationSettings.of(**({"smoothing": method, "sigma": SIGMA, "n0": 100, "n": 1000} | settings))
    return smoothing(model.eval(), grey(label), chosen, device=CPU)


def only(found: Smoothing) -> Abstention:
    assert found.abstained == 1 and found.predictions == (-1,) and found.radii == (0.0,)
    (cause,) = found.reasons
    assert cause.images == 1
    return cause


@pytest.mark.parametrize("method", ["fixed", "sequential", "adaptive"])
def test_a_network_that_bears_half_the_noise_has_too_large_a_sigma(method: str) -> None:
    cause = only(seen(Ball(0.75), method=method))
    assert cause.reason == "sigma too large"
    assert "0.25" in cause.finding and "0.125" in cause.finding and "--sigma" in cause.finding


@pytest.mark.parametrize("method", ["fixed", "sequential", "adaptive"])
def test_a_network_that_is_right_and_bears_no_noise_was_not_trained_with_it(method: str) -> None:
    cause = only(seen(Ball(0.1), method=method))
    assert cause.reason == "untrained for noise" and "--noise-sigma" in cause.finding


def test_the_same_network_is_unsure_where_it_is_wrong_without_noise_too() -> None:
    assert only(seen(Ball(0.1), label=2)).reason == "unsure without noise"


@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_a_majority_that_the_draws_do_not_show_needs_more_of_them_and_so_many_do_show_it(method: str) -> None:
    near = Edge(128 / 255 - 0.008)  # p = Phi(.008 4 / .25) = .551
    cause = only(seen(near, method=method, n=500, alpha=0.001))
    assert cause.reason == "too few draws"
    assert "in the median" in cause.finding
    found = seen(near, n=5000, batch_size=5000)
    assert found.abstained == 0 and found.predictions == (0,) and found.reasons == ()


def test_so_few_draws_that_none_can_certify_are_too_few_however_sure_the_network() -> None:
    cause = only(seen(Edge(0.0), n=5))
    assert cause.reason == "too few draws" and "10 draws in the median" in cause.finding  # .001^(1/10) > 1/2
    assert draws_for_majority(5, 5, 0.001) == 10


def test_a_class_that_few_first_draws_chose_wrongly_is_told_apart() -> None:
    image = Undecided(np.array([0, 3]), np.array([900, 100]), seen=0, label=0)
    assert reason(image) == "wrong class chosen"
    (told,) = explained([image], "sequential", sigma=SIGMA, alpha=0.001)
    assert "--n0" in told.finding


def test_a_smoothed_classifier_that_turns_right_images_wrong_says_how_many() -> None:
    class Swamped(nn.Module):
        """Right where there is no noise, and sure of another class wherever there is some."""

        def forward(self, x: Tensor) -> Tensor:
            calm = (x.flatten(1).std(1) < 0.01).float()
            return torch.stack([calm, 1 - calm], 1)

    found = seen(Swamped())
    assert (found.turned, found.abstained, found.predictions) == (1, 0, (1,))
    assert seen(Swamped(), label=1).turned == 0


def test_reasons_add_up_to_the_abstentions_in_a_fixed_order() -> None:
    few, spread, leaning = np.array([4, 3, 3]), np.array([97, 97, 96]), np.array([160, 140])
    calm, wild = np.array([100]), np.array([34, 33, 33])
    found = explained(
        [
            Undecided(few, spread, seen=0, label=0, calmer=wild),
            Undecided(few, spread, seen=0, label=0, calmer=calm),
            Undecided(few, leaning, seen=0, label=0),
            Undecided(few, leaning, seen=0, label=1),
        ],
        "sequential",
        sigma=SIGMA,
        alpha=0.001,
    )
    assert [(cause.reason, cause.images) for cause in found] == [
        ("too few draws", 2),
        ("sigma too large", 1),
        ("untrained for noise", 1),
    ]


def test_a_lead_too_small_for_any_number_of_draws_is_said_to_be() -> None:
    close = np.array([300_001, 300_000])  # 2^40 draws tell 1.5e-6 from nothing
    (told,) = explained([Undecided(np.array([1]), close, seen=0, label=0)], "fixed", sigma=SIGMA, alpha=0.001)
    assert told.finding == "one class leads, by too little for any number of draws"


def test_how_many_draws_it_would_take_is_told_for_the_method_that_is_used() -> None:
    leaning = Undecided(np.array([60, 40]), np.array([550, 450]), seen=0, label=0)
    (one,) = explained([leaning], "sequential", sigma=SIGMA, alpha=0.001)
    (other,) = explained([leaning], "fixed", sigma=SIGMA, alpha=0.001)
    needed = draws_for_majority(550, 1000, 0.001, "sequential")
    assert needed is not None and f"about {needed:,} draws" in one.finding and "--seed" not in one.finding
    fewer = draws_for_majority(550, 1000, 0.001, "fixed")
    assert fewer is not None and fewer < needed and f"about {fewer:,} draws" in other.finding
    assert "another --seed" in other.finding  # the same draws once more would be a second look at them
