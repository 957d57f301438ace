"""What a run minimises, against a loop over examples in the equations' own words."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kdcompress.engine import exact
from kdcompress.maths import gradients
from kdcompress.maths.randomness import generator
from kdcompress.settings import LossSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.recipes import (
    AUTO_IGA,
    Recipe,
    Terms,
    adversarial_training,
    distillation,
    noise_training,
    scaled_iga_weight,
)
from kdcompress.training.recipes.passes import passes
from kdcompress.training.recipes.words import in_words

LINF, L2 = ThreatModel("Linf", 0.1), ThreatModel("L2", 0.5)


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Tanh(), nn.Linear(width, 3)).double()


@pytest.fixture
def teacher() -> nn.Module:
    return network(9, 0).eval().requires_grad_(False)


@pytest.fixture
def student() -> nn.Module:
    return network(4, 1).train()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    # Away from 0 and 1, so that noise is never cut off.
    return torch.rand(5, 3, 2, 2, generator=random).double() * 0.4 + 0.3, torch.tensor([0, 2, 1, 1, 0])


def taken(recipe: Recipe, network: nn.Module, *batch: Tensor) -> Terms:
    """The terms late in a run, when all of them weigh something."""
    return recipe.terms(network, recipe.weights(9, 10), *batch)


def naive_terms(student: nn.Module, teacher: nn.Module, x: Tensor, y: int, T: float) -> dict[str, Tensor]:
    """Eq. 13 and 14 of one example (C, H, W)."""
    gradients, logits = [], []
    for net in (student, teacher):
        v = x[None].clone().requires_grad_()
        f = net(v)[0]
        ce = f.exp().sum().log() - f[y]
        gradients.append(torch.autograd.grad(ce, v, create_graph=True)[0])
        logits.append(f)
    p_s, p_t = (f.div(T).exp() / f.div(T).exp().sum() for f in logits)
    return {
        "ce": logits[0].exp().sum().log() - logits[0][y],
        "kl": T**2 * sum(p_t[k] * (p_t[k].log() - p_s[k].log()) for k in range(3)),
        "iga": (gradients[0] - gradients[1]).square().sum().sqrt(),
    }


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_the_terms_are_those_of_a_loop_over_examples(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor], T: float
) -> None:
    loss = LossSettings(input_noise="none", temperature=T)
    recipe = distillation(teacher, loss, LINF, iga_weight=0.7, seed=0, align=exact(2), classes=3)
    found = taken(recipe, student, *batch)
    expected = [naive_terms(student, teacher, x, int(y), T) for x, y in zip(*batch, strict=True)]
    assert set(found) == {"ce", "kl", "iga"}
    for name, values in found.items():  # float64: what is left is rounding
        torch.testing.assert_close(values, torch.stack([one[name] for one in expected]), rtol=1e-10, atol=1e-10)


def test_the_gradient_of_every_term_by_the_weights_is_that_of_the_loop(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    recipe = distillation(
        teacher,
        LossSettings(input_noise="none"),
        LINF,
        iga_weight=0.7,
        seed=0,
        align=exact(2),
        classes=3,
    )
    found = taken(recipe, student, *batch)
    expected = [naive_terms(student, teacher, x, int(y), 1.0) for x, y in zip(*batch, strict=True)]
    weights = list(student.parameters())
    for name in ("ce", "kl", "iga"):
        got = torch.autograd.grad(found[name].mean(), weights, retain_graph=True, allow_unused=True)
        naive = torch.stack([one[name] for one in expected]).mean()
        wanted = torch.autograd.grad(naive, weights, retain_graph=True, allow_unused=True)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)  # float64


def test_a_student_that_is_its_teacher_has_no_distance_to_it(teacher: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    recipe = distillation(teacher, LossSettings(), LINF, iga_weight=1.0, seed=0, align=exact(2), classes=3)
    found = taken(recipe, teacher, *batch)
    assert torch.all(found["iga"] == 0)
    torch.testing.assert_close(found["kl"], torch.zeros(5).double(), atol=1e-12, rtol=0)  # log p - log p, in float64
    assert torch.all(found["ce"] > 0)


class Seen(nn.Module):
    """A network that remembers its inputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x.detach().clone())
        logits: Tensor = self.inner(x)
        return logits


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("iga_weight", [0.0, 0.5])
def test_with_noise_student_and_teacher_see_the_same_other_point_of_the_ball(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor], threat: ThreatModel, iga_weight: float
) -> None:
    s, t = Seen(student), Seen(teacher)
    recipe = distillation(t, LossSettings(), threat, iga_weight=iga_weight, seed=0, align=exact(2), classes=3)
    taken(recipe, s, *batch)
    assert len(s.inputs) == len(t.inputs) == 1
    assert torch.equal(s.inputs[0], t.inputs[0])
    delta = (s.inputs[0] - batch[0]).flatten(1)
    length = delta.abs().amax(1) if threat.norm == "Linf" else delta.norm(dim=1)
    assert torch.all(length <= threat.eps * (1 + 1e-6))  # noise is drawn in float32
    assert torch.all(length > threat.eps / 10)
    assert s.inputs[0].min() >= 0 and s.inputs[0].max() <= 1


