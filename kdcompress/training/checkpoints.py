"""The folder of a run that has not ended, `OUT.unfinished`: a lock, and the run's state as it was now and then.

A checkpoint is written whole or not at all, under a name that holds the digest of its bytes. So whatever kills a run,
the newest file whose bytes agree with its name is a state that the run was in.
"""

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save

from kdcompress.engine import Mode
from kdcompress.errors import UsageError
from kdcompress.files import write_whole
from kdcompress.processes import ALONE, Processes
from kdcompress.progress import Beginning, Listener
from kdcompress.training.backward import Batch
from kdcompress.training.folder import MAKING, unfinished_folder
from kdcompress.training.state import Facts, Snapshot
from kdcompress.versions import versions

KEPT = 2
"""Checkpoints on the disk: the newest, and one more should its bytes not survive."""
_FAILED = "failed-step"


class Checkpoints:
    """Of one run.

    Attributes:
        found: the newest whole checkpoint of the run that is to go on; None for a new one.
        about: what is written with every checkpoint: whose it is, its id, and how its gradient term is computed.
    """

    def __init__(self, folder: Path, every: float, listener: Listener) -> None:
        self.folder, self.every, self.listener = folder, every, listener
        self.found: Snapshot | None = None
        self.about: Facts = {}
        self.last = time.monotonic()

    @property
    def mode(self) -> Mode | None:
        """How the run that is to go on computes the gradient term: it was chosen by speed, which changes."""
        mode: Mode | None = None if self.found is None else self.found.facts["about"].get("mode")
        return mode

    def begin(self, run: Facts) -> None:
        """Say whose the checkpoints are. Those that are found must be of the same run.

        Args:
            run: what decides how it goes, by option; JSON's values. `where` is told apart: it decides the last bits.

        Raises:
            UsageError: naming the first option that differs.
        """
        self.about |= {"run": run, "id": secrets.token_hex(8)}
        if self.found is None:
            return
        self.about["id"] = self.found.facts["about"].get("id", self.about["id"])
        then = self.found.facts["about"]["run"]
        for option in run:
            if option != "where" and then.get(option) != run[option]:
                raise UsageError(
                    f"{option} was {then.get(option)} in the unfinished run in {self.folder}, got {run[option]}: "
                    "--resume goes on with the same options; --overwrite without it starts anew"
                )
        if then["where"] != run["where"]:
            self.listener.note(
                f"begun on {_told(then['where'])}, resumed on {_told(run['where'])}: the result may differ in the last "
                "bits from that of a run that was never stopped"
            )

    def beginning(self, settings: dict[str, Any]) -> Beginning:
        """What is known of the run where its training begins, or goes on."""
        step = 0 if self.found is None else self.found.facts["step"]
        return Beginning(self.about["id"], step, settings, versions())

    def remember(self, damaged: dict[int, str]) -> None:
        """Keep what is found of images that cannot be read, and take up what was found before."""
        if self.found is not None:
            damaged.update({int(row): line for row, line in self.found.facts["about"]["damaged"].items()})
        self.about["damaged"] = damaged  # the same object: it may grow until a checkpoint is written

    def after_step(self, take: Callable[[], Snapshot]) -> None:
        """Write one where it is time."""
        if self.every > 0 and time.monotonic() - self.last >= self.every:
            self.write(take())

    def write(self, now: Snapshot) -> bool:
        """Whether it is on the disk. A full disk costs the checkpoint, which is said, and not the run."""
        content = self._packed(now)
        name = f"step-{now.facts['step']:09d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        self.last = time.monotonic()
        try:
            write_whole(self.folder / name, content)
        except OSError as error:
            self.listener.note(f"no checkpoint at step {now.facts['step']}: {self.folder}: {error.strerror or error}")
            return False
        self.listener.detail(f"checkpoint after step {now.facts['step']}: {self.folder / name}")
        # Those of later steps are damaged, and of a run that began anew: they take no sound one's place.
        for old in [path for path in _newest_first(self.folder) if path.name <= name][KEPT:]:
            old.unlink(missing_ok=True)
        return True

    def leave_failed(self, now: Snapshot, batch: Batch) -> Path | None:
        """A batch that the run could not bear, as `batch/0` (inputs), `batch/1` (labels) and so on, beside the state.

        For whoever looks into it; nothing goes on from it. Returns where it is, None where it cannot be written.
        """
        path = self.folder / f"{_FAILED}.safetensors"
        seen = {f"batch/{number}": tensor.cpu().contiguous() for number, tensor in enumerate(batch)}
        try:
            write_whole(path, self._packed(Snapshot(now.tensors | seen, now.facts)))
        except OSError:
            return None
        return path

    def _packed(self, now: Snapshot) -> bytes:
        # A copy of what is damaged: the thread that reads ahead may add to it meanwhile.
        about = self.about | {"damaged": dict(self.about.get("damaged", {}))}
        facts = json.dumps(now.facts | {"about": about}).encode()
        return save(now.tensors | {"facts": torch.frombuffer(bytearray(facts), dtype=torch.uint8)})

    def read(self) -> Snapshot | None:
        """The newest that is whole; damaged ones are named."""
        for path in _newest_first(self.folder):
            try:
                content = path.read_bytes()
                if path.stem.rsplit("-", 1)[1] != hashlib.sha256(content).hexdigest()[:16]:
                    raise ValueError("its bytes are not those that were written")
                tensors = load(content)
                return Snapshot(tensors, json.loads(bytes(tensors.pop("facts").tolist())))
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                self.listener.note(f"{path} is left out: {error}")
        return None


