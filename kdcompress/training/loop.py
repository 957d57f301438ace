"""The one training loop, for every recipe."""

import copy
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from kdcompress.errors import TrainingError
from kdcompress.progress import Epoch, Listener, Step, Validation, Weights
from kdcompress.settings import RunSettings
from kdcompress.training.averaging import Average, Refresh, averaging
from kdcompress.training.backward import Backward
from kdcompress.training.batches import Batches
from kdcompress.training.recipes import Recipe
from kdcompress.training.schedules import optimizer_of, schedule_of

READ_EVERY = 10
"""Steps between readings of the running means: each reading waits for the device."""

VALIDATIONS = 5
"""How often a run is validated at most: the held-out slice costs 11 passes (clean and PGD-10) each time, for the
averaged weights and again for the raw ones."""


@dataclass(frozen=True)
class Candidate:
    """A network of an epoch's end, and what it reached on the held-out slice."""

    model: nn.Module
    epoch: int
    weights: Weights
    validation: Validation


@dataclass(frozen=True)
class Fitted:
    """The best of the validated weights and the last epoch's, averaged where they are, and how the run went."""

    best: Candidate
    last: Candidate
    history: tuple[Epoch, ...]
    steps: int
    seconds: float


@dataclass
class _Means:
    """Running means of the terms, kept on the device: reading them costs a synchronisation."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    """A term that is taken in some steps only is averaged over those."""

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
            self.counts[name] += 1

    def read(self) -> dict[str, float]:
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


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
    listener: Listener = Listener(),
) -> Fitted:
    """Minimise the recipe's loss by the optimizer, schedule and average of `run`; keep the best weights and the last.

    Args:
        refresh: takes BatchNorm's statistics of averaged weights anew.
        micro_batch: the most images whose graph is in memory at once; where memory runs out it is halved, and said.

    Raises:
        TrainingError: if the loss or a weight stops being finite.
    """
    steps = run.epochs * steps_per_epoch
    optimizer = optimizer_of(model.parameters(), run)
    schedule = schedule_of(optimizer, run, steps)
    average = averaging(model, run, refresh)
    every = math.ceil(run.epochs / VALIDATIONS)
    history: list[Epoch] = []
    best_model, best, candidates = copy.deepcopy(model), None, list[Candidate]()
    started, step = time.perf_counter(), 0
    backward = Backward(model, recipe, run.precision, listener, micro_batch)

    for epoch in range(1, run.epochs + 1):
        epoch_started, means, weights, lr = time.perf_counter(), _Means(), {}, 0.0
        model.train()
        for batch in batches(epoch):
            weights = recipe.weights(step, steps)
            optimizer.zero_grad()
            terms = backward(batch, weights)
            optimizer.step()
            lr = optimizer.param_groups[0]["lr"]
            schedule.step()
            step += 1
            average.after_step(model, step)
            means.add(terms)
            elapsed = time.perf_counter() - started
            listener.step(
                Step(
                    epoch=epoch,
                    epochs=run.epochs,
                    step=step,
                    steps=steps,
                    terms=means.read() if step % READ_EVERY == 0 or step == steps else {},
                    weights=weights,
                    images_per_second=step * len(batch[0]) / elapsed,
                    seconds_left=elapsed / step * (steps - step),
                )
            )
        average.after_epoch(model, epoch / run.epochs)
        terms_mean = means.read()
        loss_mean = terms_mean.pop("loss")
        _refuse_infinite(epoch, loss_mean, terms_mean, model)
        is_validated = epoch % every == 0 or epoch == run.epochs
        candidates = _candidates(model, average, epoch, validate) if is_validated else []
        # The first of equals, so the averaged weights; the later of equal epochs.
        better = max(candidates, key=lambda candidate: candidate.validation.score, default=None)
        is_best = better is not None and (best is None or better.validation.score >= best.validation.score)
        if better is not None and is_best:
            best_model.load_state_dict(better.model.state_dict())
            best = replace(better, model=best_model)
        summary = Epoch(
            epoch=epoch,
            step=step,
            loss=loss_mean,
            terms=terms_mean,
            weights=weights,
            lr=lr,
            seconds=time.perf_counter() - epoch_started,
            validation=None if better is None else better.validation,
            is_best=is_best,
            validated=None if better is None else better.weights,
            other_validation=next((other.validation for other in candidates if other is not better), None),
        )
        history.append(summary)
        listener.epoch(summary)

    assert best is not None  # the last epoch is always validated
    last = candidates[0]
    for kept in (best, last):
        kept.model.eval().requires_grad_(False)
    return Fitted(best, last, tuple(history), step, time.perf_counter() - started)


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
