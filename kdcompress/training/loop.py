"""The one training loop, for every recipe."""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from kdcompress.errors import Stopped, TrainingError
from kdcompress.processes import ALONE, Processes
from kdcompress.progress import Epoch, Listener, Step, Validation, Weights
from kdcompress.settings import RunSettings
from kdcompress.training.averaging import Average, Refresh, averaging
from kdcompress.training.backward import Backward, Batch, has_batch_norm
from kdcompress.training.batches import Batches
from kdcompress.training.checkpoints import Checkpoints
from kdcompress.training.finite import PATIENCE, Finite
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

_REMEDY = "lower --lr or --iga-weight, or lengthen --iga-ramp"


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
    classes: int | None = None,
    refresh: Refresh = lambda model: None,
    micro_batch: int | None = None,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    processes: Processes = ALONE,
    listener: Listener = Listener(),
) -> Fitted:
    """Minimise the recipe's loss by the optimizer, schedule and average of `run`; keep the best weights and the last.

    Args:
        classes: K, by which a network that guesses is known; see `Validation.score`.
        refresh: takes BatchNorm's statistics of averaged weights anew.
        micro_batch: the most images whose graph is in memory at once; where memory runs out it is halved, and said.
        checkpoints: where the run's state is kept; one that they hold is gone on from.
        stop: heeded after every step, and by `validate`.
        processes: that share the batches; each calls this.

    A step whose loss or gradient is not finite is left out, said and counted.

    Raises:
        TrainingError: if that happens `PATIENCE` times in a row, or as often as an epoch has steps; if a weight stops
            being finite.
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
        _advance(schedule, now.step)
        processes.own_chance(run.seed + now.step)
        listener.note(f"goes on after step {now.step} of {steps}, in epoch {now.epoch}")
    processes.start_alike(model)
    finite = Finite(model)
    shared = run.sync_batchnorm and processes.count > 1 and has_batch_norm(model)
    started, first = time.perf_counter() - now.seconds, now.step

    def seconds() -> float:
        return time.perf_counter() - started

    try:
        for epoch in range(now.epoch, run.epochs + 1):
            model.train()
            for batch in _own(batches(epoch, now.step - (epoch - 1) * steps_per_epoch), processes):
                weights = recipe.weights(now.step, steps)
                optimizer.zero_grad()
                finite.keep()
                with processes.seated(), processes.synced(run.sync_batchnorm):
                    found = now.backward(batch, weights, None if shared else finite.take_back)
                terms, is_asked = processes.agree(model, found, stop is not None and stop.signal is not None)
                now.lr = optimizer.param_groups[0]["lr"]
                if finite.holds(terms["loss"]):
                    optimizer.step()
                    now.average.after_step(model, now.step + 1)
                    now.means.add(terms, weights)
                    now.skipped = 0
                else:
                    finite.take_back()
                    _count_skipped(now, batch, terms, min(PATIENCE, steps_per_epoch), checkpoints, listener)
                _advance(schedule)
                now.step += 1
                if now.step == epoch * steps_per_epoch:
                    now.average.after_epoch(model, epoch / run.epochs)
                images = processes.count * len(batch[0])
                listener.step(
                    Step(
                        epoch=epoch,
                        epochs=run.epochs,
                        step=now.step,
                        steps=steps,
                        terms=now.means.read() if now.step % READ_EVERY == 0 or now.step == steps else {},
                        weights=weights,
                        images_per_second=(now.step - first) * images / (seconds() - now.seconds),
                        seconds_left=(seconds() - now.seconds) / (now.step - first) * (steps - now.step),
                    )
                )
                if checkpoints is not None:
                    checkpoints.after_step(lambda: now.snapshot(seconds()))
                if stop is not None and is_asked:
                    stop.obey()
            candidates = _close(now, run, validate, classes, seconds, listener)
    except Stopped as stopped:
        kept = checkpoints is not None and checkpoints.write(now.snapshot(seconds()))
        told = f"stopped after step {now.step} of {steps}" + ("; --resume goes on from there" if kept else "")
        raise Stopped(stopped.number, told) from None

    assert now.best is not None  # the last epoch is always validated
    last = candidates[0]
    for kept_network in (now.best, last):
        kept_network.model.eval().requires_grad_(False)
    return Fitted(now.best, last, tuple(now.history), now.step, seconds())


def _own(batches: Iterator[Batch], processes: Processes) -> Iterator[Batch]:
    """The batches as they are read and drawn by a process with a seat among others."""
    while True:
        with processes.seated():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _close(
    now: Training,
    run: RunSettings,
    validate: Callable[[nn.Module], Validation],
    classes: int | None,
    seconds: Callable[[], float],
    listener: Listener,
) -> list[Candidate]:
    """End the epoch in work: its figures, its validation, perhaps new best weights. Returns what was validated.

    Nothing of `now` moves before the validation is over, so that a run stopped in its midst can begin it again.
    """
    terms = now.means.read()
    loss = terms.pop("loss")
    _refuse_infinite(now.epoch, loss, now.model)
    is_validated = now.epoch % math.ceil(run.epochs / VALIDATIONS) == 0 or now.epoch == run.epochs
    candidates = _candidates(now.model, now.average, now.epoch, validate) if is_validated else []
    # The first of equals, so the averaged weights; the later of equal epochs.
    better = max(candidates, key=lambda candidate: candidate.validation.score(classes), default=None)
    is_best = better is not None and (
        now.best is None or better.validation.score(classes) >= now.best.validation.score(classes)
    )
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
        skipped=now.means.skipped,
    )
    now.history.append(summary)
    now.epoch, now.means, now.began = now.epoch + 1, Means(), seconds()
    listener.epoch(summary)
    return candidates


def _count_skipped(
    now: Training,
    batch: Batch,
    terms: dict[str, Tensor],
    most: int,
    checkpoints: Checkpoints | None,
    listener: Listener,
) -> None:
    """One more step that was taken back; number `most` in a row ends the run, and leaves its batch behind."""
    now.means.skipped += 1
    now.skipped += 1
    step, found = now.step + 1, _render({name: float(value) for name, value in terms.items()})
    if now.skipped < most:
        listener.note(f"step {step} is left out: its loss or gradient is not finite ({found})")
        return
    left = None if checkpoints is None else checkpoints.leave_failed(now.snapshot(now.seconds), batch)
    raise TrainingError(
        f"the loss and its gradient must stay finite, got infinity or NaN in {most} steps in a row, up to step {step} "
        f"in epoch {now.epoch} ({found}); {_REMEDY}" + (f"; the batch and the weights are in {left}" if left else "")
    )


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


def _advance(schedule: LRScheduler, steps: int = 1) -> None:
    """Move on by so many steps, whether or not the optimizer took them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for _ in range(steps):
            schedule.step()


def _refuse_infinite(epoch: int, loss: float, model: nn.Module) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in model.state_dict().values()):
        raise TrainingError(
            f"the weights must stay finite, got infinity or NaN in epoch {epoch} at a loss of {loss:.3g}; {_REMEDY}"
        )


def _render(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
