"""Counting verdicts."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.plans import plan_of
from kdcompress.evaluation.accuracy import Verdicts, by_class, over_eps, predictions, rate, robust_rate
from kdcompress.evaluation.kept import STOOD, UNTRIED, WRONG
from kdcompress.maths.sequential import anytime_interval

RADII = (0.1, 0.2)
STEPS = torch.tensor([WRONG, STOOD, 0, 1, 2, 3, UNTRIED])


@pytest.fixture
def verdicts() -> Verdicts:
    """Two stages at two radii; image 0 wrong, 1 stood, 2 and 3 broken at the smaller radius, 4 and 5 at the larger."""
    predicted = torch.tensor([1, 0, 0, 0, 0, 0, 0])
    return Verdicts(
        plan=plan_of("apgd", classes=10, norm="Linf"),
        radii=RADII,
        predicted=predicted,
        right=predicted == 0,
        steps=STEPS,
        attacked=6,
        shown=torch.zeros(0, 1, 2, 2),
    )


def test_an_image_broken_at_one_radius_counts_as_broken_at_every_larger_one(verdicts: Verdicts) -> None:
    assert verdicts.stood(0.1).tolist() == [False, True, False, False, True, True, False]
    assert verdicts.stood(0.2).tolist() == [False, True, False, False, False, False, False]


def test_robust_accuracy_never_exceeds_clean_accuracy(verdicts: Verdicts) -> None:
    for eps in RADII:
        assert (verdicts.stood(eps) <= verdicts.right).all()


def test_the_text_names_the_stage_that_broke_an_image_at_that_radius(verdicts: Verdicts) -> None:
    assert verdicts.text(0.1) == "x.01..?"
    assert verdicts.text(0.2) == "x.0101?"


def test_images_that_were_not_attacked_are_not_counted(verdicts: Verdicts) -> None:
    found = robust_rate(verdicts, 0.2, chunk=7)
    assert (found.value, found.n, found.chunk) == (1 / 6, 6, 7)
    assert (found.attack, found.stages) == ("APGD-CE and APGD-T", ("apgd-ce", "apgd-t"))
    assert [(point.eps, point.value) for point in over_eps(verdicts)] == [(0.1, 0.5), (0.2, pytest.approx(1 / 6))]


def test_where_the_attack_was_free_to_stop_the_interval_allows_for_it(verdicts: Verdicts) -> None:
    fixed, free = robust_rate(verdicts, 0.1, chunk=1), robust_rate(verdicts, 0.1, chunk=1, stops=True)
    assert (free.interval, fixed.interval) == ("anytime-valid", "Clopper-Pearson")
    assert (free.low, free.high) == anytime_interval(3, 6)
    assert free.low < fixed.low < fixed.high < free.high


def test_classes_are_counted_each_on_its_own_images(verdicts: Verdicts) -> None:
    labels = torch.tensor([0, 0, 0, 2, 2, 2, 3])
    found = by_class(labels, verdicts.right, verdicts, 0.1, ("a", "b", "c", "d"))
    assert [(one.name, one.clean.value, one.clean.n) for one in found] == [("a", 2 / 3, 3), ("c", 1, 3), ("d", 1, 1)]
    assert [one.robust and one.robust.value for one in found] == [1 / 3, 2 / 3, None]
    assert all(one.robust is None for one in by_class(labels, verdicts.right, None, 0.1, ("a", "b", "c", "d")))


def test_a_randomised_network_is_judged_by_the_mean_of_its_draws() -> None:
    class Coin(nn.Module):
        """Class 1 three times in four, and then just so; else class 0 by far."""

        def forward(self, x: Tensor) -> Tensor:
            rare = torch.rand(len(x)) < 0.25
            return torch.stack([rare * 20.0, torch.full((len(x),), 0.5)], 1)

    torch.manual_seed(0)
    x = torch.zeros(200, 1, 2, 2)
    one, many = predictions(Coin(), x), predictions(Coin(), x, draws=400)
    assert 0.6 < one.float().mean() < 0.9
    # Mean probability of class 0: 1/4 + 3/4 * .38 = .53.
    assert (many == 0).float().mean() > 0.8


def test_a_rate_counts_and_lies_in_its_interval() -> None:
    found = rate(torch.tensor([True, True, False, True]))
    assert (found.value, found.n) == (0.75, 4)
    assert 0 < found.low < 0.75 < found.high < 1
    assert rate(torch.ones(3).bool()).high == 1 and rate(torch.zeros(3).bool()).low == 0
