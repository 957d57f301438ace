"""What `check_masking` guarantees beyond its flags."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.evaluation.masking.look import SIGNS, check_masking
from kdcompress.report import MaskingCheck
from kdcompress.threat import ThreatModel
from tests.defences import Then, frozen, planted

Images = tuple[Tensor, Tensor]
LINF = ThreatModel("Linf", 0.15)


def checks(model: nn.Module, x: Tensor, y: Tensor, **how: object) -> tuple[MaskingCheck, ...]:
    return check_masking(model, x, y, LINF, classes=10, **{"seed": 0, **how}).checks  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_findings_even_of_a_random_network(natural: nn.Module, digits: Images) -> None:
    noisy = planted(natural)["inference noise"]
    first, again, other = (checks(noisy, *digits, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_the_random_state_of_the_process_is_left_as_it_was(natural: nn.Module, digits: Images) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    checks(planted(natural)["inference noise"], *digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_sign_is_looked_for_in_order_and_told(natural: nn.Module, digits: Images) -> None:
    told: list[tuple[int, int]] = []
    found = checks(natural, *digits, on_progress=lambda done, total: told.append((done, total)))
    assert [check.name for check in found] == [sign.name for sign in SIGNS]
    assert told == [(n, len(SIGNS)) for n in range(1, len(SIGNS) + 1)]
    assert found[-1].statistic is None and "no other network" in found[-1].finding


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_the_batch_size_changes_no_verdict(natural: nn.Module, digits: Images, batch_size: int) -> None:
    found = checks(natural, *digits, batch_size=batch_size, transfer_from=natural)
    assert not any(check.flagged for check in found)
    assert all(check.statistic is not None for check in found)


def test_what_needs_images_rightly_classified_does_not_apply_to_fewer_than_ten(
    natural: nn.Module, digits: Images
) -> None:
    x, y = digits
    found = checks(natural, x, (y + 1) % 10)
    assert [check.statistic is None for check in found] == [False] * 3 + [True] * 8
    assert not any(check.flagged for check in found)
    assert "classified rightly" in found[-1].finding


def test_without_gradients_the_rest_is_said_not_to_be_measured(natural: nn.Module, digits: Images) -> None:
    found = checks(frozen(Then(natural, before=torch.Tensor.detach)), *digits)
    assert [check.statistic is None for check in found] == [False] * 4 + [True] * 7
    assert found[-1].finding == "not measured: the network has no gradients"


def test_images_that_square_cannot_take_leave_its_check_out_under_l2(natural: nn.Module, digits: Images) -> None:
    x, y = digits
    tall = frozen(Then(natural, before=lambda x: x[:, :, ::2]))
    found = check_masking(tall, x.repeat_interleave(2, 2), y, ThreatModel("L2", 0.5), classes=10, seed=0).checks
    assert found[-2].statistic is None and "Square needs" in found[-2].finding


def test_the_logits_own_scale_is_out_of_the_attacks(natural: nn.Module, digits: Images) -> None:
    plain, loud = (checks(frozen(Then(natural, after=lambda f, s=s: s * f)), *digits) for s in (1.0, 2.0**10))  # type: ignore[misc]
    assert [check.statistic for check in plain[4:]] == [check.statistic for check in loud[4:]]
    assert loud[3].flagged and not plain[3].flagged


def test_a_call_that_is_wrong_is_an_error_and_no_finding(natural: nn.Module, digits: Images) -> None:
    x, y = digits
    with pytest.raises(RuntimeError):
        has_gradients(natural, x[:, :, :7], y)


def test_memory_that_runs_out_is_an_error_and_no_finding(natural: nn.Module, digits: Images) -> None:
    def full(f: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("full")
        return f

    with pytest.raises(torch.OutOfMemoryError):
        has_gradients(frozen(Then(natural, after=full)), *digits)