def test_noise_never_leaves_the_pixel_range(student: nn.Module, teacher: nn.Module) -> None:
    s, x = Seen(student), torch.tensor([0.0, 1.0]).double().repeat(2, 6).view(2, 3, 2, 2)
    recipe = distillation(teacher, LossSettings(), LINF, iga_weight=0.0, seed=0, align=exact(2), classes=3)
    taken(recipe, s, x, torch.tensor([0, 1]))
    assert s.inputs[0].min() >= 0 and s.inputs[0].max() <= 1
    assert not torch.equal(s.inputs[0], x)


def test_without_noise_the_inputs_are_the_images(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    s = Seen(student)
    loss = LossSettings(input_noise="none")
    recipe = distillation(teacher, loss, LINF, iga_weight=0.0, seed=0, align=exact(2), classes=3)
    taken(recipe, s, *batch)
    assert torch.equal(s.inputs[0], batch[0])


@pytest.mark.parametrize("iga_weight", [0.0, 0.5])
def test_only_a_weighted_gradient_term_takes_input_gradients(
    student: nn.Module,
    teacher: nn.Module,
    batch: tuple[Tensor, Tensor],
    iga_weight: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradients_taken: list[Tensor] = []
    original: Callable[..., Tensor] = gradients.input_gradient
    monkeypatch.setattr(gradients, "input_gradient", lambda *a, **k: gradients_taken.append(a[0]) or original(*a, **k))
    engine = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", engine if iga_weight else lambda *a, **k: pytest.fail("an input gradient was taken")
    )
    loss = LossSettings()
    recipe = distillation(teacher, loss, LINF, iga_weight=iga_weight, seed=0, align=exact(2), classes=3)
    terms = taken(recipe, student, *batch)
    assert len(gradients_taken) == (0 if iga_weight == 0 else 2)  # one for each network
    assert set(terms) == ({"ce", "kl"} if iga_weight == 0 else {"ce", "kl", "iga"})


@pytest.mark.parametrize("iga_weight", [0.0, 0.5])
def test_a_step_leaves_nothing_on_the_teacher(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor], iga_weight: float
) -> None:
    before = [weight.clone() for weight in teacher.parameters()]
    recipe = distillation(teacher, LossSettings(), LINF, iga_weight=iga_weight, seed=0, align=exact(2), classes=3)
    sum(term.mean() for term in taken(recipe, student, *batch).values()).backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in student.parameters())


@pytest.mark.parametrize(
    ("ramp", "progress", "expected"),
    [(0.5, 0.0, 0.0), (0.5, 0.25, 1.5), (0.5, 0.5, 3.0), (0.5, 1.0, 3.0), (1.0, 0.5, 1.5), (0.0, 0.0, 3.0)],
)
def test_the_gradient_terms_weight_rises_linearly_over_the_ramp_and_stays(
    teacher: nn.Module, ramp: float, progress: float, expected: float
) -> None:
    loss = LossSettings(ce_weight=0.25, kl_weight=0.75, iga_ramp=ramp)
    weights = distillation(teacher, loss, LINF, iga_weight=3.0, seed=0, align=exact(2), classes=3).weights(
        round(100 * progress), 100
    )
    assert weights == {"ce": 0.25, "kl": 0.75, "iga": pytest.approx(expected)}


def test_the_gradient_term_may_start_late_and_costs_nothing_before(teacher: nn.Module) -> None:
    loss = LossSettings(iga_start=0.4, iga_ramp=0.5)
    recipe = distillation(teacher, loss, LINF, iga_weight=3.0, seed=0, align=exact(2), classes=3)
    found = [recipe.weights(step, 20).get("iga") for step in (0, 7, 8, 13, 18, 19)]
    assert found == [None, None, 0.0, pytest.approx(1.5), 3.0, 3.0]
    assert passes(loss, 3.0).in_forwards(1.0) == pytest.approx(0.4 * 4 + 0.6 * 8)
    assert "gradient distance at x (from 0.4 on, ramp 0.5)" in in_words(loss, 3.0, 0.0)


def test_plain_distillation_has_no_third_weight(teacher: nn.Module) -> None:
    recipe = distillation(teacher, LossSettings(), LINF, iga_weight=0.0, seed=0, align=exact(2), classes=3)
    assert set(recipe.weights(1, 1)) == {"ce", "kl"}


def test_the_automatic_weight_is_eps_times_the_root_of_the_dimensions_for_linf_and_eps_for_l2() -> None:
    assert scaled_iga_weight(LINF, 64) == pytest.approx(AUTO_IGA * 0.1 * 8)
    assert scaled_iga_weight(L2, 64) == pytest.approx(AUTO_IGA * 0.5)
    assert scaled_iga_weight(LINF, 64, multiple=1.0) == pytest.approx(0.8)
    assert scaled_iga_weight(LINF, 64, multiple=1.0, norm="l2-squared") == pytest.approx(0.64)
    assert scaled_iga_weight(L2, 64, multiple=1.0, norm="l2-squared") == pytest.approx(0.25)


