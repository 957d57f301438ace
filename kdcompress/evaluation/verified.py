"""Verified accuracy: what sound bounds prove of the network itself, image by image, beside what an attack breaks.

What the search for the largest radii costs beside the verdicts, on the packaged digits teacher (225k parameters); one
thread of a shared two-core Xeon, 2026-11-23:

| eps asked for | images | verdicts, s | search, s |
|---------------|--------|-------------|-----------|
| 0.02          | 4      | 24          | 99        |
| 0.02, 0.05    | 12     | 139         | 142       |
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from kdcompress.attacks.pgd import pgd
from kdcompress.attacks.slices import Sliced
from kdcompress.bounds.steps import Shape
from kdcompress.bounds.verify import TOLERANCE, Bounded, Certificate, bounded, certificate
from kdcompress.data import Split
from kdcompress.errors import UnsupportedLayerError
from kdcompress.evaluation.accuracy import Verdicts, predictions, rate
from kdcompress.files import write_whole
from kdcompress.maths.randomness import generator
from kdcompress.processes import shared
from kdcompress.report import Verified, VerifiedAt
from kdcompress.threat import Norm, ThreatModel

FORMAT = 2
"""Raised whenever the same images and network would be certified otherwise."""
STEPS = 20
CHUNK = 100
"""Images that the attack sees, and draws its starts for, at a time: however many memory bears in a forward."""


def prepared(model: nn.Module, input_size: Shape, *, memory: int | None = None) -> Bounded | str:
    """The network made ready for bounds, or why there are none: `not supported: <layer>`, or `too large: ...`.

    Args:
        model: eval mode.
        input_size: (C, H, W).
        memory: bytes that bounds may take; None for a quarter of what is free.

    Raises:
        UsageError: if the memory that was named is not enough.
    """
    try:
        return bounded(model, input_size, memory=memory)
    except UnsupportedLayerError as error:
        return str(error)


def verified(
    subject: Bounded | str,
    images: Split,
    norm: Norm,
    radii: Sequence[float],
    *,
    device: torch.device,
    broken: tuple[str, Tensor] | None = None,
    largest: bool = True,
    batch_size: int = 250,
    folder: Path | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Verified:
    """Certify every image at every radius by CROWN, and find the largest certified radius of each.

    Guarantees:
        verified + broken + wrong + open = n at every eps.
        Verified accuracy does not rise with eps, nor exceed what stands the attack.
        Killed and called again with the same folder, it ends with the same figures and repeats at most one image.
        A network with an unsupported layer, or too large, is no error: the record says so.

    Args:
        subject: as `prepared` gives it.
        radii: any order.
        broken: (an attack's name, (N,) the smallest eps at which it broke each image, inf for none), as `broken_at`
            gives it; None for PGD-20 at the radii.
        largest: whether the largest certified eps is sought; without, each image costs one bound or two.
        batch_size: images a forward of the attack's: less memory, the same figures.
        folder: where finished images are kept; None for nowhere.
        on_progress: (images done, images); first before any is.
        note: told what the user should know.

    Raises:
        UsageError: if the norm is L1.
    """
    radii = tuple(sorted(radii))
    empty = Verified(norm=norm, tolerance=TOLERANCE, n=len(images))
    if isinstance(subject, str):
        return empty.model_copy(update={"unsupported": subject})
    model, kept = subject.model, _Kept(folder, note)
    on_progress(0, len(images))
    attack, fallen = broken or (f"PGD-{STEPS}", None)
    if fallen is None:
        fallen = broken_by_pgd(model, images, norm, radii, device=device, batch_size=batch_size, seed=seed)
    network = _fingerprint(subject)

    def examined(number: int) -> tuple[Certificate, float, bool]:
        ((x, y),) = images.subset([number]).batches(1, device=device)
        question = (FORMAT, network, norm, radii, float(fallen[number]), largest, int(y), x.cpu().numpy().tobytes())
        name = f"verified-{_sha(repr(question).encode())}.safetensors"
        answer = kept.load(name)
        if answer is None:
            started = time.perf_counter()
            one = certificate(subject, x[0], int(y), norm, radii, broken_at=float(fallen[number]), largest=largest)
            answer = (one, time.perf_counter() - started)
            kept.save(name, *answer)
        on_progress(number + 1, len(images))
        return (*answer, int(predictions(model, x)) == int(y))

    found, seconds, rights = zip(*shared("sound bounds", len(images), examined), strict=True)
    right = torch.tensor(rights)
    at = tuple(_at(eps, torch.tensor([one.verified[i] for one in found]), fallen, right) for i, eps in enumerate(radii))
    sizes = tuple(one.largest or 0.0 for one in found) if largest else ()
    return empty.model_copy(
        update={
            "attack": attack,
            "at": at,
            "largest": sizes,
            "median": median(sizes) if sizes else None,
            "seconds": round(sum(seconds), 1),
        }
    )


def broken_at(verdicts: Verdicts) -> Tensor:
    """(N,), float64: the smallest radius at which an attack broke the image, inf where none did."""
    fallen = torch.full((len(verdicts.steps),), math.inf, dtype=torch.float64)
    for eps in sorted(verdicts.radii, reverse=True):
        fallen[verdicts.right & verdicts.tried & ~verdicts.stood(eps)] = eps
    return fallen


def broken_by_pgd(
    model: nn.Module,
    images: Split,
    norm: Norm,
    radii: Sequence[float],
    *,
    device: torch.device,
    batch_size: int = 250,
    seed: int = 0,
) -> Tensor:
    """The same by PGD-20 at each radius, what fell at one not attacked at the next: (N,), float64.

    Guarantees:
        Any `batch_size`, images a forward, gives the same figures.
    """
    model = Sliced(model, batch_size)
    fallen, draws = [], generator(seed, "verified")
    for x, y in images.batches(CHUNK, device=device):
        here = torch.full((len(x),), math.inf, dtype=torch.float64, device=device)
        standing = predictions(model, x) == y
        for eps in sorted(radii):
            if not standing.any():
                break
            rest = standing.nonzero().squeeze(1)
            answers = pgd(model, x[rest], y[rest], ThreatModel(norm, eps), steps=STEPS, generator=draws)
            lost = rest[predictions(model, answers) != y[rest]]
            here[lost] = eps
            standing[lost] = False
        fallen.append(here.cpu())
    return torch.cat(fallen)


def _at(eps: float, proved: Tensor, fallen: Tensor, right: Tensor) -> VerifiedAt:
    broken = right & (fallen <= eps) & ~proved
    return VerifiedAt(
        **rate(proved).model_dump(),
        eps=eps,
        verified=int(proved.sum()),
        broken=int(broken.sum()),
        wrong=int((~right & ~proved).sum()),
        open=int((right & ~broken & ~proved).sum()),
    )


class _Kept:
    """Certificates on the disk; a folder that cannot be written costs the user nothing but the memory of them."""

    def __init__(self, folder: Path | None, note: Callable[[str], None]) -> None:
        self.folder, self.note = folder, note

    def load(self, name: str) -> tuple[Certificate, float] | None:
        """What was found out before; None where there is nothing, or the file is damaged."""
        if self.folder is None:
            return None
        try:
            found = load((self.folder / name).read_bytes())
            largest = float(found["largest"])
            proved = tuple(bool(entry) for entry in found["verified"].tolist())
            return Certificate(proved, None if math.isnan(largest) else largest), float(found["seconds"])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def save(self, name: str, one: Certificate, seconds: float) -> None:
        """Atomically."""
        if self.folder is None:
            return
        tensors = {
            "verified": torch.tensor(one.verified),
            "largest": torch.tensor(math.nan if one.largest is None else one.largest, dtype=torch.float64),
            "seconds": torch.tensor(seconds, dtype=torch.float64),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / name, save(tensors))
        except OSError as error:
            self.note(
                f"sound bounds cannot be kept in {self.folder} ({error.strerror or error}): a killed run starts over"
            )
            self.folder = None


def _fingerprint(subject: Bounded) -> str:
    """Of all weights and of how they are used."""
    seen = hashlib.sha256()
    for step in subject.network.steps:
        seen.update(type(step).__name__.encode())
        for entry in vars(step).values():
            if isinstance(entry, Tensor):
                seen.update(entry.cpu().numpy().tobytes())
            elif not callable(entry):  # a function's name stands beside it
                seen.update(repr(entry).encode())
    return seen.hexdigest()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
