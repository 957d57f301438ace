import logging
import sys
from types import FrameType
from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.autoattack import LOGGER, adversarial_inputs, attack_name, refuse_shape
from kdcompress.errors import UsageError
from kdcompress.threat import NORMS, Norm, ThreatModel

STANDARD = ["apgd-ce", "apgd-t", "fab-t", "square"]
NAMES = {
    10: "AutoAttack standard",
    5: "AutoAttack standard, 4 targets",
    4: "AutoAttack standard, 3 targets",
    3: "reduced set (not AutoAttack): apgd-ce, apgd-dlr, fab-t, square",
    2: "reduced set (not AutoAttack): apgd-ce, fab-t, square",
}


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


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.03), ("L2", 0.15)])
def test_the_answer_is_that_of_a_direct_call_with_the_same_seed_and_batch(norm: Norm, eps: float) -> None:
    model = network()
    x, y = images(model, 8)
    direct = pyautoattack.AutoAttack(model, norm=norm, eps=eps, seed=5, version="standard")
    expected, _ = direct.run_standard_evaluation(x, y, batch_size=8)
    found, _ = adversarial_inputs(model, x, y, ThreatModel(norm, eps), classes=10, seed=5)
    assert torch.equal(found, expected)
    stood = (found == x).flatten(1).all(1)
    assert stood.any()  # so that every attack ran
    assert not stood.all()  # and one of them succeeded


@pytest.mark.parametrize("classes", NAMES)
def test_the_package_is_set_as_its_standard_version_but_for_targets_that_exist(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def note(self: Any, x: Tensor, y: Tensor, *, batch_size: int) -> tuple[Tensor, Tensor]:
        seen.append((self, batch_size))
        return x, y

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", note)

    def figures(attack: object) -> dict[str, object]:
        return {name: value for name, value in vars(attack).items() if isinstance(value, int | float)}

    model = network(classes)
    x, y = images(model)
    adversarial_inputs(model, x, y, ThreatModel("Linf", 0.1), classes=classes, seed=7)
    standard = pyautoattack.AutoAttack(model, norm="Linf", eps=0.1, seed=7, version="standard")
    ((ours, batch_size),) = seen
    assert batch_size == len(x)
    for attack in ("apgd", "apgd_targeted", "fab", "square"):
        mine, theirs = figures(getattr(ours, attack)), figures(getattr(standard, attack))
        assert mine.pop("n_target_classes", classes - 1) == classes - 1
        theirs.pop("n_target_classes", None)
        assert mine == theirs


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("classes", NAMES)
@pytest.mark.parametrize("norm", NORMS)
def test_any_number_of_classes_runs_the_attacks_that_its_name_says(classes: int, norm: Norm) -> None:
    model = network(classes)
    x, y = images(model)
    told: list[str] = []
    found, _ = adversarial_inputs(model, x, y, ThreatModel(norm, 0.001), classes=classes, seed=0, on_attack=told.append)
    assert found.shape == x.shape
    assert attack_name(classes) == NAMES[classes]
    said = NAMES[classes].partition(": ")[2]
    assert told == (said.split(", ") if said else STANDARD)


@pytest.mark.usefixtures("short")
def test_three_channels_are_attacked_and_answers_stay_in_the_ball() -> None:
    model = network(channels=3)
    x, y = images(model, 4, channels=3)
    found, _ = adversarial_inputs(model, x, y, ThreatModel("Linf", 0.1), classes=10, seed=0)
    assert (found - x).abs().max() <= 0.1 + 1e-6
    assert found.ge(0).all()
    assert found.le(1).all()
    assert (model(found).argmax(1) != y).any()
    assert not found.requires_grad


def test_images_that_are_wrong_already_come_back_unchanged_and_cost_no_attack() -> None:
    model = network()
    x, y = images(model)
    told: list[str] = []
    wrong = (y + 1) % 10
    found, _ = adversarial_inputs(model, x, wrong, ThreatModel("Linf", 0.1), classes=10, seed=0, on_attack=told.append)
    assert torch.equal(found, x)
    assert told == ["apgd-ce"]  # announced, then found to have nothing to do


@pytest.mark.usefixtures("short")
def test_a_model_that_gives_probabilities_is_warned_about_in_one_line_that_needs_no_other_document() -> None:
    model = network().append(nn.Softmax(1))
    x, y = images(model)
    _, warnings = adversarial_inputs(model, x, y, ThreatModel("Linf", 0.1), classes=10, seed=0)
    (warning,) = [warning for warning in warnings if "probability distribution" in warning]
    assert warning.endswith("please be sure that the logits are used!")


@pytest.mark.usefixtures("short")
def test_a_model_of_logits_has_no_warning_even_after_one_that_calls_autograd() -> None:
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

    threat = ThreatModel("Linf", 0.001)
    model = network()
    x, y = images(model)
    _, suspicious = adversarial_inputs(Purifier().eval(), x, y, threat, classes=10, seed=0)
    _, clean = adversarial_inputs(model, x, y, threat, classes=10, seed=0)
    assert any("dynamic defense" in warning for warning in suspicious)
    assert clean == []


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
                adversarial_inputs(Failing(), x, y, ThreatModel("Linf", 0.3), classes=10, seed=0)
        else:
            adversarial_inputs(model, x, y, ThreatModel("Linf", 0.3), classes=10, seed=0)
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
        adversarial_inputs(model, x, y, ThreatModel("L2", 0.01), classes=10, seed=0)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("size", [(3, 12, 8), (1, 4, 4), (1, 4, 8)])
def test_shapes_on_which_square_fails_under_l2_are_refused_beforehand(size: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match=f"got {size[1]}x{size[2]}"):
        refuse_shape(size, ThreatModel("L2", 0.5))
    refuse_shape(size, ThreatModel("Linf", 0.1))


@pytest.mark.parametrize("size", [(1, 5, 5), (1, 5, 9)])
def test_the_shapes_that_are_let_through_under_l2_can_be_attacked(
    size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    threat = ThreatModel("L2", 0.1)
    refuse_shape(size, threat)
    network = nn.Sequential(nn.Flatten(), nn.Linear(size[1] * size[2], 10)).eval()
    inputs, labels = torch.rand(2, *size), torch.tensor([0, 1])
    square = pyautoattack.AutoAttack(network, norm="L2", eps=0.1, seed=0, device="cpu").square
    square.n_queries = 5
    assert square.perturb(inputs, labels).shape == inputs.shape
