"""Which way the gradient term goes in this run: tried on the first training images, or taken over from a run before."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kdcompress.data import Data
from kdcompress.devices import LAYOUT, device_name, out_of_memory
from kdcompress.engine import Alignment, Choice, Mode, choose
from kdcompress.errors import UsageError
from kdcompress.maths.randomness import generator
from kdcompress.processes import ALONE, Processes
from kdcompress.progress import Listener
from kdcompress.settings import TeachingSettings
from kdcompress.training.backward import parts_of
from kdcompress.training.batches import random_views
from kdcompress.training.ingredients import training_split
from kdcompress.training.lessons import lesson, noisy
from kdcompress.training.run_record import RunRecord
from kdcompress.versions import versions


def chosen_alignment(
    student: nn.Module,
    teacher: nn.Module,
    settings: TeachingSettings,
    data: Data,
    device: torch.device,
    earlier: Mode | None,
    listener: Listener,
    processes: Processes = ALONE,
) -> tuple[Alignment, Choice]:
    """The alignment, and what was seen of it on one batch like those of training. Where memory runs out, on less.

    Args:
        earlier: what a run before this one found, or this one before it was stopped.
        processes: the leader chooses for all.

    Raises:
        UsageError: if compiled code is asked for with statistics over all processes, which it would not see.
    """
    if settings.run.sync_batchnorm and processes.count > 1:
        if settings.loss.iga_mode == "compiled":
            raise UsageError("--iga-mode compiled has no statistics over all processes; leave --sync-batchnorm out")
        earlier = "exact" if settings.loss.iga_mode == "auto" else earlier
    if not processes.leads:
        earlier = processes.from_leader(earlier)
    align, choice = _tried(student, teacher, settings, data, device, earlier, listener, processes.count)
    if processes.leads:
        processes.from_leader(choice.mode)
    return align, choice


def _tried(
    student: nn.Module,
    teacher: nn.Module,
    settings: TeachingSettings,
    data: Data,
    device: torch.device,
    earlier: Mode | None,
    listener: Listener,
    shared_by: int,
) -> tuple[Alignment, Choice]:
    run, loss, images = settings.run, settings.loss, training_split(data)
    batch = min(run.batch_size, len(images)) // shared_by
    steps = run.epochs * (len(images) // (batch * shared_by))
    student.to(device).to(memory_format=LAYOUT).train()
    most = loss.iga_micro_batch or batch
    draws = generator(run.seed, "trial")
    while True:
        parts = parts_of(batch, most)
        count = math.ceil(batch / parts)  # what training will see: compiled code is for batches of this size
        pixels, y = next(images.shuffled(count, run.seed).batches(count, device=device))
        x = noisy(random_views(pixels, data, run, draws), loss, settings.threat.threat, draws, run.noise_sigma)
        x = x.contiguous(memory_format=LAYOUT)
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
                _, g_t, *v = lesson(teacher, x, y, loss.align, draws, len(data.classes))
                align, choice = choose(
                    earlier or loss.iga_mode,
                    student,
                    x,
                    v[0] if v else y,
                    g_t,
                    p=1 if loss.iga_norm == "l1" else 2,
                    steps=round(steps * parts * (1 - loss.iga_start)) // loss.iga_every,
                    note=listener.note,
                )
            kept = earlier == choice.mode
            return align, replace(choice, line=f"{choice.line}, as in the run before") if kept else choice
        except RuntimeError as error:
            if not out_of_memory(error) or count < 4:
                raise
        most = batch // (2 * parts)  # as training will do


def earlier_mode(out: Path, settings: TeachingSettings, device: torch.device) -> Mode | None:
    """What `auto` measured for the run in `out`, which this one replaces, where all that it depends on is the same.

    What it did not measure, since the run was short or the compiler failed, is soon found out again.
    """
    try:
        earlier = RunRecord.model_validate_json((out / "student.json").read_bytes())
    except (OSError, ValueError):
        return None
    then, now = earlier.settings, settings.model_dump(mode="json")
    same = (
        all(
            then.get(name) == now.get(name)
            for name in ("student", "student_args", "student_stride", "ratio", "data", "loss")
        )
        and all(then["run"].get(name) == now["run"][name] for name in ("epochs", "batch_size", "precision"))
        and (earlier.cost.device, earlier.versions) == (device_name(device), versions())
    )
    found = earlier.gradient
    if not same or settings.loss.iga_mode != "auto" or found is None or "compiled" not in found.milliseconds:
        return None
    return found.mode
