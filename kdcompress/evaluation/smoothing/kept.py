"""Votes kept on the disk, so that a killed certification goes on where it was, and a longer one where a shorter ended.

A folder for each network, sigma and seed, named by a hash of all that decides a vote; in it a file for each image. How
many draws, alpha and radii are not in the name: they choose what is read from the stream, not what is in it. (To raise
n because a smaller one certified too little is peeking, kept or not: the sequential test allows for it, fixed n does
not.)
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from kdcompress.files import write_whole


class KeptVotes:
    """The votes of one network under one noise; without a folder nothing is kept.

    A network that answers otherwise by now (its factory's code was changed) is found out by its logits of the image
    itself. A folder that cannot be written costs the user nothing but the memory of it: `note` says so.
    """

    def __init__(self, folder: Path | None, model: nn.Module | None = None) -> None:
        self.folder, self.model = folder, model
        self.note: str | None = None

    def load(self, name: str, x: Tensor) -> NDArray[np.int16] | None:
        """The image's votes, (n,); None where there are none, or they cannot be trusted."""
        if self.folder is None:
            return None
        try:
            found = load((self.folder / _file(name, x)).read_bytes())
            votes, probe = found["votes"], found["probe"]
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        if votes.dtype != torch.int16 or votes.dim() != 1 or not _agrees(probe, self._probe(x)):
            return None
        return np.asarray(votes.numpy())

    def save(self, name: str, x: Tensor, votes: NDArray[np.int16]) -> None:
        """Atomically: a kill leaves the file as it was before or after."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            written = save({"votes": torch.from_numpy(votes), "probe": self._probe(x)})
            write_whole(self.folder / _file(name, x), written)
        except OSError as error:
            self.note = f"votes cannot be kept in {self.folder} ({error.strerror or error}): a killed run starts over"
            self.folder = None

    def _probe(self, x: Tensor) -> Tensor:
        """The network's logits of the image itself, (K,)."""
        assert self.model is not None  # comes with a folder
        with torch.inference_mode():
            logits: Tensor = self.model(x[None])[0].float().cpu()
        return logits


NOWHERE = KeptVotes(None)


def _file(name: str, x: Tensor) -> str:
    """By the image's name and pixels: its number among others may change."""
    seen = hashlib.sha256(name.encode("utf-8", "surrogateescape") + b"\0" + x.cpu().numpy().tobytes())
    return f"votes-{seen.hexdigest()[:24]}.safetensors"


def _agrees(kept: Tensor, found: Tensor) -> bool:
    """Loosely: another number of threads rounds otherwise."""
    if kept.shape != found.shape:
        return False
    scale = float(found.abs().max()) if found.isfinite().all() else 1.0
    return torch.allclose(kept, found, rtol=1e-2, atol=1e-2 * scale, equal_nan=True)
