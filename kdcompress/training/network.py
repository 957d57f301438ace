"""A network, a recipe and images: fitted on the training split, its epoch chosen on the held-out slice."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdcompress.attacks.pgd import pgd
from kdcompress.data import Data, Split
from kdcompress.devices import LAYOUT, within_memory
from kdcompress.maths.norms import gaussian
from kdcompress.maths.randomness import generator
from kdcompress.models.normalised import NormalisedModel
from kdcompress.processes import ALONE, Processes
from kdcompress.progress import Listener, Validation
from kdcompress.settings import RunSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.batches import Batches, batch_size
from kdcompress.training.checkpoints import Checkpoints
from kdcompress.training.ingredients import told_damaged, training_split
from kdcompress.training.loop import Fitted, fit
from kdcompress.training.recipes import Recipe
from kdcompress.training.statistics import refreshing
from kdcompress.training.stopping import Stop, gently

VALIDATION_STEPS = 10
VALIDATED_AT_ONCE = 250
"""Images; fewer where memory asks for it, from then on."""


def train_network(
    network: NormalisedModel,
    recipe: Recipe,
    data: Data,
    batches: Batches,
    run: RunSettings,
    threat: ThreatModel,
    device: torch.device,
    listener: Listener,
    micro_batch: int | None = None,
    checkpoints: Checkpoints | None = None,
    processes: Processes = ALONE,
) -> Fitted:
    """Fit on the training split; choose the epoch on the held-out slice. The test split plays no part.

    Raises:
        Stopped: if Ctrl-C or SIGTERM asked for it; the state is written first.
    """
    holdout = data.holdout
    assert holdout is not None  # comes with the training split
    listener.detail(f"{run.epochs} epochs on {processes.told(device)}, in {run.precision}")
    with gently() as stop, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Dropout and stochastic depth know only the global generator.
        torch.manual_seed(run.seed + processes.rank)
        fitted = fit(
            network.to(device).to(memory_format=LAYOUT),
            recipe,
            batches,
            steps_per_epoch=len(training_split(data)) // batch_size(data, run),
            run=run,
            validate=_validation(holdout, threat, run, device, stop, listener),
            device=device,
            classes=len(data.classes),
            refresh=refreshing(data, run, device),
            micro_batch=micro_batch,
            checkpoints=checkpoints,
            stop=stop,
            processes=processes,
            listener=listener,
        )
    if data.damaged and not isinstance(holdout.pixels, Tensor):
        listener.note(told_damaged(data))
    return fitted


def _validation(
    holdout: Split, threat: ThreatModel, run: RunSettings, device: torch.device, stop: Stop, listener: Listener
) -> Callable[[nn.Module], Validation]:
    at_once = VALIDATED_AT_ONCE

    def measured(model: nn.Module, batch_size: int) -> Validation:
        nonlocal at_once
        at_once = batch_size
        # The same start and the same noise every time, so that epochs can be compared.
        rng, noise = generator(run.seed, "validation"), generator(run.seed, "validation noise")
        clean = kept = under_noise = 0
        for x, y in holdout.batches(batch_size, device=device):
            stop.heed()
            x_adv = pgd(model, x, y, threat, steps=VALIDATION_STEPS, generator=rng)
            with torch.no_grad():
                right = model(x).argmax(1) == y
                kept += int((right & (model(x_adv).argmax(1) == y)).sum())
                if run.noise_sigma > 0:
                    under_noise += int((model(x + gaussian(x, run.noise_sigma, noise)).argmax(1) == y).sum())
            clean += int(right.sum())
        return Validation(
            clean / len(holdout),
            kept / len(holdout),
            len(holdout),
            under_noise / len(holdout) if run.noise_sigma > 0 else None,
        )

    return lambda model: within_memory(lambda images: measured(model, images), at_once, listener.note)
