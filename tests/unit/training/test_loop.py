"""The loop: averaged weights and raw ones, the best of them and the last, and no number that is not finite."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from kdcompress.errors import TrainingError
from kdcompress.progress import Epoch, Listener, Step, Validation
from kdcompress.settings import RunSettings
from kdcompress.training.batches import Batches
from kdcompress.training.finite import PATIENCE
from kdcompress.training.loop import READ_EVERY, VALIDATIONS, Fitted, fit
from kdcompress.training.recipes import Recipe
from kdcompress.training.recipes.recipe import Weights

CPU = torch.device("cpu")
SQUARE = Recipe(lambda net, weights, x, y: {"square": (net(x)[:, 0] - y).square()}, lambda step, steps: {"square": 1.0})
Score = Callable[[nn.Module], Validation]


def flat(model: nn.Module) -> Validation:
    return Validation(0.5, 0.5, 10)


def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(epoch)
    for _ in range(3):
        x = torch.randn(4, 2, generator=random)
        yield x, x.sum(1)


def start() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 1)


def run_fit(
    recipe: Recipe = SQUARE,
    *,
    model: nn.Module | None = None,
    validate: Score = flat,
    listener: Listener = Listener(),
    steps: int = 3,
    data: Callable[[int], Iterator[tuple[Tensor, Tensor]]] = batches,
    **run: object,
) -> Fitted:
    settings = RunSettings.of(**({"epochs": 2, "lr": 0.1, "ema": 0.9} | run))
    return fit(
        model or start(),
        recipe,
        Batches(lambda epoch, skip: data(epoch)),
        steps_per_epoch=steps,
        run=settings,
        validate=validate,
        device=CPU,
        listener=listener,
    )


def naive(epochs: int, ema: float) -> tuple[nn.Module, list[Tensor], list[float]]:
    """The same run by hand: (network, its average, learning rates)."""
    net, steps = start(), 3 * epochs
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    average, rates = [weight.detach().clone() for weight in net.parameters()], []
    step = 0
    for epoch in range(1, epochs + 1):
        for x, y in batches(epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            (net(x)[:, 0] - y).square().mean().backward()
            optimizer.step()
            schedule.step()
            step += 1
            # The decay grows from 0 to `ema`: 1 - t^(-2/3) at step t, so that the start is soon forgotten.
            decay = min(ema, 1 - step ** (-2 / 3))
            average = [decay * a + (1 - decay) * w.detach() for a, w in zip(average, net.parameters(), strict=True)]
    return net, average, rates


def test_what_is_kept_is_the_average_of_the_weights_not_the_last_ones() -> None:
    fitted = run_fit(epochs=4)
    raw, average, _ = naive(4, 0.9)
    kept = list(fitted.best.model.parameters())
    for found, wanted, last in zip(kept, average, raw.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # float32, sums in another order
        assert (found - last).abs().max() > 1e-3


def test_an_epochs_line_has_the_mean_of_each_weight_over_all_its_steps() -> None:
    every_other = Recipe(
        lambda net, weights, x, y: {name: (net(x)[:, 0] - y).square() for name in weights},
        lambda step, steps: {"square": 1.0} | ({"other": 2.0 * step} if step % 2 == 0 else {}),
    )
    first, second = run_fit(every_other).history
    assert first.weights == {"square": 1.0, "other": pytest.approx(4 / 3)}  # steps 0 and 2 of 0, 1, 2
    assert second.weights == {"square": 1.0, "other": pytest.approx(8 / 3)}  # step 4 of 3, 4, 5


def test_an_average_with_decay_zero_is_the_last_weights() -> None:
    for found, last in zip(run_fit(ema=0.0).best.model.parameters(), naive(2, 0.0)[0].parameters(), strict=True):
        torch.testing.assert_close(found, last, rtol=1e-6, atol=1e-7)  # float32


def test_a_default_run_is_bit_for_bit_adamw_one_cycle_and_timms_average() -> None:
    net = start()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=30)
    average = ModelEmaV3(net, decay=0.99, use_warmup=True)
    for step in range(30):
        x, y = list(batches(step // 3 + 1))[step % 3]
        optimizer.zero_grad()
        (net(x)[:, 0] - y).square().mean().backward()
        optimizer.step()
        schedule.step()
        average.update(net, step=step + 1)
    seen: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> Validation:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return flat(model)

    fitted = run_fit(epochs=10, lr=None, ema=None, validate=validate)
    for found, wanted in ((fitted.last.model, average.module), (fitted.best.model, average.module)):
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))
    assert all(torch.equal(value, seen[-1][name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("average", ["ema", "swa", "none"])
def test_the_networks_given_back_are_two_frozen_and_in_eval_mode(average: str) -> None:
    fitted = run_fit(average=average, ema=None)
    assert fitted.best.model is not fitted.last.model
    for model in (fitted.best.model, fitted.last.model):
        assert not model.training
        assert not any(weight.requires_grad for weight in model.parameters())


def test_the_epoch_of_the_best_validation_is_kept_with_its_weights() -> None:
    scores = iter([0.1, 0.0, 0.9, 0.0, 0.5, 0.0])  # averaged, raw
    seen: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> Validation:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Validation(1.0, next(scores), 10)

    fitted = run_fit(epochs=3, validate=validate)
    assert fitted.best.epoch == 2
    assert [epoch.is_best for epoch in fitted.history] == [True, True, False]
    for name, value in fitted.best.model.state_dict().items():
        assert torch.equal(value, seen[2][name])
        assert not torch.equal(value, seen[4][name])


def test_the_better_of_averaged_and_raw_weights_is_kept_and_the_epochs_line_says_which() -> None:
    scores = iter([0.2, 0.1, 0.3, 0.4, 0.0, 0.35])  # averaged, raw
    seen: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> Validation:
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Validation(1.0, next(scores), 10)

    fitted = run_fit(epochs=3, validate=validate)
    assert (fitted.best.epoch, fitted.best.weights, fitted.best.validation.robust_accuracy) == (2, "raw", 0.4)
    assert all(torch.equal(value, seen[3][name]) for name, value in fitted.best.model.state_dict().items())
    lines = [(line.validated, line.validation, line.other_validation, line.is_best) for line in fitted.history]
    of = {score: Validation(1.0, score, 10) for score in (0.0, 0.1, 0.2, 0.3, 0.35, 0.4)}
    assert lines == [
        ("averaged", of[0.2], of[0.1], True),
        ("raw", of[0.4], of[0.3], True),
        ("raw", of[0.35], of[0.0], False),
    ]
    # What is last is the average, however it fared.
    assert (fitted.last.epoch, fitted.last.weights, fitted.last.validation) == (3, "averaged", of[0.0])
    assert all(torch.equal(value, seen[4][name]) for name, value in fitted.last.model.state_dict().items())


def test_of_equals_the_averaged_weights_are_kept() -> None:
    fitted = run_fit()
    assert fitted.best.weights == "averaged" and fitted.history[-1].validated == "averaged"


def test_without_an_average_the_raw_weights_alone_are_validated_and_kept() -> None:
    scores = iter([0.9, 0.1])
    fitted = run_fit(average="none", ema=None, validate=lambda model: Validation(1.0, next(scores), 10))
    assert [line.other_validation for line in fitted.history] == [None, None]
    assert (fitted.best.epoch, fitted.best.weights) == (1, "raw")
    assert (fitted.last.epoch, fitted.last.weights) == (2, "raw")
    assert not torch.equal(next(fitted.best.model.parameters()), next(fitted.last.model.parameters()))


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.9, 0.2), (0.5, 0.3)], 2),  # robust accuracy first
        ([(0.5, 0.3), (0.9, 0.2)], 1),
        ([(0.9, 0.0), (0.8, 0.0)], 1),  # clean accuracy between equals
        ([(0.8, 0.0), (0.9, 0.0)], 2),
        ([(0.8, 0.3), (0.8, 0.3)], 2),  # the later of equals
    ],
)
def test_robust_accuracy_chooses_then_clean_accuracy_then_the_later_epoch(
    scores: list[tuple[float, float]], best: int
) -> None:
    given = iter(scores)
    validate = lambda model: Validation(*next(given), 10)  # noqa: E731
    assert run_fit(average="none", ema=None, validate=validate).best.epoch == best


def test_validation_sees_the_averaged_network_in_eval_mode() -> None:
    modes, weights = [], []

    def validate(model: nn.Module) -> Validation:
        modes.append(model.training)
        weights.append([value.clone() for value in model.parameters()])
        return flat(model)

    run_fit(epochs=1, ema=0.9, validate=validate)
    assert modes == [False, False]
    for found, wanted in zip(weights[0], naive(1, 0.9)[1], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # float32, sums in another order
    raw = list(naive(1, 0.0)[0].parameters())
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(weights[0], raw, strict=True))


@pytest.mark.parametrize("epochs", [1, 3, 2 * VALIDATIONS, 11, 25, 47, 203])
def test_long_runs_are_validated_at_even_distances_a_few_times_and_always_at_the_end(epochs: int) -> None:
    history = run_fit(epochs=epochs).history
    validated = [epoch.epoch for epoch in history if epoch.validation is not None]
    every = validated[0]
    assert validated == sorted({*range(every, epochs + 1, every), epochs})
    assert min(epochs, VALIDATIONS) // 2 <= len(validated) <= VALIDATIONS
    assert [epoch.epoch for epoch in history] == list(range(1, epochs + 1))


def test_an_epochs_line_has_the_means_of_its_terms_and_their_weighted_sum() -> None:
    def terms(net: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        values = net(x)[:, 0]
        return {"a": values.square(), "b": values.abs()}

    seen: list[tuple[float, float]] = []

    def spied(net: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        found = terms(net, weights, x, y)
        seen.append((found["a"].detach().mean().item(), found["b"].detach().mean().item()))
        return found

    recipe = Recipe(spied, lambda step, steps: {"a": 2.0, "b": 0.5})
    last = run_fit(recipe, epochs=2).history[-1]
    a, b = (sum(step[i] for step in seen[3:]) / 3 for i in (0, 1))
    assert last.terms == {"a": pytest.approx(a, rel=1e-5), "b": pytest.approx(b, rel=1e-5)}  # float32 sums
    assert last.loss == pytest.approx(2 * a + 0.5 * b, rel=1e-5)
    assert last.weights == {"a": 2.0, "b": 0.5}
    assert last.step == 6


def test_the_weights_are_asked_for_at_every_step() -> None:
    asked: list[tuple[int, int]] = []
    run_fit(Recipe(SQUARE.terms, lambda step, steps: asked.append((step, steps)) or {"square": 1.0}))
    assert asked == [(step, 6) for step in range(6)]


def test_a_term_of_some_steps_is_averaged_over_those() -> None:
    seen: list[float] = []

    def terms(net: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        values = net(x)[:, 0]
        if "odd" in weights:
            seen.append(values.detach().mean().item())
        return {"square": values.square()} | ({"odd": values} if "odd" in weights else {})

    recipe = Recipe(terms, lambda step, steps: {"square": 1.0} | ({"odd": 1.0} if step % 2 else {}))
    last = run_fit(recipe, epochs=1).history[-1]
    assert last.terms["odd"] == pytest.approx(sum(seen) / len(seen), rel=1e-5)  # float32 sums


def test_the_listener_hears_every_step_and_epoch() -> None:
    steps: list[Step] = []
    epochs: list[Epoch] = []
    fitted = run_fit(epochs=4, listener=Listener(step=steps.append, epoch=epochs.append))
    assert [step.step for step in steps] == list(range(1, 13))
    assert {step.steps for step in steps} == {12} and fitted.steps == 12
    assert [step.epoch for step in steps] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert [bool(step.terms) for step in steps] == [step.step in (READ_EVERY, 12) for step in steps]
    assert steps[-1].seconds_left == 0 and all(step.images_per_second > 0 for step in steps)
    assert tuple(epochs) == fitted.history


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_runs_of_few_steps_end_well(steps: int) -> None:
    def few(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(steps):
            yield torch.ones(2, 2), torch.zeros(2)

    fitted = run_fit(epochs=1, steps=steps, data=few)
    assert fitted.steps == steps
    assert all(torch.isfinite(value).all() for value in fitted.best.model.parameters())


def poisoned(*steps: int, value: float = math.nan) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """The same batches, with labels that are not finite at some steps (from 0; three an epoch)."""

    def of(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for at, (x, y) in enumerate(batches(epoch)):
            yield x, torch.full_like(y, value) if 3 * (epoch - 1) + at in steps else y

    return of


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_batch_that_is_not_finite_leaves_no_trace_but_in_the_schedule(value: float) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))

    wanted, bad = net(), (1, 5)
    optimizer = torch.optim.AdamW(wanted.parameters(), lr=0.1, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=9)
    average = ModelEmaV3(wanted, decay=0.9, use_warmup=True)
    for step in range(9):
        if step not in bad:
            x, y = list(batches(step // 3 + 1))[step % 3]
            optimizer.zero_grad()
            (wanted(x)[:, 0] - y).square().mean().backward()
            optimizer.step()
            average.update(wanted, step=step + 1)
        schedule.step()
    notes: list[str] = []
    seen: list[dict[str, Tensor]] = []

    def score(model: nn.Module) -> Validation:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Validation(0.5, 0.5, 10)

    found = run_fit(
        model=net(), epochs=3, data=poisoned(*bad, value=value), validate=score, listener=Listener(note=notes.append)
    )
    for kept, by_hand in ((seen[-2], average.module), (seen[-1], wanted)):
        for name, tensor in by_hand.state_dict().items():
            assert torch.equal(kept[name], tensor), name
    assert [epoch.skipped for epoch in found.history] == [1, 1, 0]
    assert all(math.isfinite(epoch.loss) for epoch in found.history)
    assert [note.split(":")[0] for note in notes] == ["step 2 is left out", "step 6 is left out"]


def test_the_count_of_steps_in_a_row_begins_anew_after_a_good_one() -> None:
    def nine_of_twelve_then_one(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for at in range(12):
            yield torch.ones(2, 2), torch.full((2,), math.nan if 1 <= at < PATIENCE or at == 11 else 0.0)

    fitted = run_fit(data=nine_of_twelve_then_one, steps=12)
    assert [epoch.skipped for epoch in fitted.history] == [10, 10]


def test_ten_steps_in_a_row_are_too_many() -> None:
    def bad(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for at in range(12):
            yield torch.ones(2, 2), torch.full((2,), math.nan if at else 0.0)

    with pytest.raises(TrainingError, match="10 steps in a row, up to step 11 in epoch 1"):
        run_fit(data=bad, steps=12)


def test_a_network_that_has_diverged_ends_the_run_with_the_terms_and_advice() -> None:
    with pytest.raises(TrainingError) as caught:
        run_fit(epochs=6, data=poisoned(*range(4, 18)))
    message = str(caught.value)
    assert all(
        part in message for part in ("finite", "3 steps in a row, up to step 7 in epoch 3", "square nan", "--lr")
    )
    assert "\n" not in message


def test_a_gradient_that_is_not_finite_is_as_bad_as_a_loss() -> None:
    # The square root at zero: an infinite gradient of a loss that is finite.
    def terms(net: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"root": (net(x)[:, 0] * 0).sqrt()}

    with pytest.raises(TrainingError, match="3 steps in a row"):
        run_fit(Recipe(terms, lambda step, steps: {"root": 1.0}), epochs=1)


def test_weights_that_are_not_finite_end_the_run_even_where_every_loss_and_gradient_was() -> None:
    with pytest.raises(TrainingError, match="weights must stay finite"):
        run_fit(
            epochs=1,
            lr=3e38,
            optimizer="sgd",
            momentum=0.0,
            weight_decay=0.0,
            schedule="step",
            steps=1,
            data=lambda epoch: iter([(100 * torch.ones(4, 2), torch.zeros(4))]),
        )


def test_a_listener_that_raises_ends_the_run() -> None:
    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(listener=Listener(step=stop))


def test_bf16_trains_on_the_cpu_through_a_double_backward() -> None:
    from kdcompress.maths.gradients import logits_and_input_gradient

    def terms(net: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        _, gradient = logits_and_input_gradient(net, x, (y > 0).long(), create_graph=True)
        return {"slope": gradient.square().sum(1)}

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    fitted = run_fit(Recipe(terms, lambda step, steps: {"slope": 1.0}), model=net, precision="bf16")
    assert all(value.dtype == torch.float32 for value in fitted.best.model.state_dict().values())
    assert fitted.history[-1].loss < fitted.history[0].loss
