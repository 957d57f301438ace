"""Weights & Biases, at the service or, with WANDB_MODE=offline, in a folder for `wandb sync`."""

from collections.abc import Mapping
from typing import Any

import wandb

from kdcompress.errors import UsageError
from kdcompress.progress import Beginning
from kdcompress.tracking.tracker import Figures

PATIENCE = 300.0
"""Seconds that the end of a run waits for a service that has gone; what it misses can be sent by `wandb sync`."""


class WeightsAndBiases:
    """A run of a project, by an id of ours, so that it goes on where the training does."""

    def __init__(self, project: str, name: str, run: Beginning, settings: Mapping[str, Any]) -> None:
        mode = wandb.setup(wandb.Settings(silent=True)).settings.mode
        if mode == "online" and not wandb.login(prompt=False):  # it would ask at the terminal
            raise UsageError("--log-to wandb has no API key: run wandb login, or set WANDB_MODE=offline")
        self.run = wandb.init(
            project=project,
            name=name,
            id=run.id,
            resume="allow",
            config=dict(settings),
            settings=wandb.Settings(console="off", silent=True, finish_timeout=PATIENCE),
        )
        self.where = self.run.url or str(self.run.settings.sync_dir)

    def epoch(self, step: int, figures: Figures) -> None:
        """A row of the history; of a step that it has already, it takes no second."""
        self.run.log(dict(figures), step=step)

    def ended(self, step: int, figures: Figures) -> None:
        """Into the summary, beside the last epoch's."""
        self.run.summary.update(figures)

    def closed(self, finished: bool) -> None:
        """Send the rest."""
        self.run.finish(exit_code=0 if finished else 1)
