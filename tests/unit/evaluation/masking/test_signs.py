"""Each statistic, on answers of attacks that are made up."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.evaluation.masking.black_box import Duel, black_box_is_stronger, transfer_is_stronger, unseen
from kdcompress.evaluation.masking.findings import at_least
from kdcompress.evaluation.masking.gradients import loss_along_gradient, vanished, vanishing_gradients
from kdcompress.evaluation.masking.outputs import non_finite, probabilities, randomness
from kdcompress.evaluation.masking.white_box import (
    UnitSpread,
    WhiteBox,
    accuracy_at_large_eps,
    breaks,
    large_threat,
    more_steps_help,
    one_step_is_stronger,
    restarts_help,
)
from kdcompress.maths.randomness import generator
from kdcompress.report import MaskingCheck
from kdcompress.threat import ThreatModel


def first(hits: int, n: int = 100) -> Tensor:
    return torch.arange(n) < hits


@pytest.mark.parametrize(
    ("check", "few", "many"),
    [
        (lambda hits: more_steps_help(WhiteBox(first(0), first(0), first(hits), first(0))), 15, 30),
        (lambda hits: restarts_help(WhiteBox(first(0), first(0), first(0), first(hits))), 15, 30),
        (lambda hits: one_step_is_stronger(WhiteBox(first(hits), first(0), first(0), first(0))), 3, 20),
        (lambda hits: accuracy_at_large_eps(~first(hits), ThreatModel("Linf", 0.5), 10), 10, 40),
        (lambda hits: black_box_is_stronger(first(hits)), 4, 10),
        (lambda hits: transfer_is_stronger(first(hits)), 4, 10),
        (lambda hits: loss_along_gradient((~first(hits)).float()), 10, 40),
        (lambda hits: vanishing_gradients(first(hits)), 10, 40),
    ],
    ids=["steps", "restarts", "one step", "large eps", "black box", "transfer", "rise", "vanishing"],
)
def test_a_few_images_are_chance_and_many_are_a_flag(check: object, few: int, many: int) -> None:
    assert callable(check)
    none, little, much = (check(hits) for hits in (0, few, many))
    assert not none.flagged and not little.flagged and much.flagged
    assert none.statistic <= little.statistic <= much.threshold < much.statistic
    assert f"{many} of 100" in much.finding


def test_what_one_step_breaks_counts_against_what_many_break() -> None:
    both = one_step_is_stronger(WhiteBox(first(50), ~first(50), ~first(50), first(0)))
    assert both.statistic is not None and both.statistic < 0


def test_two_classes_have_a_chance_of_one_half() -> None:
    assert accuracy_at_large_eps(~first(40), ThreatModel("Linf", 0.5), 2).threshold == 0.5


def test_the_bound_errs_no_more_often_than_it_says() -> None:
    """Exactly: the chance that the bound exceeds the true share, over all outcomes."""
    n, share = 50, 0.1
    weights = torch.distributions.Binomial(n, torch.tensor(share)).log_prob(torch.arange(n + 1.0)).exp()
    errs = sum(float(w) for hits, w in enumerate(weights) if at_least(hits, n) > share)
    assert errs <= 1e-3


def test_vanished_is_zero_not_finite_or_too_small_to_square() -> None:
    rows = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [1.0, torch.nan], [torch.inf, 0.0], [1e-12, 0.0], [0.0, -3.0]])
    assert vanished(rows.view(6, 1, 1, 2)).tolist() == [True, True, True, True, False, False]


def test_where_no_rise_can_be_told_nothing_is_said() -> None:
    risen = torch.full((100,), torch.nan)
    risen[:9] = 1
    assert loss_along_gradient(risen).statistic is None


def flagged(check: MaskingCheck) -> bool:
    return check.flagged


def test_probabilities_are_of_sum_one_and_not_negative() -> None:
    f = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert flagged(probabilities(f.softmax(1))) and flagged(probabilities(f.softmax(1).half()))
    assert not any(flagged(probabilities(g)) for g in (f, f.sigmoid(), f.log_softmax(1), f - f.mean(1, True) + 0.25))


def test_rounding_is_not_randomness_in_any_precision() -> None:
    f = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert not flagged(randomness(f, f * (1 + 1e-6)))
    assert not flagged(randomness(f.bfloat16(), (f * (1 + 4e-3)).bfloat16()))
    assert flagged(randomness(f, f, f + 1e-3))


def test_nan_is_not_randomness_but_not_finite() -> None:
    f = torch.full((3, 4), torch.nan)
    assert not flagged(randomness(f, f)) and flagged(non_finite(f))


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.5), ("L2", 8.0)])
def test_the_large_ball_holds_the_grey_image(norm: str, eps: float) -> None:
    x = torch.zeros(2, 1, 16, 16)
    assert large_threat(x, ThreatModel(norm, 0.1)) == ThreatModel(norm, eps)  # type: ignore[arg-type]
    assert large_threat(x, ThreatModel("Linf", 0.7)).eps == 0.7  # never smaller than what is asked


def test_the_large_ball_is_cut_where_no_threat_model_is_as_large() -> None:
    assert large_threat(torch.zeros(1, 3, 224, 224), ThreatModel("L2", 0.5)).eps == 100


def test_an_answer_with_nan_breaks_nothing() -> None:
    x = torch.tensor([torch.nan, 0.0]).view(2, 1, 1, 1)
    assert breaks(nn.Flatten(), x, torch.tensor([1, 1])).tolist() == [False, True]


def test_unit_spread_keeps_predictions_and_takes_the_scale_away(bright: nn.Module) -> None:
    x = torch.rand(9, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    unit = UnitSpread(bright, bright(x))
    assert torch.equal(unit(x).argmax(1), bright(x).argmax(1))
    assert float(unit(x).std(1).mean()) == pytest.approx(1)


def test_what_the_gradient_finds_for_that_rival_is_not_unseen(bright: nn.Module) -> None:
    """On a linear network the gradient finds every answer: nothing that another attack brings is unseen."""
    x, y = torch.full((4, 1, 3, 3), 0.55), torch.ones(4, dtype=torch.long)
    threat = ThreatModel("Linf", 0.1)
    answers = x - 0.1
    assert breaks(bright, answers, y).all()
    assert not unseen(bright, x, y, answers, threat, generator(0, "test")).any()
    assert not unseen(bright, x, y, x, threat, generator(0, "test")).any()  # not even broken


def test_a_duel_is_of_two() -> None:
    f = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    duel = Duel(nn.Identity(), torch.tensor([2, 0]), torch.tensor([0, 1]))
    assert duel(f).tolist() == [[3.0, 1.0], [4.0, 5.0]]
