"""Where a run is after a step: all that its future depends on, so that it can be taken up again to the last bit.

Not held here, since they follow from the settings: the images, the teacher, and the schedule, which is replayed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdcompress.progress import Epoch, Validation, Weights
from kdcompress.training.averaging import Average
from kdcompress.training.backward import Backward
from kdcompress.training.batches import Chance
from kdcompress.training.means import Means

Facts = dict[str, Any]
"""What JSON can hold."""


@dataclass(frozen=True)
class Snapshot:
    """A run's state as it is kept: tensors on the CPU by name, and facts."""

    tensors: dict[str, Tensor]
    facts: Facts


@dataclass(frozen=True)
class Candidate:
    """A network of an epoch's end, and what it reached on the held-out slice."""

    model: nn.Module
    epoch: int
    weights: Weights
    validation: Validation


@dataclass
class Training:
    """What moves while a network is trained.

    Attributes:
        best_model: a network of its own, for the weights of `best`; as good as empty before there are any.
        chance: everything that draws, by purpose.
        epoch: the one in work, from 1; `means` are its, and `began` is what `seconds` were at its start.
        step: steps done, in all epochs.
        seconds: spent before this process took over.
        lr: of the last step.
        skipped: steps in a row, up to the last, that were not finite.
    """

    model: nn.Module
    optimizer: Optimizer
    average: Average
    backward: Backward
    chance: Mapping[str, Chance]
    best_model: nn.Module
    device: torch.device
    best: Candidate | None = None
    history: list[Epoch] = field(default_factory=list)
    means: Means = field(default_factory=Means)
    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    began: float = 0.0
    lr: float = 0.0
    skipped: int = 0

    def snapshot(self, seconds: float) -> Snapshot:
        """A copy of all of it. Args: seconds: spent so far."""
        tensors = {
            **_under("model", self.model.state_dict()),
            **_under("average", self.average.state()),
            **_under("optimizer", _slots(self.optimizer)),
            **_under("mean", self.means.sums),
            **_under("chance", {purpose: drawn.get_state() for purpose, drawn in self.chance.items()}),
            **_under("global", self._global_chance()),
        }
        if self.best is not None:
            tensors |= _under("best", self.best_model.state_dict())
        facts = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": seconds,
            "began": self.began,
            "lr": self.lr,
            "skipped": [self.means.skipped, self.skipped],
            "micro_batch": self.backward.micro_batch,
            "counts": dict(self.means.counts),
            "weights": dict(self.means.weights),
            "history": [asdict(epoch) for epoch in self.history],
            "best": None
            if self.best is None
            else {name: getattr(self.best, name) for name in ("epoch", "weights")}
            | {"validation": asdict(self.best.validation)},
        }
        return Snapshot({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, facts)

    def restore(self, kept: Snapshot) -> None:
        """Be where the snapshot was taken. Only a run of the same settings, images and teacher can.

        Raises:
            KeyError, RuntimeError, ValueError: if the snapshot is of another run.
        """
        facts, tensors = kept.facts, kept.tensors
        self.model.load_state_dict(_of("model", tensors))
        self.average.load_state(_of("average", tensors))
        _refill(self.optimizer, _of("optimizer", tensors))
        for purpose, state in _of("chance", tensors).items():
            self.chance[purpose].set_state(state)
        _set_global_chance(_of("global", tensors), self.device)
        self.backward.micro_batch = facts["micro_batch"]
        self.means = Means(
            {name: total.to(self.device) for name, total in _of("mean", tensors).items()},
            Counter(facts["counts"]),
            Counter(facts["weights"]),
            facts["skipped"][0],
        )
        self.skipped = facts["skipped"][1]
        self.history = [_epoch(line) for line in facts["history"]]
        self.epoch, self.step = facts["epoch"], facts["step"]
        self.seconds, self.began, self.lr = facts["seconds"], facts["began"], facts["lr"]
        if facts["best"] is not None:
            self.best_model.load_state_dict(_of("best", tensors))
            best = facts["best"] | {"validation": Validation(**facts["best"]["validation"])}
            self.best = Candidate(self.best_model, **best)

    def _global_chance(self) -> dict[str, Tensor]:
        """What dropout and stochastic depth draw from."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states


def _set_global_chance(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _slots(optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimizer holds of each weight, as `number.name`; its learning rate and betas are the schedule's."""
    slots = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value for number, slot in slots.items() for name, value in slot.items() if value is not None
    }


def _refill(optimizer: Optimizer, slots: dict[str, Tensor]) -> None:
    """With tensors laid out in memory as the weights are: kernels round by layout."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in slots.items():
        number, slot = name.split(".", 1)
        weight = weights[int(number)]
        alike = torch.empty_like(weight, dtype=value.dtype) if value.shape == weight.shape else None
        state.setdefault(int(number), {})[slot] = value if alike is None else alike.copy_(value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _epoch(line: Facts) -> Epoch:
    seen = {name: None if line[name] is None else Validation(**line[name]) for name in _VALIDATIONS}
    return Epoch(**line | seen)


_VALIDATIONS = ("validation", "other_validation")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
