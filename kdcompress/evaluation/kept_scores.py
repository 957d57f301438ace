"""An image's score kept on the disk, for estimates that take seconds an image, so that a killed run goes on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kdcompress.files import write_whole


@dataclass
class KeptScores:
    """Scores of one network under one setting, a file an image; without a folder nothing is kept.

    A network that answers otherwise by now is found out by its logits of the image. A folder that cannot be written
    costs the user nothing but the memory of it: `note` says so.
    """

    folder: Path | None
    note: str | None = None

    def load(self, number: int, x: Tensor, y: int, logits: Tensor) -> Tensor | None:
        """What was kept of the image x (C, H, W) of class y, the `number`th of the images; None where nothing was."""
        if self.folder is None:
            return None
        try:
            found = load((self.folder / _file(number, x, y)).read_bytes())
            values, probe = found["values"], found["probe"]
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        # Loosely: another number of threads rounds otherwise.
        near = probe.shape == logits.shape and torch.allclose(probe, logits, rtol=1e-2, atol=1e-2 * float(logits.std()))
        return values if near else None

    def save(self, number: int, x: Tensor, y: int, logits: Tensor, values: Tensor) -> None:
        """Atomically: a kill leaves the file as it was before or after."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / _file(number, x, y), save({"values": values, "probe": logits.contiguous()}))
        except OSError as error:
            self.note = f"scores cannot be kept in {self.folder} ({error.strerror or error}): a killed run starts over"
            self.folder = None


NOT_KEPT = KeptScores(None)


def _file(number: int, x: Tensor, y: int) -> str:
    seen = hashlib.sha256(f"{number} {y} ".encode() + x.cpu().contiguous().numpy().tobytes())
    return f"score-{seen.hexdigest()[:24]}.safetensors"
