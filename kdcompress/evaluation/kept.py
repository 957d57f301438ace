"""Verdicts kept on the disk after every attack on every chunk, so that a killed evaluation goes on where it was.

A folder for each network and way of attacking it, named by a hash of what decides verdicts: network and its code,
threat model, attack, chunk, seed, versions; in it a file for each chunk of images. What is found there was measured
under the same conditions, by whatever process. Code that a hash cannot see (what a factory's file imports) is found out
by the network's answers and gradients on a few images.
"""

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kdcompress.files import write_whole

FORMAT = 2
"""Raised whenever the same key would stand for other contents."""
FORGOTTEN = 30 * 86_400.0
"""Seconds after which kept verdicts are removed by whichever evaluation comes by."""
FOLDER = re.compile(r"[0-9a-f]{24}")
FILE = re.compile(r"\.?(chunk-\d{5}|votes|verified|score)-[0-9a-f]{16,24}\.safetensors.*")


@dataclass(frozen=True)
class Chunk:
    """What is known of one chunk of B images.

    Attributes:
        predicted: (B,), int64, the class seen in each image as it is.
        verdict: (B,), int16: the step that broke the image, or one of the codes below.
        shown: (G, C, H, W), the attacks' answers for the first images, the images themselves where none succeeded.
        done: steps that are finished.
        probe: (P, K), logits of the first images, by which a network that answers otherwise by now is found out.
        slope: (P, C, H, W), input gradients there of the network that is attacked, for the same end; NaN without any.
        warnings: the attack package's.
        taken_up: whether it was found on the disk.
    """

    predicted: Tensor
    verdict: Tensor
    shown: Tensor
    probe: Tensor
    slope: Tensor
    done: int = 0
    warnings: tuple[str, ...] = ()
    taken_up: bool = False


STOOD, WRONG, UNTRIED = -1, -2, -3
"""Verdicts that name no step: stood every step so far; wrong without any attack; never attacked."""


def key_of(what: dict[str, Any]) -> str:
    """The folder's name."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **what}, sort_keys=True).encode()).hexdigest()[:24]


class Kept:
    """The chunks of one evaluation of one network; without a folder nothing is kept.

    A folder that cannot be written costs the user nothing but the memory of it: `note` says so, once.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.note: str | None = None

    def load(self, name: str) -> Chunk | None:
        """The chunk as it was left; None where there is none, or the file is damaged."""
        if self.folder is None:
            return None
        try:
            found = load((self.folder / name).read_bytes())
            done, warnings = int(found.pop("done")), bytes(found.pop("warnings").tolist())
            return Chunk(**found, done=done, warnings=tuple(json.loads(warnings)), taken_up=True)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def save(self, name: str, chunk: Chunk) -> None:
        """Atomically, so that a kill leaves the chunk as it was before or after."""
        if self.folder is None:
            return
        names = ("predicted", "verdict", "shown", "probe", "slope")
        tensors = {name: getattr(chunk, name).cpu().contiguous() for name in names}
        tensors["done"] = torch.tensor(chunk.done)
        tensors["warnings"] = torch.tensor(list(json.dumps(chunk.warnings).encode()), dtype=torch.uint8)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / name, save(tensors))
        except OSError as error:
            self.note = (
                f"verdicts cannot be kept in {self.folder} ({error.strerror or error}): a killed run starts over"
            )
            self.folder = None


NOWHERE = Kept(None)


def forget_old(root: Path, now: float | None = None) -> None:
    """Remove the evaluations under `root` that were last written long ago; what has not our names stays."""
    try:
        folders = [folder for folder in root.iterdir() if FOLDER.fullmatch(folder.name)]
    except OSError:
        return
    for folder in folders:
        try:
            files = list(folder.iterdir())
            if not all(FILE.fullmatch(file.name) for file in files):
                continue
            if (now or time.time()) - max(file.stat().st_mtime for file in (folder, *files)) < FORGOTTEN:
                continue
            for file in files:
                file.unlink()
            folder.rmdir()
        except OSError:
            continue  # another process came first, or it is a file


def chunk_name(number: int, x: Tensor, y: Tensor) -> str:
    """The file of chunk `number`, by its images and labels: an evaluation of more images finds those of fewer."""
    seen = hashlib.sha256(x.cpu().numpy().tobytes() + y.cpu().numpy().tobytes())
    return f"chunk-{number:05d}-{seen.hexdigest()[:16]}.safetensors"


def agrees(kept: Tensor, found: Tensor) -> bool:
    """Whether a network answers as it did. Loosely: another number of threads rounds otherwise."""
    scale = float(found.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return kept.shape == found.shape and torch.allclose(kept, found, rtol=1e-2, atol=1e-2 * scale, equal_nan=True)
