"""A network, a recipe and images: fitted on the training split, its epoch chosen on the held-out slice."""

from collections.abc import Callable

import torch
from torch import Generator, nn

from kdcompress.attacks.pgd import pgd
from kdcompress.data import Data, Split
from kdcompress.devices import LAYOUT
from kdcompress.maths.randomness import generator
from kdcompress.models.normalised import NormalisedModel
from kdcompress.progress import Listener, Validation
from kdcompress.settings import RunSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.batches import Batches, batch_size
from kdcompress.training.ingredients import training_split
from kdcompress.training.loop import Fitted, fit
from kdcompress.training.recipes import Recipe

VALIDATION_STEPS = 10


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
) -> Fitted:
    """Fit on the training split; choose the epoch on the held-out slice. The test split plays no part."""
    holdout = data.holdout
    assert holdout is not None  # comes with the training split
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(run.seed)  # dropout and stochastic depth know only the global generator
        return fit(
            network.to(device).to(memory_format=LAYOUT),
            recipe,
            batches,
            steps_per_epoch=len(training_split(data)) // batch_size(data, run),
            run=run,
            validate=_validation(holdout, threat, run.seed, device),
            device=device,
            micro_batch=micro_batch,
            listener=listener,
        )


def _validation(
    holdout: Split, threat: ThreatModel, seed: int, device: torch.device
) -> Callable[[nn.Module], Validation]:
    def validate(model: nn.Module) -> Validation:
        rng: Generator = generator(seed, "validation")  # the same start every time, so that epochs can be compared
        clean = kept = 0
        for x, y in holdout.batches(250, device=device):
            x_adv = pgd(model, x, y, threat, steps=VALIDATION_STEPS, generator=rng)
            with torch.no_grad():
                right = model(x).argmax(1) == y
                kept += int((right & (model(x_adv).argmax(1) == y)).sum())
            clean += int(right.sum())
        return Validation(clean / len(holdout), kept / len(holdout), len(holdout))

    return validate
