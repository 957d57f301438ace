"""Every planted defence is flagged, by the check that is meant for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.evaluation.masking.look import check_masking
from kdcompress.report import Masking
from kdcompress.threat import ThreatModel
from tests.defences import Then, distilled_at, frozen, int8, jagged, misleading, planted, signs

Images = tuple[Tensor, Tensor]
LINF, L2 = ThreatModel("Linf", 0.15), ThreatModel("L2", 1.0)
MEANT_FOR = {
    "logits times 1e4": "vanishing gradients",
    "rounding of the input": "vanishing gradients",
    "softmax output": "probabilities as outputs",
    "inference noise": "randomness",
}


def flags(model: nn.Module, images: Images, threat: ThreatModel = LINF, other: nn.Module | None = None) -> set[str]:
    found = looked(model, images, threat, other)
    assert found.reasons == tuple(check.finding for check in found.checks if check.flagged)
    return {check.name for check in found.checks if check.flagged}


def looked(model: nn.Module, images: Images, threat: ThreatModel = LINF, other: nn.Module | None = None) -> Masking:
    return check_masking(model, *images, threat, classes=10, seed=0, transfer_from=other)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("name", MEANT_FOR)
def test_a_defence_around_a_natural_network_is_flagged(
    natural: nn.Module, digits: Images, name: str, threat: ThreatModel
) -> None:
    assert MEANT_FOR[name] in flags(planted(natural)[name], digits, threat)


@pytest.mark.parametrize("name", MEANT_FOR)
def test_a_defence_around_a_robust_network_is_flagged(teacher: nn.Module, digits: Images, name: str) -> None:
    x, y = digits
    assert MEANT_FOR[name] in flags(planted(teacher)[name], (x[:20], y[:20]))


def test_a_network_of_signs_is_flagged(train: Split, digits: Images) -> None:
    network = signs(train, epochs=5)
    assert "vanishing gradients" in flags(network, digits)
    assert not has_gradients(network, *digits)


def test_defensive_distillation_at_100_is_flagged(train: Split, digits: Images) -> None:
    network = distilled_at(100, train, epochs=10)
    assert "vanishing gradients" in flags(network, digits)
    assert has_gradients(network, *digits)  # another loss than CE finds the way: no surrogate is needed


def test_a_converted_int8_network_is_flagged_and_needs_a_surrogate(
    natural: nn.Module, train: Split, digits: Images
) -> None:
    network = int8(natural, train)
    found = looked(network, digits)
    assert [check.name for check in found.checks if check.flagged] == ["vanishing gradients"]
    assert "no white-box attack can be made" in found.reasons[0]
    assert not has_gradients(network, *digits)


def test_noise_a_hundredth_of_what_anyone_would_plant_is_flagged_and_named(natural: nn.Module, digits: Images) -> None:
    network = frozen(Then(natural, before=lambda x: x + 0.001 * torch.randn_like(x)))
    (reason,) = looked(network, digits).reasons
    assert "--attack autoattack-rand" in reason


def test_gradients_that_point_astray_are_flagged_by_every_comparison_of_attacks(
    natural: nn.Module, digits: Images
) -> None:
    found = flags(frozen(Then(natural, before=misleading)), digits, ThreatModel("Linf", 0.15), other=natural)
    assert found >= {"loss along the gradient", "black box against white box", "transfer against white box"}


def test_shattered_gradients_are_flagged(natural: nn.Module, digits: Images) -> None:
    assert flags(frozen(Then(natural, before=jagged)), digits)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: (x - x).sqrt() + x,  # the root's slope at zero is infinite, times zero NaN
        lambda x: x.detach(),
    ],
    ids=["NaN", "none"],
)
def test_gradients_that_are_nan_or_not_there_are_findings_and_no_errors(
    natural: nn.Module, digits: Images, broken: Callable[[Tensor], Tensor]
) -> None:
    network = frozen(Then(natural, before=broken))
    assert "vanishing gradients" in flags(network, digits)
    assert not has_gradients(network, *digits)


def test_outputs_that_are_not_finite_are_a_finding_and_no_error(natural: nn.Module, digits: Images) -> None:
    x, _ = digits
    bright = x.flatten(1).mean(1).median()
    spoilt = frozen(Then(natural, before=lambda x: x / (x.flatten(1).mean(1) <= bright).view(-1, 1, 1, 1)))
    found = looked(spoilt, digits)
    assert found.checks[0].flagged and "NaN or infinite" in found.reasons[0]
    assert looked(frozen(Then(natural, after=lambda f: f * torch.nan)), digits).checks[0].statistic == 1
