"""Which way the gradient term goes in this run: tried on the first training images, or taken over from a run before."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kdcompress.data import Split
from kdcompress.devices import LAYOUT, device_name
from kdcompress.engine import Alignment, Choice, Mode, choose
from kdcompress.maths.randomness import generator
from kdcompress.settings import DistillSettings
from kdcompress.training.backward import out_of_memory
from kdcompress.training.lessons import lesson
from kdcompress.training.run_record import RunRecord
from kdcompress.versions import versions


def chosen_alignment(
    student: nn.Module,
    teacher: nn.Module,
    settings: DistillSettings,
    images: Split,
    classes: int,
    device: torch.device,
    out: Path,
) -> tuple[Alignment, Choice]:
    """The alignment, and what was seen of it on one batch. Where memory runs out, on a half of it.

    Args:
        out: the run's folder, perhaps with the run that this one replaces.
    """
    run, loss = settings.run, settings.loss
    earlier = _earlier_mode(out, settings, device)
    batch = min(run.batch_size, len(images))
    student.to(device).to(memory_format=LAYOUT).train()
    parts = math.ceil(batch / (loss.iga_micro_batch or batch))
    while True:
        count = math.ceil(batch / parts)  # what training will see: compiled code is for batches of this size
        x, y = next(images.subset(range(count)).batches(count, device=device))
        x = x.contiguous(memory_format=LAYOUT)
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
                _, g_t, *v = lesson(teacher, x, y, loss.align, generator(run.seed, "directions"), classes)
                align, choice = choose(
                    earlier or loss.iga_mode,
                    student,
                    x,
                    v[0] if v else y,
                    g_t,
                    p=1 if loss.iga_norm == "l1" else 2,
                    steps=run.epochs * (len(images) // batch) * parts,
                )
            return align, replace(choice, line=f"{choice.line}, as in the run before") if earlier else choice
        except RuntimeError as error:
            if not out_of_memory(error) or count < 4:
                raise
        parts *= 2  # as training will do


def _earlier_mode(out: Path, settings: DistillSettings, device: torch.device) -> Mode | None:
    """What `auto` chose for the run that this one replaces, where all that it depends on is the same."""
    try:
        earlier = RunRecord.model_validate_json((out / "student.json").read_bytes())
    except (OSError, ValueError):
        return None
    then, now = earlier.settings, settings.model_dump(mode="json")
    same = (
        all(then.get(name) == now[name] for name in ("student", "student_args", "student_stride", "data"))
        and all(then["run"].get(name) == now["run"][name] for name in ("epochs", "batch_size", "precision"))
        and then["loss"] == now["loss"]
        and (earlier.cost.device, earlier.versions["torch"]) == (device_name(device), versions()["torch"])
    )
    return earlier.gradient.mode if same and settings.loss.iga_mode == "auto" and earlier.gradient else None
