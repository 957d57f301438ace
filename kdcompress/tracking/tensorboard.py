"""TensorBoard: event files in a folder, for `tensorboard --logdir FOLDER`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from kdcompress.errors import UsageError
from kdcompress.progress import Beginning
from kdcompress.tracking.tracker import Figures


class TensorBoard:
    """Writes FOLDER/<the name of OUT>: OUT itself appears at the end of the run, and the figures appear meanwhile."""

    def __init__(self, folder: Path, out: Path, run: Beginning, settings: Mapping[str, Any]) -> None:
        place = folder.resolve() / out.name
        if place.is_relative_to(out):
            raise UsageError(
                f"--log-to tensorboard writes {place}, which must lie outside --out; name another folder, as "
                "tensorboard:FOLDER"
            )
        self.where = str(place)
        # Hides what an earlier run left there, and of one that goes on what it said after its checkpoint.
        self.writer = SummaryWriter(str(place), purge_step=run.step)
        rows = "\n".join(f"| {name} | `{value}` |" for name, value in settings.items())
        self.writer.add_text("settings", f"| | |\n|---|---|\n{rows}", run.step)
        self.writer.flush()

    def epoch(self, step: int, figures: Figures) -> None:
        """Scalars at `step`, on the disk."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def ended(self, step: int, figures: Figures) -> None:
        """Scalars as well, of one point each."""
        self.epoch(step, figures)

    def closed(self, finished: bool) -> None:
        """Close the file."""
        self.writer.close()
