"""Several processes, started by torchrun, that train one network or measure it.

Where they train, each sees its rows of every batch. What is one in all of them: the weights, bit by bit; the losses and
gradients that a step goes by, which are means over the whole batch; whether it is taken; when the run stops.

Where they measure, each takes every Nth of the pieces that a measurement falls into anyway (chunks of images, images),
with the seeds that the pieces have anyway: `shared`. All know all answers, so all take the same decisions.

Files are the leader's alone, but for what is kept of pieces that were measured.
"""

import datetime
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from kdcompress.devices import device_name, resolve_device
from kdcompress.errors import PeerError
from kdcompress.maths.synced import synced
from kdcompress.seats import seated

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=6)
"""How long processes wait for each other: the leader may be making a teacher cache. torchrun sees those that died."""


@dataclass(frozen=True)
class Processes:
    """All of a run's, as one of them sees them.

    Attributes:
        rank: which this is, from 0; `local` among those of this machine.
        count: how many there are, `beside` of them on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    beside: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """A process's own, where there are several GPUs.

        Raises:
            UsageError: if it is not there.
        """
        device = resolve_device(name)
        if device.type == "cuda" and self.count > 1:
            device = resolve_device(f"cuda:{self.local}")
        return device

    def seated(self) -> AbstractContextManager[None]:
        """Inside, batches and what is drawn for them are this process's part of those of all."""
        return seated(self.rank, self.count)

    def synced(self, wanted: bool) -> AbstractContextManager[None]:
        """Inside, and where it is wanted, BatchNorm takes its statistics over the batch of all."""
        return synced(wanted and self.count > 1)

    def told(self, device: torch.device) -> str:
        """The device in words, and how many of them."""
        return device_name(device) + ("" if self.count == 1 else f", {self.count} processes")

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader goes through the block, then the others."""
        if not self.leads:
            self.from_leader(None)
        yield
        if self.leads:
            self.from_leader(None)

    def from_leader(self, value: T) -> T:
        """The leader's value, in every process."""
        if self.count == 1:
            return value
        held = [value]
        with _peers():
            dist.broadcast_object_list(held)
        return held[0]

    def start_alike(self, model: nn.Module) -> None:
        """The leader's weights and statistics, in every process."""
        if self.count > 1:
            with _peers(), torch.no_grad():
                for tensor in (*model.parameters(), *model.buffers()):
                    whole = tensor.contiguous()
                    dist.broadcast(whole, 0)
                    tensor.copy_(whole)

    def own_chance(self, seed: int) -> None:
        """Dropout of its own for each process: what a resumed one has restored is the leader's."""
        if not self.leads:
            torch.manual_seed(seed + self.rank)

    def agree(self, model: nn.Module, terms: Mapping[str, Tensor], stop: bool) -> tuple[dict[str, Tensor], bool]:
        """Gradients, BatchNorm's statistics and the terms become the means of all; whether any wants to stop.

        One message: everything behind each other, as a row of float32.
        """
        if self.count == 1:
            return dict(terms), stop
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        averaged = [*gradients, *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
        device = next(iter(terms.values())).device
        told = torch.stack(
            [*(value.detach().float() for value in terms.values()), torch.tensor(float(stop)).to(device)]
        )
        with _peers(), torch.no_grad():
            row = torch.cat([*(tensor.flatten().float() for tensor in averaged), told])
            dist.all_reduce(row)
            row /= self.count
            at = 0
            for tensor in averaged:
                tensor.copy_(row[at : at + tensor.numel()].view(tensor.shape))
                at += tensor.numel()
        *means, asked = row[at:].unbind()
        return dict(zip(terms, means, strict=True)), bool(asked > 0)


ALONE = Processes()
_HERE: ContextVar[Processes] = ContextVar("processes", default=ALONE)


def here() -> Processes:
    """The processes that do this work together: those of the `joined` that the caller is in."""
    return _HERE.get()


def shared(what: str, count: int, work: Callable[[int], T]) -> list[T]:
    """work(0), ..., work(count - 1): each done by one of the processes that are here, known to all.

    Answers are pickled between them: tensors on the CPU.

    Args:
        what: all must be at the same, with the same `count`.

    Raises:
        PeerError: if another one has ended, or is at something else.

    >>> shared("squares", 3, lambda number: number**2)
    [0, 1, 4]
    """
    processes = here()
    done = [work(number) for number in range(processes.rank, count, processes.count)]
    if processes.count == 1:
        return done
    told: list[tuple[str, int, list[T]]] = [("", 0, [])] * processes.count
    with _peers():
        dist.all_gather_object(told, (what, count, done))
    if any((other, n) != (what, count) for other, n, _ in told):
        raise PeerError(f"the processes of this job disagree on what is measured: {sorted({at for at, *_ in told})}")
    return [told[number % processes.count][2][number // processes.count] for number in range(count)]


def by_leader(work: Callable[[], T]) -> T:
    """What the leader finds while the others wait, known to all: for what is quick, or disturbed by neighbours."""
    processes = here()
    processes.from_leader(None)  # all are here
    return processes.from_leader(work() if processes.leads else cast(T, None))


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that torchrun has started, or this one alone.

    Args:
        device: as in `--device`: GPUs talk by NCCL, all else by gloo.

    Raises:
        PeerError: inside, if another one has ended.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    backend = "nccl" if resolve_device(device).type == "cuda" else "gloo"
    with _peers():
        store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
        # After a restart the store may still hold the addresses of those that died, and gloo waits for them for ever.
        attempt = store.add(f"attempts of {rank}", 1)
        store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        local, machines = dist.get_node_local_rank(), [""] * count
        if backend == "nccl":  # whatever is said by it travels through the GPU that is current
            torch.cuda.set_device(resolve_device(f"cuda:{local}"))
        with _peers():
            dist.all_gather_object(machines, platform.node())
        token = _HERE.set(Processes(rank, count, local, machines.count(platform.node())))
        try:
            yield here()
        finally:
            _HERE.reset(token)
    finally:
        dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # every backend has its own words
        raise PeerError(
            f"another process of this job has ended or cannot be reached ({str(error).splitlines()[0]})"
        ) from error
