"""Images in chunks, and what was found on each, kept so that a killed audit goes on where it was."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.kept import agrees, chunk_name
from kdcompress.evaluation.masking.gradients import gradient_or_none
from kdcompress.files import write_whole
from kdcompress.processes import shared

Found = dict[str, Tensor]
"""What was found on B images, by name: tensors (B, ...)."""

CHUNK = 25
"""Images that are kept together: what a kill loses at most, whatever the batch."""
PROBE = "probe: "


def over_chunks(
    what: str,
    measure: Callable[[Tensor, Tensor, Sequence[str]], Found],
    images: Split,
    *,
    networks: Sequence[nn.Module],
    size: int,
    device: torch.device,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """What `measure` finds on every image, on the CPU, its answers one below the other.

    Guarantees:
        Killed and called again with the same `folder`, it repeats at most the chunk that was in work.
        What was kept of networks that answer otherwise by now is measured again.

    Args:
        what: its name.
        measure: of inputs (B, C, H, W), labels (B,) and the images' names; of each image by itself.
        networks: that are measured: their logits on a chunk's images, and the gradient of CE at its first, are kept
            with it and compared.
        size: B at most.
        folder: where chunks are kept, of this measurement alone: name it by all that decides its answers (`key_of`).
            None keeps nothing; nor does a folder that cannot be written.
        on_progress: told (images done, images in all).
    """
    store = folder

    def part(number: int) -> Found:
        nonlocal store
        done = number * CHUNK
        ((x, y),) = images.subset(range(len(images))[done : done + CHUNK]).batches(CHUNK, device=device)
        names = images.ids[done : done + len(x)]
        name = _file(number, x, y, names)
        probe = {} if store is None else _probe(networks, x, y, size)
        found = _load(store, name, probe)
        if found is None:
            measured = []
            for at in range(0, len(x), size):
                rows = slice(at, at + size)
                answers = measure(x[rows], y[rows], names[rows])
                measured.append({key: value.detach().cpu() for key, value in answers.items()})
                on_progress(done + min(at + size, len(x)), len(images))
            found = _below(measured)
            store = _save(store, name, found | probe)
        else:
            on_progress(done + len(x), len(images))
        return found

    return _below(shared(what, -(-len(images) // CHUNK), part))


def _below(parts: Sequence[Found]) -> Found:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _file(number: int, x: Tensor, y: Tensor, names: Sequence[str]) -> str:
    """By the images' names too, which starts are drawn by."""
    seen = hashlib.sha256("\0".join((chunk_name(number, x, y), *names)).encode("utf-8", "surrogateescape"))
    return f"chunk-{number:05d}-{seen.hexdigest()[:24]}.safetensors"


def _probe(networks: Sequence[nn.Module], x: Tensor, y: Tensor, size: int) -> Found:
    """Each network's logits on the chunk, (B, K), and its gradient at the first image, NaN where there is none."""
    probe = {}
    for place, network in enumerate(networks):
        with torch.no_grad():
            probe[f"{PROBE}logits {place}"] = torch.cat([network(part) for part in torch.split(x, size)]).float().cpu()
        slope = gradient_or_none(network, x[:1], y[:1])
        slope = torch.full_like(x[:1], torch.nan) if slope is None else slope
        probe[f"{PROBE}slope {place}"] = slope.float().cpu()
    return probe


def _load(folder: Path | None, name: str, probe: Found) -> Found | None:
    if folder is None:
        return None
    try:
        found = load((folder / name).read_bytes())
        kept = {key: found.pop(key) for key in probe}
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return found if all(agrees(kept[key], probe[key]) for key in probe) else None


def _save(folder: Path | None, name: str, found: Found) -> Path | None:
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, save({key: value.contiguous() for key, value in found.items()}))
    except OSError:
        return None
    return folder
