"""Verdicts under attack, on a network whose robust accuracy is known."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks import autoattack
from kdcompress.data import Split
from kdcompress.evaluation import accuracy
from kdcompress.evaluation.accuracy import Verdicts, correct, rate, robust_rate, under_attack
from kdcompress.threat import ThreatModel

CPU = torch.device("cpu")


def attacked(
    model: nn.Module, images: Split, eps: float, attack: str = "pgd-5", batch_size: int = 25, **rest: object
) -> Verdicts:
    return under_attack(
        model,
        images,
        ThreatModel("Linf", eps),
        attack=attack,
        classes=2,
        seed=0,
        batch_size=batch_size,
        device=CPU,
        **rest,  # type: ignore[arg-type]
    )


def exactly(images: Split, eps: float) -> Tensor:
    """Right, and further than eps from one half."""
    mean = torch.cat([x for x, _ in images.batches(99)]).flatten(1).mean(1)
    return ((mean > 0.5) == (images.labels == 1)) & ((mean - 0.5).abs() > eps)


@pytest.mark.parametrize("eps", [0.005, 0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("batch_size", [1, 7, 25])
def test_on_a_linear_network_pgd_finds_the_true_robust_accuracy_whatever_the_batches(
    bright: nn.Module, greys: Split, eps: float, batch_size: int
) -> None:
    found = attacked(bright, greys, eps, batch_size=batch_size)
    assert torch.equal(found.robust, exactly(greys, eps))
    assert torch.equal(found.clean, exactly(greys, 0.0))
    assert found.attack == "PGD-5"


def test_an_image_that_is_wrong_stays_wrong_even_if_the_attack_makes_it_right(
    bright: nn.Module, greys: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kind(model: nn.Module, x: Tensor, y: Tensor, *_: object, **__: object) -> Tensor:
        return x + (2 * y - 1).view(-1, 1, 1, 1) * 0.3  # towards the label

    monkeypatch.setattr(accuracy, "pgd", kind)
    found = attacked(bright, greys, 0.3)
    assert not found.clean[-1] and not found.robust[-1]
    assert torch.equal(found.robust, found.clean)


def test_an_attack_that_leaves_the_ball_is_brought_back(
    bright: nn.Module, greys: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wild(model: nn.Module, x: Tensor, y: Tensor, *_: object, **__: object) -> Tensor:
        return x - (2 * y - 1).view(-1, 1, 1, 1) * 5.0

    monkeypatch.setattr(accuracy, "pgd", wild)
    found = attacked(bright, greys, 0.02)
    assert torch.equal(found.robust, exactly(greys, 0.02))


def test_autoattack_is_projected_counted_by_us_and_its_warnings_kept_once(
    bright: nn.Module, greys: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def package(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, **how: object) -> tuple[Tensor, list[str]]:
        seeds.append(how["seed"])  # type: ignore[arg-type]
        return x - (2 * y - 1).view(-1, 1, 1, 1) * 5.0, ["gradients vanish"]

    monkeypatch.setattr(autoattack, "adversarial_inputs", package)
    found = attacked(bright, greys, 0.02, attack="autoattack", batch_size=10)
    assert torch.equal(found.robust, exactly(greys, 0.02))
    assert found.warnings == ("gradients vanish",)
    assert seeds == [0, 1, 2]
    assert "not AutoAttack" in found.attack  # two classes


def test_the_real_package_breaks_what_can_be_broken(bright: nn.Module, greys: Split) -> None:
    near = greys.subset([11, 12, 13, 24])  # within 3 of 127.5, and the wrong label
    found = attacked(bright, near, 0.05, attack="autoattack")
    assert found.robust.tolist() == [False] * 4
    assert found.clean.tolist() == [True, True, True, False]


def test_images_that_are_all_wrong_need_no_attack(bright: nn.Module, greys: Split) -> None:
    found = attacked(bright, greys.subset([24, 24]), 0.05, attack="autoattack")
    assert found.clean.tolist() == found.robust.tolist() == [False, False]


def test_progress_counts_images_and_those_that_stand(bright: nn.Module, greys: Split) -> None:
    heard: list[tuple[str, int, int, int]] = []
    attacked(bright, greys, 0.05, batch_size=10, on_progress=lambda *now: heard.append(now))
    kept = exactly(greys, 0.05)
    ends = [done for done in heard if done[1] > 0 and done in heard]
    assert [now[1] for now in heard] == [0, 10, 10, 20, 20, 25]
    assert ends[-1] == ("PGD-5", 25, 25, int(kept.sum()))
    assert heard[1] == ("PGD-5", 10, 25, int(kept[:10].sum()))


def test_clean_accuracy_is_the_same_with_and_without_an_attack(bright: nn.Module, greys: Split) -> None:
    assert torch.equal(correct(bright, greys, batch_size=4, device=CPU), attacked(bright, greys, 0.1).clean)


def test_a_rate_counts_and_lies_in_its_interval() -> None:
    found = rate(torch.tensor([True, True, False, True]))
    assert (found.value, found.n) == (0.75, 4)
    assert 0 < found.low < 0.75 < found.high < 1
    assert rate(torch.ones(3).bool()).high == 1 and rate(torch.zeros(3).bool()).low == 0


def test_a_robust_rate_is_that_of_the_robust_verdicts_and_names_the_attack() -> None:
    found = robust_rate(Verdicts(torch.tensor([True, True]), torch.tensor([True, False]), "PGD-9", ()))
    assert (found.value, found.n, found.attack) == (0.5, 2, "PGD-9")
