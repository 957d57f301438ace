"""What an --attack runs, and what the report calls it."""

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from kdcompress.attacks.plans import Plan, plan_of, with_surrogates, without_gradients
from kdcompress.attacks.slices import Sliced
from kdcompress.threat import NORMS, Norm, ThreatModel


def stages(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.stages]


@pytest.mark.parametrize(
    ("attack", "name", "runs"),
    [
        ("autoattack", "AutoAttack standard", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        ("autoattack-plus", "AutoAttack plus", ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]),
        ("autoattack-rand", "AutoAttack rand, predictions by the mean of 20 draws", ["apgd-ce", "apgd-dlr"]),
        ("apgd", "APGD-CE and APGD-T", ["apgd-ce", "apgd-t"]),
        ("square", "Square, 5000 queries", ["square"]),
        ("screen", "screening (not AutoAttack): apgd-ce, apgd-t, 20 steps, 3 targets", ["apgd-ce", "apgd-t"]),
        ("pgd-50", "PGD-50", ["pgd-50"]),
    ],
)
def test_every_attack_is_named_for_what_it_runs(attack: str, name: str, runs: list[str]) -> None:
    plan = plan_of(attack, classes=10, norm="Linf")
    assert (plan.name, stages(plan)) == (name, runs)
    assert plan.draws == (20 if attack == "autoattack-rand" else 1)


@pytest.mark.parametrize("attack", ["apgd", "square", "screen", "pgd-3"])
def test_a_fast_path_is_never_called_autoattack(attack: str) -> None:
    assert "AutoAttack" not in plan_of(attack, classes=10, norm="Linf").name.replace("not AutoAttack", "")


@pytest.mark.parametrize("classes", [2, 3])
def test_with_few_classes_the_fast_paths_take_the_losses_that_exist(classes: int) -> None:
    losses = ["apgd-ce", "apgd-dlr"][: classes - 1]
    assert stages(plan_of("apgd", classes=classes, norm="Linf")) == losses
    assert stages(plan_of("screen", classes=classes, norm="Linf")) == losses


@pytest.mark.parametrize("attack", ["autoattack", "apgd", "pgd-5"])
def test_without_gradients_white_box_stages_go_to_the_surrogate_and_square_to_the_network(attack: str) -> None:
    plan = plan_of(attack, classes=10, norm="Linf")
    found = without_gradients(plan, ["its parent"])
    assert [stage.on for stage in found.stages] == [0] * (len(found.stages) - 1) + [None]
    assert stages(found)[-2:] == ["pgd-100 on surrogate", "square"]
    assert found.name.startswith(f"no gradients, so in place of {plan.title}: ")
    assert "its parent" in found.name


def test_without_gradients_or_a_surrogate_square_is_left() -> None:
    found = without_gradients(plan_of("autoattack", classes=10, norm="Linf"), [])
    assert (stages(found), found.name) == (["square"], "no gradients, so in place of AutoAttack standard: square")


def test_a_surrogate_for_a_network_with_gradients_adds_to_the_attack() -> None:
    found = with_surrogates(plan_of("pgd-5", classes=10, norm="Linf"), ["net in a.pt"])
    assert stages(found) == ["pgd-5", "pgd-100 on surrogate"]
    assert found.name == "PGD-5, then pgd-100 on surrogate (net in a.pt)"


def test_each_of_several_surrogates_is_attacked_in_its_turn() -> None:
    blind = without_gradients(plan_of("pgd-5", classes=10, norm="Linf"), ["parent", "copy"])
    assert [stage.on for stage in blind.stages] == [0, 0, 1, 1, None]
    assert stages(blind)[1:4] == ["pgd-100 on surrogate 1", "pgd-5 on surrogate 2", "pgd-100 on surrogate 2"]
    assert "(1: parent; 2: copy)" in blind.name
    seeing = with_surrogates(plan_of("pgd-5", classes=10, norm="Linf"), ["parent", "copy"])
    assert [stage.on for stage in seeing.stages] == [None, 0, 1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["autoattack", "autoattack-plus", "autoattack-rand", "screen", "pgd-7"])
def test_the_cost_of_a_stage_is_of_the_order_of_what_it_does(attack: str, norm: Norm) -> None:
    """It serves the time left, which is wrong where it is wrong; an early success ends an attack sooner."""
    torch.manual_seed(0)
    model = Sliced(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval().requires_grad_(False), 1)
    x = torch.rand(1, 1, 8, 8)
    y = model(x).argmax(1)
    for stage in plan_of(attack, classes=10, norm=norm).stages:
        model.work = 0
        stage.run(model, x, y, ThreatModel(norm, 1e-4), 0)
        assert 0.5 < model.work / stage.cost < 2, stage.name


@pytest.mark.parametrize("norm", NORMS)
def test_screening_is_apgd_built_for_twenty_steps(norm: Norm, robust: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = robust
    threat = ThreatModel(norm, {"Linf": 0.1, "L2": 0.6, "L1": 3.0}[norm])
    first = plan_of("screen", classes=10, norm=norm).stages[0]
    answer, _ = first.run(model, x, y, threat, 3)
    runner = APGDAttack(model, n_iter=20, norm=norm, eps=threat.eps, seed=3, device=torch.device("cpu"))
    runner.n_restarts, runner.use_largereps = (5, True) if norm == "L1" else (1, False)
    with torch.random.fork_rng(), torch.no_grad():
        direct = runner.perturb(x.clone(), y.clone())
    assert torch.equal(answer, direct)
    assert not torch.equal(answer, x)


@pytest.fixture
def robust() -> tuple[nn.Module, Tensor, Tensor]:
    """A network that falls to some attacks and not to others, and images that it classifies rightly."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).eval().requires_grad_(False)
    x = torch.rand(8, 1, 8, 8)
    return model, x, model(x).argmax(1)
