import logging
import sys
from types import FrameType
from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.autoattack import (
    ATTACKS,
    LOGGER,
    Version,
    answers,
    attack_name,
    attacks_of,
    is_dynamic,
    refuse_shape,
)
from kdcompress.errors import UsageError
from kdcompress.threat import NORMS, Norm, ThreatModel

NAMES = {
    10: "AutoAttack standard",
    5: "AutoAttack standard, 4 targets",
    4: "AutoAttack standard, 3 targets",
    3: "reduced set (not AutoAttack): apgd-ce, apgd-dlr, fab-t, square",
    2: "reduced set (not AutoAttack): apgd-ce, fab-t, square",
}
RADII: dict[Norm, float] = {"Linf": 0.03, "L2": 0.15, "L1": 0.5}


def always(figure: int) -> property:
    """An attribute that ignores what it is set to."""
    return property(lambda self: figure, lambda self, value: None)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the iterations and a hundredth of the queries, whatever is set: seconds instead of minutes."""
    for name, attribute, most in (
        ("APGDAttack", "n_iter", 10),
        ("APGDAttack_targeted", "n_iter", 10),
        ("FABAttack_PT", "n_iter", 10),
        ("SquareAttack", "n_queries", 50),
    ):
        kind = getattr(pyautoattack.autoattack, name)
        monkeypatch.setattr(pyautoattack.autoattack, name, type(name, (kind,), {attribute: always(most)}))


def network(classes: int = 10, channels: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


def images(model: nn.Module, count: int = 3, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Images and what the model says of them."""
    x = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, model(x).argmax(1)


