"""Averages of the weights that a run goes through: `--average`.

Each is told of every step and of every epoch's end, and gives the averaged network when it is to be validated.
"""

from collections.abc import Callable
from typing import Protocol

from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdcompress.settings import RunSettings

Refresh = Callable[[nn.Module], None]
"""Takes BatchNorm's statistics of a network anew; see `kdcompress.training.statistics`."""


class Average(Protocol):
    """What the loop asks of an average."""

    def after_step(self, model: nn.Module, step: int) -> None:
        """The model has taken its step number `step`, from 1."""

    def after_epoch(self, model: nn.Module, progress: float) -> None:
        """The model has ended an epoch, at this share of the run."""

    def network(self) -> nn.Module | None:
        """The averaged network in eval mode; None while there is none. What it holds moves on with the run."""

    def state(self) -> dict[str, Tensor]:
        """All that it has seen so far."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Have seen that."""


def averaging(model: nn.Module, run: RunSettings, refresh: Refresh) -> Average:
    """The average that `--average` names, of the model that is about to be trained."""
    if run.ema is not None:
        return ExponentialAverage(model, run.ema)
    return EqualAverage(model, run.swa_start, refresh) if run.swa_start is not None else NoAverage()


class ExponentialAverage:
    """The exponential average over all steps, BatchNorm's statistics included.

    Its decay grows from 0 to `decay`: 1 - t^(-2/3) at step t, so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.average = ModelEmaV3(model, decay=decay, use_warmup=True)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Goes into the average."""
        self.average.update(model, step=step)

    def after_epoch(self, model: nn.Module, progress: float) -> None:
        """Nothing to do."""

    def network(self) -> nn.Module:
        """The average so far."""
        network: nn.Module = self.average.module
        return network

    def state(self) -> dict[str, Tensor]:
        """Of the averaged network."""
        return self.average.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Into the averaged network."""
        self.average.load_state_dict(state)


class EqualAverage:
    """Stochastic weight averaging: the mean of the weights at the ends of the epochs from `start` of the run on.

    Source: Izmailov et al. (2018), arXiv:1803.05407, Algorithm 1, with c one epoch; against robust overfitting: Chen et
    al. (2021), openreview.net/forum?id=qZzy5urZw9. They hold the learning rate up where they average; here it follows
    `--schedule`. BatchNorm's statistics belong to no average of weights, and are taken anew.
    """

    def __init__(self, model: nn.Module, start: float, refresh: Refresh) -> None:
        self.average, self.start, self.refresh = AveragedModel(model), start, refresh

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to do."""

    def after_epoch(self, model: nn.Module, progress: float) -> None:
        """Goes into the average where it is late enough; the last epoch always is."""
        if progress >= self.start:
            self.average.update_parameters(model)

    def network(self) -> nn.Module | None:
        """The average so far, with statistics of its own."""
        if self.average.n_averaged == 0:
            return None
        self.refresh(self.average.module)
        return self.average.module.eval()

    def state(self) -> dict[str, Tensor]:
        """Of the averaged network, and how many are in it."""
        return self.average.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Into the averaged network."""
        self.average.load_state_dict(state)


class NoAverage:
    """No average: the raw weights stand alone."""

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to do."""

    def after_epoch(self, model: nn.Module, progress: float) -> None:
        """Nothing to do."""

    def network(self) -> None:
        """None, ever."""

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Nothing to do."""
