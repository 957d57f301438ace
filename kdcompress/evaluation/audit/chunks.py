"""Images in chunks, and what was found on each, kept so that a killed audit goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kdcompress.data import Split
from kdcompress.evaluation.kept import chunk_name
from kdcompress.files import write_whole

Found = dict[str, Tensor]
"""What was found on B images, by name: tensors (B, ...)."""


def over_chunks(
    measure: Callable[[Tensor, Tensor, int], Found],
    images: Split,
    *,
    size: int,
    device: torch.device,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """What `measure` finds on every image, on the CPU, its answers one below the other.

    Guarantees:
        Killed and called again with the same `folder`, it repeats at most the chunk that was in work.

    Args:
        measure: of inputs (B, C, H, W), labels (B,) and the chunk's number.
        size: B.
        folder: where chunks are kept, of this measurement alone: name it by all that decides its answers (`key_of`).
            None keeps nothing; nor does a folder that cannot be written.
        on_progress: told (images done, images in all).
    """
    parts: list[Found] = []
    done = 0
    for number, (x, y) in enumerate(images.batches(size, device=device)):
        name = chunk_name(number, x, y)
        found = _load(folder, name)
        if found is None:
            found = {key: value.detach().cpu() for key, value in measure(x, y, number).items()}
            folder = _save(folder, name, found)
        parts.append(found)
        done += len(x)
        on_progress(done, len(images))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _load(folder: Path | None, name: str) -> Found | None:
    if folder is None:
        return None
    try:
        return load((folder / name).read_bytes())
    except (OSError, SafetensorError, ValueError):
        return None


def _save(folder: Path | None, name: str, found: Found) -> Path | None:
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, save({key: value.contiguous() for key, value in found.items()}))
    except OSError:
        return None
    return folder
