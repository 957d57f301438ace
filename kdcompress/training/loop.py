"""The one training loop, for every recipe."""

import copy
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from kdcompress.errors import Stopped, TrainingError
from kdcompress.progress import Epoch, Listener, Step, Validation, Weights
from kdcompress.settings import RunSettings
from kdcompress.training.averaging import Average, Refresh, averaging
from kdcompress.training.backward import Backward
from kdcompress.training.batches import Batches
from kdcompress.training.checkpoints import Checkpoints
from kdcompress.training.means import Means
from kdcompress.training.recipes import Recipe
from kdcompress.training.schedules import optimizer_of, schedule_of
from kdcompress.training.state import Candidate, Training
from kdcompress.training.stopping import Stop

READ_EVERY = 10
"""Steps between readings of the running means: each reading waits for the device."""

VALIDATIONS = 5
"""How often a run is validated at most: the held-out slice costs 11 passes (clean and PGD-10) each time, for the
averaged weights and again for the raw ones."""


@dataclass(frozen=True)
class Fitted:
    """The best of the validated weights and the last epoch's, averaged where they are, and how the run went."""

    best: Candidate
    last: Candidate
    history: tuple[Epoch, ...]
    steps: int
    seconds: float


def fit(
    model: nn.Module,
    recipe: Recipe,
    batches: Batches,
    *,
    steps_per_epoch: int,
    run: RunSettings,
    validate: Callable[[nn.Module], Validation],
    device: torch.device,
    refresh: Refresh = lambda model: None,
    micro_batch: int | None = None,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    listener: Listener = Listener(),
) -> Fitted:
    """Minimise the recipe's loss by the optimizer, schedule and average of `run`; keep the best weights and the last.

    Args:
        refresh: takes BatchNorm's statistics of averaged weights anew.
        micro_batch: the most images whose graph is in memory at once; where memory runs out it is halved, and said.
        checkpoints: where the run's state is kept; one that they hold is gone on from.
        stop: heeded after every step, and by `validate`.

    Raises:
        TrainingError: if the loss or a weight stops being finite.
        Stopped: if a signal asked for it; the state is written first.
    """
    steps = run.epochs * steps_per_epoch
    optimizer = optimizer_of(model.parameters(), run)
    schedule = schedule_of(optimizer, run, steps)
    now = Training(
        model=model,
        optimizer=optimizer,
        average=averaging(model, run, refresh),
        backward=Backward(model, recipe, run.precision, listener, micro_batch),
        chance={**batches.chance, **recipe.chance},
        best_model=copy.deepcopy(model),
        device=device,
    )
    if checkpoints is not None and checkpoints.found is not None:
        now.restore(checkpoints.found)
        _replay(schedule, now.step)
        listener.note(f"goes on after step {now.step} of {steps}, in epoch {now.epoch}")
    started, first = time.perf_counter() - now.seconds, now.step

    def seconds() -> float:
        return time.perf_counter() - started

    try:
        for epoch in range(now.epoch, run.epochs + 1):
            model.train()
            for batch in batches(epoch, now.step - (epoch - 1) * steps_per_epoch):
                weights = recipe.weights(now.step, steps)
                optimizer.zero_grad()
                terms = now.backward(batch, weights)
                optimizer.step()
                now.lr = optimizer.param_groups[0]["lr"]
                schedule.step()
                now.step += 1
                now.average.after_step(model, now.step)
                if now.step == epoch * steps_per_epoch:
                    now.average.after_epoch(model, epoch / run.epochs)
                now.means.add(terms, weights)
                listener.step(
                    Step(
                        epoch=epoch,
                        epochs=run.epochs,
                        step=now.step,
                        steps=steps,
                        terms=now.means.read() if now.step % READ_EVERY == 0 or now.step == steps else {},
                        weights=weights,
                        images_per_second=(now.step - first) * len(batch[0]) / (seconds() - now.seconds),
                        seconds_left=(seconds() - now.seconds) / (now.step - first) * (steps - now.step),
                    )
                )
                if checkpoints is not None:
                    checkpoints.after_step(lambda: now.snapshot(seconds()))
                if stop is not None:
                    stop.heed()
            candidates = _close(now, run, validate, seconds, listener)
    except Stopped as stopped:
        kept = checkpoints is not None and checkpoints.write(now.snapshot(seconds()))
        told = f"stopped after step {now.step} of {steps}" + ("; --resume goes on from there" if kept else "")
        raise Stopped(stopped.number, told) from None

    assert now.best is not None  # the last epoch is always validated
    last = candidates[0]
    for kept_network in (now.best, last):
        kept_network.model.eval().requires_grad_(False)
    return Fitted(now.best, last, tuple(now.history), now.step, seconds())


def _close(
    now: Training,
    run: RunSettings,
    validate: Callable[[nn.Module], Validation],
    seconds: Callable[[], float],
    listener: Listener,
) -> list[Candidate]:
    """End the epoch in work: its figures, its validation, perhaps new best weights. Returns what was validated.

    Nothing of `now` moves before the validation is over, so that a run stopped in its midst can begin it again.
    """
    terms = now.means.read()
    loss = terms.pop("loss")
    _refuse_infinite(now.epoch, loss, terms, now.model)
    is_validated = now.epoch % math.ceil(run.epochs / VALIDATIONS) == 0 or now.epoch == run.epochs
    candidates = _candidates(now.model, now.average, now.epoch, validate) if is_validated else []
    # The first of equals, so the averaged weights; the later of equal epochs.
    better = max(candidates, key=lambda candidate: candidate.validation.score, default=None)
    is_best = better is not None and (now.best is None or better.validation.score >= now.best.validation.score)
    if better is not None and is_best:
        now.best_model.load_state_dict(better.model.state_dict())
        now.best = replace(better, model=now.best_model)
    steps = now.means.counts["loss"]
    summary = Epoch(
        epoch=now.epoch,
        step=now.step,
        loss=loss,
        terms=terms,
        weights={name: total / steps for name, total in now.means.weights.items()},
        lr=now.lr,
        seconds=seconds() - now.began,
        validation=None if better is None else better.validation,
        is_best=is_best,
        validated=None if better is None else better.weights,
        other_validation=next((other.validation for other in candidates if other is not better), None),
    )
    now.history.append(summary)
    now.epoch, now.means, now.began = now.epoch + 1, Means(), seconds()
    listener.epoch(summary)
    return candidates


def _candidates(
    model: nn.Module, average: Average, epoch: int, validate: Callable[[nn.Module], Validation]
) -> list[Candidate]:
    """The averaged weights, where there are any, then the raw ones; each validated."""
    networks: dict[Weights, nn.Module | None] = {"averaged": average.network(), "raw": model.eval()}
    return [
        Candidate(network, epoch, weights, validate(network))
        for weights, network in networks.items()
        if network is not None
    ]


def _replay(schedule: LRScheduler, steps: int) -> None:
    """Bring a new schedule to where `steps` steps would have brought it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for _ in range(steps):
            schedule.step()


def _refuse_infinite(epoch: int, loss: float, terms: dict[str, float], model: nn.Module) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss must stay finite, got {loss} in epoch {epoch} ({_render(terms)}); "
            "lower --lr or --iga-weight, or lengthen --iga-ramp"
        )
    if not all(bool(torch.isfinite(value).all()) for value in model.state_dict().values()):
        raise TrainingError(
            f"the weights must stay finite, got infinity or NaN in epoch {epoch} at a loss of {loss:.3g}; "
            "lower --lr or --iga-weight, or lengthen --iga-ramp"
        )


def _render(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