def run_through(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    classes: int,
    seed: int,
    version: Version = "standard",
) -> Tensor:
    """Every attack of the version, each on the images that still stand: what an evaluation does."""
    found = x.clone()
    standing = model(x).argmax(1) == y
    for attack in attacks_of(version, classes):
        if standing.any():
            answer, _ = answers(
                attack, model, x[standing], y[standing], threat, classes=classes, seed=seed, version=version
            )
            broken = model(answer).argmax(1) != y[standing]
            at = standing.nonzero().flatten()[broken]
            found[at], standing[at] = answer[broken], False
    return found


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("version", ATTACKS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_answer_is_that_of_a_direct_call_with_the_same_seed_and_batch(norm: Norm, version: Version) -> None:
    model = network()
    x, y = images(model, 8)
    eps = RADII[norm]
    direct = pyautoattack.AutoAttack(model, norm=norm, eps=eps, seed=5, version=version)
    expected, _ = direct.run_standard_evaluation(x, y, batch_size=8)
    found = run_through(model, x, y, ThreatModel(norm, eps), classes=10, seed=5, version=version)
    assert torch.equal(found, expected)
    stood = (found == x).flatten(1).all(1)
    assert stood.any()  # so that every attack ran
    assert not stood.all()  # and one of them succeeded


def figures(attack: object) -> dict[str, object]:
    return {name: value for name, value in vars(attack).items() if isinstance(value, int | float)}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", NAMES)
def test_the_package_is_set_as_its_standard_version_but_for_targets_that_exist(
    classes: int, norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    for name in ("APGDAttack", "APGDAttack_targeted", "FABAttack_PT", "SquareAttack"):
        kind = getattr(pyautoattack.autoattack, name)

        def note(self: Any, x: Tensor, y: Tensor, name: str = name) -> Tensor:
            seen[name] = self
            return x

        monkeypatch.setattr(kind, "perturb", note)
    model = network(classes)
    x, y = images(model)
    standard = pyautoattack.AutoAttack(model, norm=norm, eps=0.1, seed=7, version="standard")
    theirs = {
        "apgd-ce": ("APGDAttack", standard.apgd),
        "apgd-t": ("APGDAttack_targeted", standard.apgd_targeted),
        "fab-t": ("FABAttack_PT", standard.fab),
        "square": ("SquareAttack", standard.square),
    }
    for attack in attacks_of("standard", classes):
        answers(attack, model, x, y, ThreatModel(norm, 0.1), classes=classes, seed=7)
        if attack not in theirs:
            continue
        name, their = theirs[attack]
        mine, expected = figures(seen[name]), figures(their)
        targets = expected.pop("n_target_classes", None)
        if targets is not None:
            assert mine.pop("n_target_classes") == min(int(str(targets)), classes - 1)
        mine.pop("targeted", None), expected.pop("targeted", None)
        assert mine == expected


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("classes", NAMES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("version", ATTACKS)
def test_any_number_of_classes_runs_the_attacks_that_its_name_says(classes: int, norm: Norm, version: Version) -> None:
    model = network(classes)
    x, y = images(model)
    found = run_through(model, x, y, ThreatModel(norm, 0.001), classes=classes, seed=0, version=version)
    assert found.shape == x.shape
    said = attack_name(version, classes).partition(": ")[2]
    assert attacks_of(version, classes) == (tuple(said.split(", ")) if said else ATTACKS[version])


@pytest.mark.parametrize("classes", NAMES)
def test_a_reduced_set_is_not_called_autoattack(classes: int) -> None:
    assert attack_name("standard", classes) == NAMES[classes]
    assert attack_name("plus", 3).startswith("reduced set (not AutoAttack)")
    assert attack_name("rand", 2) == "reduced set (not AutoAttack): apgd-ce"


@pytest.mark.usefixtures("short")
def test_three_channels_are_attacked_and_answers_stay_in_the_ball() -> None:
    model = network(channels=3)
    x, y = images(model, 4, channels=3)
    found = run_through(model, x, y, ThreatModel("Linf", 0.1), classes=10, seed=0)
    assert (found - x).abs().max() <= 0.1 + 1e-6
    assert found.ge(0).all()
    assert found.le(1).all()
    assert (model(found).argmax(1) != y).any()
    assert not found.requires_grad


def test_what_the_package_warns_of_is_said_once_in_one_line_that_needs_no_other_document() -> None:
    class Flat(nn.Module):
        """Large margins and no gradient."""

        def forward(self, x: Tensor) -> Tensor:
            return network()(x).sign() * 100 + 0 * x.sum()

    model = Flat()
    x, y = images(model)
    _, warnings = answers("apgd-t", model, x, y, ThreatModel("Linf", 0.1), classes=10, seed=0)
    assert len(warnings) == 1
    assert "zero gradient" in warnings[0]
    assert "See" not in warnings[0]


def test_a_network_that_calls_autograd_is_told_from_one_that_does_not_whoever_came_first() -> None:
    class Purifier(nn.Module):
        """Takes a gradient step on its inputs before it answers."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                copy = x.detach().requires_grad_()
                (step,) = torch.autograd.grad(self.network(copy).sum(), copy)
            logits: Tensor = self.network(x - 0.01 * step)
            return logits

    x, _ = images(network())
    assert is_dynamic(Purifier().eval(), x)
    assert not is_dynamic(network(), x)


def trace(frame: FrameType, event: str, argument: object) -> None:
    """Traces nothing."""


@pytest.mark.parametrize("fails", [False, True])
def test_trace_function_logger_and_shared_randomness_are_given_back_even_after_an_error(fails: bool) -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    model = network()
    x, y = images(model)
    LOGGER.setLevel(logging.ERROR)
    state = torch.get_rng_state()
    before = (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
    outer = sys.gettrace()  # a coverage tool's
    sys.settrace(trace)
    try:
        if fails:
            with pytest.raises(ZeroDivisionError):
                answers("apgd-ce", Failing(), x, y, ThreatModel("Linf", 0.3), classes=10, seed=0)
        else:
            answers("apgd-ce", model, x, y, ThreatModel("Linf", 0.3), classes=10, seed=0)
        kept = sys.gettrace()
    finally:
        sys.settrace(outer)
        after = (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
        LOGGER.setLevel(logging.NOTSET)
    assert kept is trace
    assert after == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("short")
def test_nothing_is_printed_or_logged_to_others(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = network().append(nn.Softmax(1))  # which is warned about
    x, y = images(model)
    with caplog.at_level(logging.DEBUG):
        run_through(model, x, y, ThreatModel("L2", 0.01), classes=10, seed=0)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("size", [(3, 12, 8), (1, 4, 4), (1, 4, 8)])
def test_shapes_on_which_square_fails_under_l2_are_refused_beforehand(size: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match=f"got {size[1]}x{size[2]}"):
        refuse_shape(size, "L2")
    refuse_shape(size, "Linf")


@pytest.mark.parametrize("size", [(1, 5, 5), (1, 5, 9)])
def test_the_shapes_that_are_let_through_under_l2_can_be_attacked(
    size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_shape(size, "L2")
    network = nn.Sequential(nn.Flatten(), nn.Linear(size[1] * size[2], 10)).eval()
    inputs, labels = torch.rand(2, *size), torch.tensor([0, 1])
    square = pyautoattack.AutoAttack(network, norm="L2", eps=0.1, seed=0, device="cpu").square
    square.n_queries = 5
    assert square.perturb(inputs, labels).shape == inputs.shape