@pytest.mark.parametrize(("norm", "q"), [("Linf", 1), ("L2", 2)])
def test_in_units_of_one_the_automatic_weight_bounds_what_the_gradient_difference_can_do_in_the_ball(
    norm: str, q: int
) -> None:
    threat = ThreatModel(norm, 0.3)
    v = torch.randn(100, 50, generator=torch.Generator().manual_seed(0)).double()
    change = threat.eps * torch.linalg.vector_norm(v, q, dim=1)
    bound = scaled_iga_weight(threat, 50, multiple=1.0) * v.norm(dim=1)
    assert torch.all(change <= bound * (1 + 1e-12))
    # Tight for the vector of equal entries.
    even = torch.ones(50).double()
    tight = scaled_iga_weight(threat, 50, multiple=1.0) * even.norm()
    assert float(tight) == pytest.approx(threat.eps * float(torch.linalg.vector_norm(even, q)))


def test_adversarial_training_takes_the_loss_in_train_mode_at_inputs_attacked_in_eval_mode() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 3)
            self.log: list[tuple[bool, Tensor]] = []

        def forward(self, x: Tensor) -> Tensor:
            self.log.append((self.training, x.detach().clone()))
            out: Tensor = self.linear(x.flatten(1))
            return out

    torch.manual_seed(0)
    net = Moody().train()
    x, y = torch.full((4, 3, 2, 2), 0.5), torch.tensor([0, 1, 2, 0])
    terms = taken(adversarial_training(LINF, steps=3, seed=0), net, x, y)
    modes = [training for training, _ in net.log]
    assert modes == [False] * 3 + [True]
    assert net.training
    attacked = net.log[-1][1]
    assert ((attacked - x).abs() <= LINF.eps + 1e-6).all()  # float32 rounding of x + delta
    clean = nn.functional.cross_entropy(net.linear(x.flatten(1)), y, reduction="none")
    # A linear network: three steps of 2.5 eps / 3 reach the corner of the ball, so every loss has risen.
    assert torch.all(terms["ce"] > clean)
    assert set(terms) == {"ce"} and terms["ce"].requires_grad


def test_adversarial_training_weighs_its_one_term_by_one_throughout() -> None:
    recipe = adversarial_training(LINF, steps=1, seed=0)
    assert [recipe.weights(step, 10) for step in (0, 5, 9)] == [{"ce": 1.0}] * 3


@pytest.mark.parametrize("iga_weight", [0.0, 0.5])
def test_gaussian_noise_is_one_for_both_networks_not_clipped_and_takes_the_place_of_the_other(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor], iga_weight: float
) -> None:
    s, t, sigma = Seen(student), Seen(teacher), 0.7
    recipe = distillation(
        t,
        LossSettings(),
        LINF,
        iga_weight=iga_weight,
        seed=0,
        align=exact(2),
        classes=3,
        noise_sigma=sigma,
    )
    terms = taken(recipe, s, *batch)
    (seen,) = s.inputs
    assert len(t.inputs) == 1 and torch.equal(seen, t.inputs[0])
    expected = batch[0] + sigma * torch.randn(batch[0].shape, generator=generator(0, "noise"))
    assert torch.equal(seen, expected)
    assert seen.min() < 0 and seen.max() > 1
    # Every term is taken there, the gradients too.
    for number, (x, y) in enumerate(zip(seen, batch[1].tolist(), strict=True)):
        for name, value in naive_terms(student, teacher, x, y, 1.0).items():
            if name in terms:
                torch.testing.assert_close(terms[name][number], value)


def test_training_on_noise_takes_ce_at_the_noisy_images(student: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    recipe = noise_training(0.7, seed=0)
    x = batch[0] + 0.7 * torch.randn(batch[0].shape, generator=generator(0, "noise"))
    expected = nn.functional.cross_entropy(student(x), batch[1], reduction="none")
    terms = taken(recipe, student, *batch)
    assert set(terms) == {"ce"} and recipe.weights(5, 10) == {"ce": 1.0}
    torch.testing.assert_close(terms["ce"], expected)


def test_adversarial_training_under_noise_attacks_and_learns_under_one_and_the_same_noise(
    student: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    s, sigma = Seen(student), 0.7
    taken(adversarial_training(LINF, steps=3, seed=0, noise_sigma=sigma), s, *batch)
    e = sigma * torch.randn(batch[0].shape, generator=generator(0, "noise"))
    assert len(s.inputs) == 4
    for seen in s.inputs:
        without = seen - e
        assert ((without - batch[0]).abs() <= LINF.eps + 1e-6).all()  # rounding of x + delta + e
    assert not torch.equal(s.inputs[0], s.inputs[-1])


def test_without_noise_adversarial_training_draws_what_it_always_drew(
    student: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    s = Seen(student)
    taken(adversarial_training(LINF, steps=2, seed=0), s, *batch)
    start = (torch.rand(batch[0].shape, generator=generator(0, "inner attack")) * 2 - 1) * LINF.eps
    torch.testing.assert_close(s.inputs[0], batch[0] + start.double(), rtol=0, atol=1e-7)
