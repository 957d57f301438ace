"""Every recipe against its paper's equation, one example at a time and in its own words."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.inner import NEAR
from kdcompress.engine import exact
from kdcompress.maths.losses import bent_distance
from kdcompress.maths.norms import steepest, uniform_in_ball
from kdcompress.maths.randomness import generator
from kdcompress.settings import RECIPES, TRAIN_STEPS, LossSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.recipes import Terms, adversarial_training, distillation, trades
from kdcompress.training.recipes.distillation import attack
from kdcompress.training.recipes.passes import passes
from kdcompress.training.recipes.seen import Seen
from tests.unit.training.test_recipes import network

EPS, STEPS, K = 0.1, 3, 3
LINF = ThreatModel("Linf", EPS)
Network = Callable[[Tensor], Tensor]
LATE = (8, 10)
"""The ninth step of ten: the teacher may be distrusted, and weights that rise over the run are at .8."""


@pytest.fixture
def teacher() -> nn.Module:
    return network(9, 0).eval().requires_grad_(False)


@pytest.fixture
def student() -> nn.Module:
    return network(4, 1).train()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    # Away from 0 and 1, so that nothing is cut off there.
    return torch.rand(5, 3, 2, 2, generator=random).double() * 0.4 + 0.3, torch.tensor([0, 2, 1, 1, 0])


def value(one: Tensor) -> float:
    return one.detach().item()


def p(f: Network, x: Tensor, T: float = 1.0) -> Tensor:
    """softmax(f(x) / T) of one image (C, H, W)."""
    e = (f(x[None])[0] / T).exp()
    return e / e.sum()


def kl(a: Tensor, b: Tensor) -> Tensor:
    return sum((a[k] * (a[k] / b[k]).log() for k in range(K)), torch.zeros(()).double())


def ce(f: Network, x: Tensor, y: int) -> Tensor:
    return -p(f, x)[y].log()


def climbed(objective: Callable[[Tensor], Tensor], x: Tensor, start: Tensor) -> Tensor:
    """PGD on one image: STEPS steps of 2.5 eps / STEPS."""
    z = (x + (start - x).clamp(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        at = z.clone().requires_grad_()
        (g,) = torch.autograd.grad(objective(at), at)
        z = (x + (z + 2.5 * EPS / STEPS * g.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    return z


def starts(x: Tensor, near: bool) -> Tensor:
    """Where the inner attack begins first."""
    draws = generator(0, "inner attack")
    return x + (NEAR * torch.randn(x.shape, generator=draws) if near else uniform_in_ball(x, LINF, draws))


def paper(name: str, s: Network, t: Network, x: Tensor, y: int, start: Tensor) -> float:
    """The loss of one image, late in the run, with the weights of the recipe's paper."""
    if name == "kd":
        return value(kl(p(t, x), p(s, x)))
    if name in ("ard", "iad"):
        z = climbed(lambda z: ce(s, z, y), x, start)
    elif name == "rslad":
        z = climbed(lambda z: kl(p(t, x), p(s, z)), x, start)
    else:
        z = climbed(lambda z: kl(p(t, z), p(s, z)), x, start)
    if name == "ard":
        return value(900 * kl(p(t, x, 30), p(s, z, 30)))
    if name == "rslad":
        return value(kl(p(t, x), p(s, x)) / 6 + 5 * kl(p(t, x), p(s, z)) / 6)
    if name == "iad":
        b = p(t, z)[y] ** 0.1
        return value(b * kl(p(t, z), p(s, z)) + (1 - b) * kl(p(s, x), p(s, z)))
    adaad = kl(p(t, z), p(s, z))
    if name == "adaad":
        return value(adaad)
    d = z - x

    def response(f: Network) -> Network:
        return lambda x: f(x + d[None]) - f(x - d[None])

    return value(adaad + 0.8 * kl(p(response(t), x), p(response(s), x)))


