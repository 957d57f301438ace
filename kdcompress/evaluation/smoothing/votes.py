"""What the network sees in noisy versions of the images: draws of several images in one forward, all of them kept.

A vote is the class seen in x + N(0, sigma^2 I). An image's votes are one stream, which depends on the network, the
image, sigma and the seed alone: block b of its noise has a generator of its own. So neither the batch size, nor which
images share a forward, nor where a run was killed, changes a vote; and whatever asks for more draws goes on where the
one before ended.
"""

from array import array
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.devices import out_of_memory
from kdcompress.errors import CheckpointError
from kdcompress.evaluation.smoothing.kept import NOWHERE, KeptVotes
from kdcompress.maths.keyed import keys, normals
from kdcompress.maths.randomness import generator
from kdcompress.processes import here, shared

BLOCK = 50
"""Draws of one generator."""
SAVED_EVERY = 5_000
"""Draws of an image that a kill may cost."""

T = TypeVar("T")
Votes = NDArray[np.int16]
Procedure = Generator[int, Votes, T]
"""Asks for a number of votes in all, is sent them, (n,), and asks again; returns its answer."""


@dataclass(frozen=True)
class Noise:
    """Which votes: N(0, sigma^2 I), not clipped, drawn under `seed`."""

    sigma: float
    seed: int

    def block(self, name: str, number: int, shape: torch.Size, device: torch.device) -> Tensor:
        """(BLOCK, C, H, W), the noise of draws BLOCK b, ..., BLOCK b + BLOCK - 1 of the image called so."""
        draws = generator(self.seed, f"smoothing {name} {number}")
        if device.type != "cpu":  # a CPU's 5 ns a number are more than the network takes there
            return self.sigma * normals(keys(BLOCK, draws), shape.numel(), device).view(BLOCK, *shape)
        return self.sigma * torch.randn((BLOCK, *shape), generator=draws)


@dataclass
class _Image(Generic[T]):
    """One image while its procedure is at work."""

    number: int
    name: str
    x: Tensor
    procedure: Procedure[T]
    votes: "array[int]"
    wanted: int = 0
    saved: int = 0
    answers: tuple[T, ...] = ()

    def hear(self) -> None:
        """Send the procedure what it asked for, until it asks for what is not there."""
        try:
            if self.wanted == 0:
                self.wanted = next(self.procedure)
            while len(self.votes) >= self.wanted:
                self.wanted = self.procedure.send(np.array(self.votes[: self.wanted], dtype=np.int16))
        except StopIteration as stop:
            self.answers = (stop.value,)


def ask(
    model: nn.Module,
    images: Split,
    noise: Noise,
    procedure: Callable[[int], Procedure[T]],
    *,
    batch_size: int,
    device: torch.device,
    kept: KeptVotes = NOWHERE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[T]:
    """Every image's procedure, answered; draws of several images share a forward, and several processes the images.

    Guarantees:
        The same answers, to the rounding of the network's logits, whatever `batch_size` and the other images.
        Killed and called again with the same `kept`, the same answers, after drawing again at most `SAVED_EVERY` draws
        of each image in work.

    Args:
        model: eval mode.
        procedure: image number -> what is asked of it.
        batch_size: draws a forward; halved where memory runs out on an accelerator.
        on_progress: (images answered, images).

    Raises:
        CheckpointError: if the network answers NaN or infinity to a noisy image: that is no vote.
    """
    count = here().count

    def part(rank: int) -> list[T]:
        own = range(rank, len(images), count)

        def told(done: int, total: int) -> None:
            on_progress(min(done * count, len(images)), len(images))

        return _answered(
            model,
            images.subset(own),
            noise,
            lambda number: procedure(own[number]),
            batch_size=batch_size,
            device=device,
            kept=kept,
            on_progress=told,
        )

    parts = shared(f"smoothing at {noise.sigma:g}", count, part)
    return [parts[number % count][number // count] for number in range(len(images))]


def _answered(
    model: nn.Module,
    images: Split,
    noise: Noise,
    procedure: Callable[[int], Procedure[T]],
    *,
    batch_size: int,
    device: torch.device,
    kept: KeptVotes,
    on_progress: Callable[[int, int], None],
) -> list[T]:
    """The same, of the images that are this process's."""
    answers: dict[int, T] = {}
    waiting = _opened(images, procedure, device, kept)
    at_work: list[_Image[T]] = []
    while True:
        while sum(image.wanted - len(image.votes) for image in at_work) < batch_size:
            following = next(waiting, None)
            if following is None:
                break
            if following.answers:
                (answers[following.number],) = following.answers
                on_progress(len(answers), len(images))
            else:
                at_work.append(following)
        if not at_work:
            break
        try:
            _forward(model, at_work, noise, batch_size, device)
        except RuntimeError as error:
            if not out_of_memory(error) or batch_size == 1:
                raise
            batch_size //= 2
            continue
        for image in at_work:
            image.hear()
            if image.answers:
                (answers[image.number],) = image.answers
                on_progress(len(answers), len(images))
            if len(image.votes) - image.saved >= (1 if image.answers else SAVED_EVERY):
                kept.save(image.name, image.x, np.array(image.votes, dtype=np.int16))
                image.saved = len(image.votes)
        at_work = [image for image in at_work if not image.answers]
    return [answers[number] for number in range(len(images))]


def _opened(
    images: Split, procedure: Callable[[int], Procedure[T]], device: torch.device, kept: KeptVotes
) -> Iterator[_Image[T]]:
    """The images in their order, each with what is known of it."""
    for number, (x, _) in enumerate(images.batches(1, device=device)):
        found = kept.load(images.ids[number], x[0])
        votes = array("h", [] if found is None else found.tolist())
        image = _Image(number, images.ids[number], x[0], procedure(number), votes, saved=len(votes))
        image.hear()
        yield image


def _forward(model: nn.Module, at_work: list[_Image[T]], noise: Noise, batch_size: int, device: torch.device) -> None:
    """One forward of at most `batch_size` draws, of the first images first."""
    inputs, owners, room = [], [], batch_size
    for image in at_work:
        start = len(image.votes)
        stop = min(image.wanted, start + room)
        while start < stop:
            end = min(stop, (start // BLOCK + 1) * BLOCK)
            block = noise.block(image.name, start // BLOCK, image.x.shape, device)
            inputs.append(image.x + block[start % BLOCK : start % BLOCK + end - start])
            owners.append((image, end - start))
            room, start = room - (end - start), end
        if room == 0:
            break
    with torch.inference_mode():
        logits = model(torch.cat(inputs))
    if not bool(logits.isfinite().all()):  # of which argmax would make a vote for class 0
        raise CheckpointError(
            f"the network answers NaN or infinity to {at_work[0].name} or a neighbour under noise of sigma "
            f"{noise.sigma:g}: smoothing cannot certify it; leave it out (evaluate --certify-images 0, certify --kinds)"
        )
    seen = logits.argmax(1).cpu()
    for (image, _), votes in zip(owners, seen.split([count for _, count in owners]), strict=True):
        image.votes.extend(votes.tolist())