class Follower(Checkpoints):
    """Of a process that does not lead: it knows what is gone on from, and leaves files alone."""

    def after_step(self, take: Callable[[], Snapshot]) -> None:
        """Nothing."""

    def write(self, now: Snapshot) -> bool:
        """Nothing; the leader says whether there is one."""
        return False

    def leave_failed(self, now: Snapshot, batch: Batch) -> Path | None:
        """Nothing."""
        return None


@contextmanager
def unfinished(
    out: Path, *, resume: bool, overwrite: bool, every: float, listener: Listener, processes: Processes = ALONE
) -> Iterator[Checkpoints]:
    """The checkpoints of the run that `out` will hold.

    Their folder goes when the block ends, or fails before there is one. A batch that failed stays.

    Args:
        every: seconds between checkpoints; 0 for none but that of a run that is stopped.
        processes: of which the leader alone reads and writes.

    Raises:
        UsageError: if another run is at work for `out`; if an unfinished one would be lost.
    """
    folder = unfinished_folder(out)
    if not processes.leads:
        follower = Follower(folder, 0.0, listener)
        follower.found = processes.from_leader(None)
        yield follower
        return
    made = _make(folder, out)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"--out {out}: another run is at work there; name another folder, or wait for it") from None
    for half in folder.glob(f"{MAKING}*"):  # of a run that was killed while it wrote its last files
        shutil.rmtree(half, ignore_errors=True)
    checkpoints = Checkpoints(folder, every, listener)
    ended = False
    try:
        if _newest_first(folder) and not resume:
            if not overwrite:
                raise UsageError(
                    f"--out {out} has an unfinished run in {folder}; add --resume to go on with it, or --overwrite to "
                    "start anew"
                )
            _empty(folder)
        if resume:
            checkpoints.found = checkpoints.read()
            if checkpoints.found is None:
                listener.note(f"--resume: nothing to go on with in {folder}: the run starts anew")
        processes.from_leader(checkpoints.found)
        yield checkpoints
        ended = True
    finally:
        lock.release()
        if ended or not (_newest_first(folder) or (folder / f"{_FAILED}.safetensors").exists()):
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made:
                if not any(parent.iterdir()):
                    parent.rmdir()


def _make(folder: Path, out: Path) -> list[Path]:
    """The folder; returns those above it that were missing, the lowest first."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror or error}; name another folder") from error
    return missing


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _empty(folder: Path) -> None:
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def _told(where: dict[str, Any]) -> str:
    return f"{where['device']} with " + ", ".join(f"{name} {number}" for name, number in where["versions"].items())
