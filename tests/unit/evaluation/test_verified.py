"""Verified accuracy on a network whose robust accuracy is known, and what a kill costs."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.plans import plan_of
from kdcompress.bounds import verify
from kdcompress.bounds.verify import bounded
from kdcompress.data import Split
from kdcompress.errors import UnsupportedLayerError, UsageError
from kdcompress.evaluation import verified as verified_module
from kdcompress.evaluation.attacking import Conditions, under_attack
from kdcompress.evaluation.verified import broken_at, broken_by_pgd, prepared, verified
from kdcompress.report import Verified

CPU = torch.device("cpu")
RADII = (0.005, 0.02, 0.05)


class Linear(nn.Module):
    """Class 1 where the mean is above one half, 100 times over: a linear network, with ReLUs that come to nothing."""

    def forward(self, x: Tensor) -> Tensor:
        m = 100 * (x.flatten(1).mean(1, keepdim=True) - 0.5)
        m = m.relu() - (-m).relu()
        return m @ torch.tensor([[-1.0, 1.0]])


@pytest.fixture
def few(greys: Split) -> Split:
    """Far from the boundary on both sides, near it, and one with the wrong label."""
    return greys.subset([0, 9, 11, 12, 13, 15, 20, 24])


@pytest.fixture
def linear() -> nn.Module:
    return Linear().eval()


def certified(model: nn.Module, images: Split, **rest: object) -> Verified:
    return verified(prepared(model, (1, 3, 3)), images, "Linf", RADII, device=CPU, **rest)  # type: ignore[arg-type]


def distances(images: Split) -> Tensor:
    """To the boundary; below zero where misclassified."""
    mean = torch.cat([x for x, _ in images.batches(99)]).flatten(1).mean(1)
    return (mean - 0.5) * (2 * images.labels - 1)


def test_on_a_linear_network_verified_accuracy_is_robust_accuracy(linear: nn.Module, few: Split) -> None:
    found, exact = certified(linear, few), distances(few)
    assert [at.eps for at in found.at] == list(RADII)
    for at in found.at:
        assert (at.verified, at.n) == (int((exact > at.eps).sum()), len(few))
        assert at.value == at.verified / at.n and at.low <= at.value <= at.high
        assert at.wrong == int((exact <= 0).sum())
        assert at.verified + at.broken + at.wrong + at.open == at.n
        assert at.broken == int(((exact > 0) & (exact <= at.eps)).sum()) and at.open == 0
    assert found.attack == "PGD-20"


def test_the_largest_radii_are_the_distances_to_the_tolerance(linear: nn.Module, few: Split) -> None:
    found, exact = certified(linear, few), distances(few).clamp(min=0)
    largest = torch.tensor(found.largest)
    assert (largest <= exact + 1e-6).all()
    assert (largest >= exact / (1 + found.tolerance) - 1e-5).all()
    low, high = sorted(found.largest)[3:5]
    assert low < high and found.median == (low + high) / 2  # of eight images


def test_without_the_search_there_are_verdicts_alone(linear: nn.Module, few: Split) -> None:
    found = certified(linear, few, largest=False)
    assert found.largest == () and found.median is None
    assert [at.verified for at in found.at] == [at.verified for at in certified(linear, few).at]


def test_a_network_that_bounds_cannot_pass_is_said_to_be_so(few: Split) -> None:
    found = certified(nn.Sequential(nn.MaxPool2d(3), nn.Flatten(), nn.Linear(1, 2)).eval(), few)
    assert found.unsupported == "not supported: 0 (MaxPool2d): max_pool2d"
    assert found.at == () and found.n == len(few)


def test_a_network_that_is_too_large_is_said_to_be_so_and_no_memory_is_asked_of_it(linear: nn.Module) -> None:
    with pytest.raises(UnsupportedLayerError, match="too large: one bound of one image takes"):
        bounded(linear, (1, 3, 3), memory=1, most_work=10.0)


def test_too_little_memory_is_an_error_where_it_was_named_and_else_said_of_the_network(
    linear: nn.Module, few: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"need at least \d+ MiB; the limit is 1 MiB"):
        prepared(linear, (1, 3, 3), memory=2**20)
    monkeypatch.setattr(verify, "available_memory", lambda device: 2**22)
    found = certified(linear, few)
    assert found.unsupported is not None and found.at == ()
    assert re.match(r"too large: sound bounds of this network need at least \d+ MiB", found.unsupported)


def test_a_norm_without_bounds_is_a_usage_error(linear: nn.Module, few: Split) -> None:
    with pytest.raises(UsageError, match="Linf or L2"):
        verified(prepared(linear, (1, 3, 3)), few, "L1", (0.1,), device=CPU)


def test_what_an_attack_broke_is_not_bounded(linear: nn.Module, few: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    honest = verified_module.certificate

    def watched(*args: object, broken_at: float, **rest: object) -> object:
        asked.append(broken_at)
        return honest(*args, broken_at=broken_at, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(verified_module, "certificate", watched)
    fallen = torch.full((len(few),), math.inf, dtype=torch.float64)
    fallen[3] = 0.005
    found = certified(linear, few, broken=("by hand", fallen))
    assert asked == fallen.tolist()
    assert found.attack == "by hand" and found.largest[3] < 0.005


def test_verdicts_of_an_evaluation_tell_where_each_image_broke(linear: nn.Module, few: Split) -> None:
    plan = plan_of("pgd-5", classes=2, norm="Linf")
    verdicts = under_attack(linear, few, Conditions(plan, "Linf", RADII, 0, 25, 25, CPU))
    exact = distances(few).tolist()
    expected = [next((eps for eps in RADII if 0 < d <= eps), math.inf) if d > 0 else math.inf for d in exact]
    assert broken_at(verdicts).tolist() == expected
    assert broken_by_pgd(linear, few, "Linf", RADII, device=CPU).tolist() == expected


class KilledError(Exception):
    pass


def test_killed_and_started_again_it_goes_on_where_it_was(
    linear: nn.Module, few: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = verified_module.certificate, 0

    def mortal(*args: object, **rest: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KilledError
        return honest(*args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(verified_module, "certificate", mortal)
    with pytest.raises(KilledError):
        certified(linear, few, folder=tmp_path)
    heard: list[tuple[int, int]] = []
    found = certified(linear, few, folder=tmp_path, on_progress=lambda done, total: heard.append((done, total)))
    assert calls == 4 + len(few) - 3
    assert heard == [(i, len(few)) for i in range(len(few) + 1)]
    whole = certified(linear, few)
    assert found.model_copy(update={"seconds": 0}) == whole.model_copy(update={"seconds": 0})


def test_the_same_question_is_answered_from_what_was_kept(
    linear: nn.Module, few: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = certified(linear, few, folder=tmp_path)
    monkeypatch.setattr(verified_module, "certificate", None)
    assert certified(linear, few, folder=tmp_path) == first


def test_what_another_attack_broke_is_asked_anew(linear: nn.Module, few: Split, tmp_path: Path) -> None:
    standing = torch.full((len(few),), math.inf, dtype=torch.float64)
    fallen = standing.clone()
    fallen[0] = 0.005
    assert certified(linear, few, folder=tmp_path, broken=("none", standing)).largest[0] > 0.1
    assert certified(linear, few, folder=tmp_path, broken=("by hand", fallen)).largest[0] < 0.005


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_folder_that_cannot_be_written_costs_the_memory_alone_and_is_said_once(
    linear: nn.Module, few: Split, tmp_path: Path, inside: str
) -> None:
    (tmp_path / "file").write_text("")
    heard: list[str] = []
    found = certified(linear, few, folder=tmp_path / "file" / inside, note=heard.append)
    assert len(heard) == 1 and "cannot be kept in" in heard[0] and "starts over" in heard[0]
    assert found.at == certified(linear, few).at


def test_the_attack_sees_no_more_images_a_forward_than_it_is_told_and_breaks_the_same(
    linear: nn.Module, greys: Split
) -> None:
    seen: list[int] = []
    linear.register_forward_hook(lambda module, inputs, logits: seen.append(len(inputs[0])))
    few = broken_by_pgd(linear, greys, "Linf", RADII, device=CPU, batch_size=4)
    assert max(seen) <= 4
    assert torch.equal(few, broken_by_pgd(linear, greys, "Linf", RADII, device=CPU))


class Steeper(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tensor([0.0, 1e-3])


def test_another_network_or_damaged_files_are_asked_anew(linear: nn.Module, few: Split, tmp_path: Path) -> None:
    first = certified(linear, few, folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(few)
    certified(Steeper().eval(), few, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * len(few)
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:-3])
    again = certified(linear, few, folder=tmp_path)
    assert again.largest == first.largest and again.at == first.at
