"""The one training loop, for every recipe."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from kdcompress.errors import TrainingError
from kdcompress.progress import Epoch, Listener, Step, Validation
from kdcompress.settings import RunSettings
from kdcompress.training.backward import Backward
from kdcompress.training.batches import Batches
from kdcompress.training.recipes import Recipe

READ_EVERY = 10
"""Steps between readings of the running means: each reading waits for the device."""

VALIDATIONS = 5
"""How often a run is validated: the held-out slice costs 11 passes (clean and PGD-10) each time."""


@dataclass(frozen=True)
class Fitted:
    """The averaged weights of the best validated epoch, and how the run went."""

    model: nn.Module
    best: Epoch
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
    micro_batch: int | None = None,
    listener: Listener = Listener(),
) -> Fitted:
    """Minimise the recipe's loss with AdamW and one cycle of the learning rate; keep the best averaged weights.

    Args:
        micro_batch: the most images whose graph is in memory at once; where memory runs out it is halved, and said.

    Raises:
        TrainingError: if the loss or a weight stops being finite.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.lr, weight_decay=run.weight_decay)
    steps = run.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=run.lr, total_steps=max(steps, 2))
    average = ModelEmaV3(model, decay=run.ema, use_warmup=True)
    every = math.ceil(run.epochs / VALIDATIONS)
    history: list[Epoch] = []
    best: Epoch | None = None
    best_state: dict[str, Tensor] = {}
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
            average.update(model, step=step)
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
        averages = means.read()
        loss_mean = averages.pop("loss")
        if not math.isfinite(loss_mean):
            raise TrainingError(
                f"the loss must stay finite, got {loss_mean} in epoch {epoch} ({_render(averages)}); "
                "lower --lr or --iga-weight, or lengthen --iga-ramp"
            )
        if not all(bool(torch.isfinite(value).all()) for value in average.module.state_dict().values()):
            raise TrainingError(
                f"the weights must stay finite, got infinity or NaN in epoch {epoch} at a loss of {loss_mean:.3g}; "
                "lower --lr or --iga-weight, or lengthen --iga-ramp"
            )
        validation = validate(average.module) if epoch % every == 0 or epoch == run.epochs else None
        is_best = validation is not None and (
            best is None or best.validation is None or validation.score >= best.validation.score
        )
        summary = Epoch(
            epoch=epoch,
            step=step,
            loss=loss_mean,
            terms=averages,
            weights=weights,
            lr=lr,
            seconds=time.perf_counter() - epoch_started,
            validation=validation,
            is_best=is_best,
        )
        if is_best:
            best = summary
            best_state = {name: value.clone() for name, value in average.module.state_dict().items()}
        history.append(summary)
        listener.epoch(summary)

    assert best is not None  # the last epoch is always validated
    average.module.load_state_dict(best_state)
    average.module.eval().requires_grad_(False)
    return Fitted(average.module, best, tuple(history), step, time.perf_counter() - started)


def _render(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