def run(name: str, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor], **changes: object) -> Terms:
    loss = LossSettings(recipe=name, inner_steps=STEPS if "inner_attack" in RECIPES[name] else None, **changes)
    weight = loss.iga_weight if loss.iga_weight != "auto" else 0.7
    recipe = distillation(teacher, loss, LINF, iga_weight=weight, seed=0, align=exact(2), classes=K)
    weights = recipe.weights(*LATE)
    terms = recipe.terms(student, weights, *batch)
    assert set(weights) <= set(terms) | {"ce", "kl"}
    return {name: weights[name] * term for name, term in terms.items()}


@pytest.mark.parametrize("name", ["kd", "ard", "rslad", "iad", "adaad", "igdm"])
def test_a_recipe_is_its_papers_equation(
    name: str, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    found = sum(run(name, student, teacher, batch).values())
    near = name in ("rslad", "adaad", "igdm")
    each = zip(*batch, starts(batch[0], near), strict=True)
    expected = [paper(name, student, teacher, x, int(y), start) for x, y, start in each]
    # float64; signs of gradients make both ascents land on the same corners.
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-9)
    assert student.training


@pytest.mark.parametrize(("name", "noise"), [("kdiga", False), ("kdiga-noise", True), ("kdiga-adv", False)])
def test_kdiga_is_eq_14_at_x_at_x_with_noise_or_at_what_pgd_found(
    name: str, noise: bool, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    found = run(name, student, teacher, batch)
    noisy = batch[0] + uniform_in_ball(batch[0], LINF, generator(0, "noise"))
    for number, (x, y, start, beside) in enumerate(zip(*batch, starts(batch[0], near=False), noisy, strict=True)):
        at = beside if noise else x
        if name == "kdiga-adv":
            at = climbed(lambda z, y=y: ce(student, z, int(y)), x, start)
        at = at.clone().requires_grad_()
        g_s, g_t = (torch.autograd.grad(ce(f, at, int(y)), at)[0] for f in (student, teacher))
        assert value(found["iga"][number]) == pytest.approx(0.7 * value((g_s - g_t).square().sum().sqrt()), rel=1e-5)
        assert value(found["kl"][number]) == pytest.approx(value(kl(p(teacher, at), p(student, at))), rel=1e-5)


def test_the_squared_norm_is_the_square_of_eq_14s_distance(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    plain, squared = (
        run("kdiga", student, teacher, batch, iga_norm=norm)["iga"] / 0.7 for norm in ("l2", "l2-squared")
    )
    torch.testing.assert_close(squared, plain.square())


@pytest.mark.parametrize("align", ["ce", "jacobian"])
def test_the_log_is_eq_14s_distance_where_that_is_small_beside_the_teachers_gradient(
    align: str, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    plain, bent = (
        run("kdiga", student, teacher, batch, align=align, iga_norm=norm)["iga"] / 0.7 for norm in ("l2", "l2-log")
    )
    if align == "ce":
        for number, (x, y) in enumerate(zip(*batch, strict=True)):
            at = x.clone().requires_grad_()
            t = value(torch.autograd.grad(ce(teacher, at, int(y)), at)[0].norm())
            assert value(bent[number]) == pytest.approx(t * math.log(1 + value(plain[number]) / t), rel=1e-5)
    assert torch.all(bent < plain)
    near = torch.tensor([1e-4])
    torch.testing.assert_close(bent_distance(near, torch.ones(1, 1, 2, 2)), near, rtol=1e-4, atol=0)


def test_the_log_is_finite_where_the_teacher_is_flat() -> None:
    d = torch.tensor([0.0, 3e6], requires_grad=True)
    bent = bent_distance(d, torch.zeros(2, 1, 2, 2))
    bent.sum().backward()
    assert d.grad is not None and torch.all(d.grad.isfinite()) and torch.all(bent.isfinite())


@pytest.mark.parametrize("name", ["ard", "rslad", "iad", "adaad", "igdm"])
def test_gradient_alignment_goes_on_top_of_any_recipe_at_the_inputs_it_found_and_leaves_the_rest(
    name: str, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    plain = run(name, student, teacher, batch)
    aligned = run(name, student, teacher, batch, iga_weight=0.7)
    assert set(aligned) == set(plain) | {"iga"}
    for term, values in plain.items():
        torch.testing.assert_close(aligned[term], values)
    assert torch.all(aligned["iga"] > 0)


def test_the_cross_entropy_of_attacked_recipes_is_that_of_the_clean_images(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    found = run("ard", student, teacher, batch, ce_weight=0.25)["ce"]
    expected = [value(ce(student, x, int(y))) / 4 for x, y in zip(*batch, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_before_a_third_of_the_run_iad_believes_its_teacher(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    loss = LossSettings(recipe="iad", inner_steps=STEPS)
    recipe = distillation(teacher, loss, LINF, iga_weight=0.0, seed=0, align=exact(2), classes=K)
    weights = recipe.weights(2, 10)
    terms = recipe.terms(student, weights, *batch)
    assert set(weights) == {"ce", "kl"} and "self" in recipe.weights(3, 10)
    x, y, start = batch[0][0], int(batch[1][0]), starts(batch[0], near=False)[0]
    z = climbed(lambda z: ce(student, z, y), x, start)
    assert value(terms["kl"][0]) == pytest.approx(value(kl(p(teacher, z), p(student, z))), rel=1e-6)


def test_a_gradient_term_of_every_third_step_weighs_three_times_as_much_and_nothing_between(teacher: nn.Module) -> None:
    loss = LossSettings(iga_every=3, iga_ramp=0.0)
    recipe = distillation(teacher, loss, LINF, iga_weight=0.5, seed=0, align=exact(2), classes=K)
    found = [recipe.weights(step, 7).get("iga") for step in range(7)]
    assert found == [1.5, None, None, 1.5, None, None, 1.5]


class Counted(nn.Module):
    """Counts its forwards, in eval and in train mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.count = inner, {True: 0, False: 0}

    def forward(self, x: Tensor) -> Tensor:
        self.count[self.training] += 1
        logits: Tensor = self.inner(x)
        return logits


@pytest.mark.parametrize(
    ("name", "attacking", "learning", "asked"),
    [
        ("kd", 0, 1, 1),
        ("kdiga", 0, 1, 1),
        ("kdiga-adv", STEPS, 1, 1),
        ("ard", STEPS, 1, 1),
        ("rslad", STEPS, 2, 1),
        ("iad", STEPS, 2, 1),
        ("adaad", STEPS, 1, STEPS + 1),
        ("igdm", STEPS, 2, STEPS + 2),
    ],
)
def test_no_recipe_takes_a_forward_that_it_does_not_need(
    name: str,
    attacking: int,
    learning: int,
    asked: int,
    student: nn.Module,
    teacher: nn.Module,
    batch: tuple[Tensor, Tensor],
) -> None:
    s, t = Counted(student).train(), Counted(teacher).eval()
    run(name, s, t, batch)
    assert (s.count[False], s.count[True], t.count[False]) == (attacking, learning, asked)
    # The count by formula: two passes a step of the attack, three or six where the student learns.
    loss = LossSettings(recipe=name, inner_steps=STEPS if "inner_attack" in RECIPES[name] else None)
    aligned = 0.0 if loss.iga_weight == 0 else 0.7
    counted = passes(loss, aligned)
    assert counted.student == 2 * attacking + 3 * learning + 3 * (aligned > 0)
    climbed_by_both = STEPS if loss.inner_attack == "adaptive" else 0  # those too go back to the input
    assert counted.teacher == asked + climbed_by_both + (aligned > 0)


def test_trades_is_its_papers_equation(student: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    recipe = trades(LINF, steps=STEPS, beta=6.0, seed=0)
    weights = recipe.weights(*LATE)
    found = sum(weights[name] * term for name, term in recipe.terms(student, weights, *batch).items())
    for number, (x, y, start) in enumerate(zip(*batch, starts(batch[0], near=True), strict=True)):
        fixed = p(student, x).detach()
        z = climbed(lambda z, fixed=fixed: kl(fixed, p(student, z)), x, start)
        expected = ce(student, x, int(y)) + 6 * kl(p(student, x), p(student, z))
        assert value(found[number]) == pytest.approx(value(expected), rel=1e-6)


def test_fast_training_takes_one_step_of_a_quarter_more_than_eps_from_a_random_start(
    student: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    assert TRAIN_STEPS["fast"] == 1
    recipe = adversarial_training(LINF, steps=1, seed=0)
    found = recipe.terms(student, recipe.weights(*LATE), *batch)["ce"]
    for number, (x, y, start) in enumerate(zip(*batch, starts(batch[0], near=False), strict=True)):
        at = start.clone().requires_grad_()
        (g,) = torch.autograd.grad(ce(student, at, int(y)), at)
        z = x + (start + 1.25 * EPS * steepest(g[None], "Linf")[0] - x).clamp(-EPS, EPS)
        assert value(found[number]) == pytest.approx(value(ce(student, z, int(y))), rel=1e-6)


def test_a_smoothed_label_gives_every_class_its_share(student: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    recipe = adversarial_training(LINF, steps=STEPS, seed=0, smoothing=0.3)
    plain = adversarial_training(LINF, steps=STEPS, seed=0)
    found, sharp = (one.terms(student, {"ce": 1.0}, *batch)["ce"] for one in (recipe, plain))
    x, y, start = batch[0][0], int(batch[1][0]), starts(batch[0], near=False)[0]
    z = climbed(lambda z: ce(student, z, y), x, start)
    log_p = p(student, z).log()
    assert value(sharp[0]) == pytest.approx(value(-log_p[y]), rel=1e-6)
    assert value(found[0]) == pytest.approx(value(-(0.7 * log_p[y] + 0.3 * log_p.mean())), rel=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_given_goes_before_what_the_recipe_says(name: str) -> None:
    given = LossSettings(recipe=name, kl_weight=0.5, temperature=3.0)
    assert (given.kl_weight, given.temperature, given.recipe) == (0.5, 3.0, name)
    kept = LossSettings(recipe=name, kl_weight=None)
    assert kept == LossSettings(recipe=name)


@pytest.mark.parametrize("name", ["ard", "rslad", "adaad"])
def test_a_single_step_starts_anywhere_in_the_ball(
    name: str, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    seen = Seen(student, teacher, batch[0], batch[0], batch[1])
    z = attack(seen, LossSettings(recipe=name, inner_steps=1), LINF, generator(0, "inner attack"))
    start = starts(batch[0], near=False)
    moved = z - batch[0]
    # One step of 1.25 eps: entries that started on the far side do not reach the corner.
    inside = (moved.abs() < EPS * 0.999).double().mean()
    assert 0.1 < value(inside) < 0.6
    gone = (z - start).abs()
    assert value(gone.max()) <= 1.25 * EPS * (1 + 1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_without_its_attack_a_recipe_is_taken_at_the_images_themselves(name: str) -> None:
    if RECIPES[name].get("self_weight") or RECIPES[name].get("igdm_weight"):
        return  # refused: those terms are about what an attack finds
    loss = LossSettings(recipe=name, inner_attack="none")
    assert loss.input_noise == ("uniform" if name == "kdiga-noise" else "none")


def test_soft_labels_that_weigh_nothing_ask_no_teacher(
    student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    t = Counted(teacher).eval()
    terms = run("kd", student, t, batch, ce_weight=1.0, kl_weight=0.0)
    assert t.count[False] == 0 and set(terms) == {"ce"}
    assert passes(LossSettings(recipe="kd", ce_weight=1.0, kl_weight=0.0), 0.0).teacher == 0


@pytest.mark.parametrize("step", [0, 1, 9])
@pytest.mark.parametrize(
    "loss",
    [
        LossSettings(recipe="kdiga", kl_weight=0.0),
        LossSettings(recipe="ard", kl_weight=0.0, clean_weight=1.0, inner_steps=2),
        LossSettings(recipe="igdm", kl_weight=0.0, inner_steps=2),
        LossSettings(recipe="iad", ce_weight=1.0, kl_weight=0.0, inner_steps=2),
    ],
    ids=lambda loss: loss.recipe,
)
def test_every_step_of_whatever_is_allowed_has_a_term(
    loss: LossSettings, step: int, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    weight = 0.7 if loss.iga_weight == "auto" else 0.0
    recipe = distillation(teacher, loss, LINF, iga_weight=weight, seed=0, align=exact(2), classes=K)
    weights = recipe.weights(step, 10)
    terms = recipe.terms(student, weights, *batch)
    assert terms and set(terms) <= set(weights)
