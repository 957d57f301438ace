"""The two kinds of run, readable top to bottom: distil a teacher, or train a network without one.

Every file error is raised before training starts; the folder appears whole at the end.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from kdcompress.attacks.pgd import pgd
from kdcompress.data import Data, Split, augment, channel_statistics, epoch_order, load_data
from kdcompress.devices import device_name, resolve_device
from kdcompress.engine import Alignment, Choice, Mode, choose, exact
from kdcompress.errors import DataError, TeacherError, UsageError
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import logit_directions
from kdcompress.maths.randomness import generator
from kdcompress.models.checkpoints import read_checkpoint, save_model
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.students import create_student, load_starting_weights
from kdcompress.models.teachers import LoadedModel, load_model
from kdcompress.progress import Epoch, Listener, Validation
from kdcompress.settings import DataSettings, DistillSettings, RunSettings, TrainSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.backward import out_of_memory
from kdcompress.training.folder import refuse_used, run_folder
from kdcompress.training.loop import Fitted, fit
from kdcompress.training.recipes import Recipe, adversarial_training, distillation, scaled_iga_weight
from kdcompress.training.run_record import Compression, Cost, GradientRecord, RunRecord, TeacherRecord, ValidationRecord
from kdcompress.training.teacher_check import TeacherCheck, check_teacher
from kdcompress.versions import versions

MAKE_STUDENT = "student.safetensors"
VALIDATION_STEPS = 10
LAYOUT = torch.channels_last
"""Of images and weights in memory. Time of a step in it over the same step in the contiguous layout (3x32x32, one
thread of a shared two-core Xeon, torch 2.15, 2026-11-23, medians of 7 side by side):

| student               | KD   | KDIGA |
|-----------------------|------|-------|
| ResNet-18             | 1.03 | 0.91  |
| ResNet-26             | 0.93 | 0.88  |
| MobileNetV2 050       | 0.74 | 0.75  |
| MobileNetV3 small 050 | 0.72 | 0.69  |
| EfficientNet-B0       | 0.77 | 0.80  |
| RegNetX 002           | 0.80 | 0.79  |
| ConvNeXt atto         | 1.02 | 1.08  |
| ViT tiny, 4 blocks    | 0.92 | 0.99  |
"""
LOW_ACCURACY = 0.5
"""Of a teacher on training images. A wrong normalisation took the CIFAR-10 ResNet-4B from .83 to .45 (mean and std .5)
and .21 (none)."""


def distill(
    settings: DistillSettings, out: Path, *, overwrite: bool = False, listener: Listener = Listener()
) -> RunRecord:
    """Train a small student from a robust teacher by eq. 13 and 14, and leave it in the folder `out`.

    Raises:
        KdcompressError: if anything the run needs is missing or wrong; nothing is left behind then.
    """
    run, threat = settings.run, settings.threat.threat
    refuse_used(out, overwrite=overwrite)
    device = resolve_device(run.device)
    data = _training_data(settings.data, run, listener)
    teacher = load_model(
        settings.teacher.path,
        arch=settings.teacher.arch,
        args=settings.teacher.args,
        mean=settings.teacher.mean,
        std=settings.teacher.std,
        classes=data.classes,
        input_size=data.input_size,
        option="teacher",
    )
    for note in teacher.notes:
        listener.note(note)
    student, record = new_network(
        settings.student, settings.student_args, settings.student_stride, settings.student_weights, data, run, listener
    )
    teacher.model.to(device).to(memory_format=LAYOUT)
    check = _checked(teacher.model, settings, _train(data), threat, device, listener)

    D = math.prod(data.input_size)
    weight = settings.loss.iga_weight
    iga_weight = scaled_iga_weight(threat, D, norm=settings.loss.iga_norm) if weight == "auto" else weight
    listener.note(
        f"loss: {settings.loss.ce_weight:g} CE + {settings.loss.kl_weight:g} T^2 KL (T = {settings.loss.temperature:g})"
        + (
            f" + {iga_weight:.3g} gradient distance, rising over the first {settings.loss.iga_ramp:g} of the run"
            if iga_weight
            else ""
        )
    )
    align, choice = (exact(2), None)
    if iga_weight > 0:
        align, choice = _chosen(
            student, teacher.model, settings, _train(data), device, _earlier_mode(out, settings, device)
        )
        listener.note(choice.line)
    recipe = distillation(
        teacher.model,
        settings.loss,
        threat,
        iga_weight=iga_weight,
        generator=generator(run.seed, "noise"),
        align=align,
        classes=len(data.classes),
    )
    micro_batch = settings.loss.iga_micro_batch if iga_weight > 0 else None
    fitted = train_network(student, recipe, data, run, threat, device, listener, micro_batch)

    taught = TeacherRecord(
        path=str(settings.teacher.path),
        arch=teacher.record.arch,
        sha256=teacher.sha256,
        params=parameter_count(teacher.model),
        macs=macs(teacher.model.cpu(), data.input_size),
        file_bytes=settings.teacher.path.stat().st_size,
        check=asdict(check),
    )
    return _leave(
        out,
        fitted,
        record,
        settings,
        overwrite=overwrite,
        threat=threat,
        data=data,
        device=device,
        teacher=taught,
        iga_weight=iga_weight,
        gradient=None
        if choice is None
        else GradientRecord(mode=choice.mode, milliseconds=choice.milliseconds, cosine=choice.cosine),
    )


def _chosen(
    student: nn.Module,
    teacher: nn.Module,
    settings: DistillSettings,
    images: Split,
    device: torch.device,
    earlier: Mode | None,
) -> tuple[Alignment, Choice]:
    """The way of the gradient term, tried on the first training images, before the first step."""
    run, loss = settings.run, settings.loss
    batch = min(run.batch_size, len(images))
    student.to(device).to(memory_format=LAYOUT).train()
    count = min(batch, loss.iga_micro_batch or batch)
    while True:
        x, y = next(images.subset(range(count)).batches(count, device=device))
        x = x.contiguous(memory_format=LAYOUT)
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
                f_t, g_t = logits_and_input_gradient(teacher, x, y, create_graph=False)
                target = y
                if loss.align == "jacobian":
                    target = logit_directions(len(y), f_t.shape[1], generator(run.seed, "directions"), device)
                    _, g_t = logits_and_input_gradient(teacher, x, target, create_graph=False)
                return choose(
                    loss.iga_mode if earlier is None else earlier,
                    student,
                    x,
                    target,
                    g_t,
                    p=1 if loss.iga_norm == "l1" else 2,
                    steps=run.epochs * (len(images) // batch) * math.ceil(batch / count),
                )
        except RuntimeError as error:
            if not out_of_memory(error) or count < 4:
                raise
        count //= 2  # training will find its own way to smaller parts


def _earlier_mode(out: Path, settings: DistillSettings, device: torch.device) -> Mode | None:
    """What `auto` chose for the run that this one replaces, where student, batch, device and PyTorch are the same."""
    try:
        earlier = RunRecord.model_validate_json((out / "student.json").read_bytes())
    except (OSError, ValueError):
        return None
    then, now = earlier.settings, settings.model_dump(mode="json")
    same = (
        all(then.get(name) == now[name] for name in ("student", "student_args", "student_stride"))
        and all(then["run"].get(name) == now["run"][name] for name in ("batch_size", "precision"))
        and then["loss"] == now["loss"]
        and (earlier.cost.device, earlier.versions["torch"]) == (device_name(device), versions()["torch"])
    )
    return earlier.gradient.mode if same and settings.loss.iga_mode == "auto" and earlier.gradient else None


def train(settings: TrainSettings, out: Path, *, overwrite: bool = False, listener: Listener = Listener()) -> RunRecord:
    """Train any timm network robustly without a teacher (PGD adversarial training), into the folder `out`.

    Raises:
        KdcompressError: if anything the run needs is missing or wrong; nothing is left behind then.
    """
    run, threat = settings.run, settings.threat.threat
    refuse_used(out, overwrite=overwrite)
    device = resolve_device(run.device)
    data = _training_data(settings.data, run, listener)
    try:
        network, record = new_network(
            settings.model, settings.model_args, settings.model_stride, None, data, run, listener
        )
    except UsageError as error:  # it speaks of the options of `distill`
        raise UsageError(str(error).replace("--student", "--model")) from error
    recipe = adversarial_training(threat, steps=settings.attack_steps, generator=generator(run.seed, "inner attack"))
    fitted = train_network(network, recipe, data, run, threat, device, listener)
    return _leave(
        out,
        fitted,
        record,
        settings,
        overwrite=overwrite,
        threat=threat,
        data=data,
        device=device,
        teacher=None,
        iga_weight=None,
        gradient=None,
    )


def new_network(
    arch: str,
    args: dict[str, object],
    stride: int | None,
    weights: Path | None,
    data: Data,
    run: RunSettings,
    listener: Listener,
) -> tuple[NormalisedModel, ModelRecord]:
    """A timm network for the data's images and classes, normalised by the training images, seeded by the run."""
    mean, std = channel_statistics(_train(data))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network, record = create_student(
            arch, args, classes=data.classes, input_size=data.input_size, total_stride=stride, mean=mean, std=std
        )
    if record.changes:
        changed = ", ".join(f"{change.module}: {change.action}" for change in record.changes)
        listener.note(f"{record.arch} was fitted to {data.input_size[1]}x{data.input_size[2]} images ({changed})")
    if weights is not None:
        left_out = load_starting_weights(network.network, read_checkpoint(weights).state)
        if left_out:
            listener.note(f"--student-weights {weights}: kept fresh: {', '.join(left_out)}")
    return network, record


def train_network(
    network: NormalisedModel,
    recipe: Recipe,
    data: Data,
    run: RunSettings,
    threat: ThreatModel,
    device: torch.device,
    listener: Listener,
    micro_batch: int | None = None,
) -> Fitted:
    """Fit on the training split; choose the epoch on the held-out slice. The test split plays no part."""
    images, holdout = _train(data), data.holdout
    assert holdout is not None  # comes with the training split
    batch_size = min(run.batch_size, len(images))
    order, views = generator(run.seed, "order"), generator(run.seed, "views")
    crops = run.augment in ("crop", "crop-flip", "auto")
    flips = run.augment == "crop-flip" or (run.augment == "auto" and data.flips)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        shuffled = epoch_order(len(images), order)
        for pixels, y in images.batches(batch_size, device=device, order=shuffled, drop_last=True):
            x = augment(pixels, generator=views, flips=flips, crop_padding=data.crop_padding if crops else 0)
            yield x.contiguous(memory_format=LAYOUT), y

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(run.seed)  # dropout and stochastic depth know only the global generator
        return fit(
            network.to(device).to(memory_format=LAYOUT),
            recipe,
            batches,
            steps_per_epoch=len(images) // batch_size,
            run=run,
            validate=_validation(holdout, threat, run.seed, device),
            device=device,
            micro_batch=micro_batch,
            listener=listener,
        )


def _validation(
    holdout: Split, threat: ThreatModel, seed: int, device: torch.device
) -> Callable[[nn.Module], Validation]:
    def validate(model: nn.Module) -> Validation:
        rng: Generator = generator(seed, "validation")  # the same start every time, so that epochs can be compared
        clean = kept = 0
        for x, y in holdout.batches(250, device=device):
            x_adv = pgd(model, x, y, threat, steps=VALIDATION_STEPS, generator=rng)
            with torch.no_grad():
                right = model(x).argmax(1) == y
                kept += int((right & (model(x_adv).argmax(1) == y)).sum())
            clean += int(right.sum())
        return Validation(clean / len(holdout), kept / len(holdout), len(holdout))

    return validate


def _training_data(settings: DataSettings, run: RunSettings, listener: Listener) -> Data:
    data = load_data(
        settings.data,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        train_images=settings.train_images,
        splits=["train"],
        seed=run.seed,
        on_progress=listener.count,
    )
    for note in data.notes:
        listener.note(note)
    images = _train(data)
    if run.batch_size > len(images):
        listener.note(f"--batch-size {run.batch_size} is more than the {len(images)} training images: a step takes all")
    if len(images) < 2:
        raise DataError(f"--data {settings.data}: training needs at least 2 images beside the hold-out")
    return data


def _train(data: Data) -> Split:
    assert data.train is not None  # asked for in _training_data
    return data.train


def _checked(
    teacher: nn.Module,
    settings: DistillSettings,
    images: Split,
    threat: ThreatModel,
    device: torch.device,
    listener: Listener,
) -> TeacherCheck:
    sample = images.shuffled(settings.check.check_images, settings.run.seed)
    listener.note(f"checking the teacher on {len(sample)} training images")
    check = check_teacher(teacher, sample, threat, settings.check, seed=settings.run.seed, device=device)
    listener.note(
        f"teacher: clean {check.clean_accuracy:.3f}, PGD-20 {check.pgd_accuracy:.3f} at {threat}, "
        f"first-order remainder {check.remainder:.3f}"
    )
    if not check.problems and check.clean_accuracy < LOW_ACCURACY:
        listener.note(
            "its clean accuracy is low for images like those it was trained on: are --teacher-mean, --teacher-std "
            "and the order of its classes right?"
        )
    if check.problems and not settings.check.insist:
        raise TeacherError(
            f"this teacher has too little robustness to hand on at {threat}: {'; '.join(check.problems)}. "
            "Bring another teacher or a smaller --eps, or add --insist to go on all the same"
        )
    for problem in check.problems:
        listener.note(f"going on as asked (--insist), although {problem}")
    return check


def _leave(
    out: Path,
    fitted: Fitted,
    record: ModelRecord,
    settings: DistillSettings | TrainSettings,
    *,
    overwrite: bool,
    threat: ThreatModel,
    data: Data,
    device: torch.device,
    teacher: TeacherRecord | None,
    iga_weight: float | None,
    gradient: GradientRecord | None,
) -> RunRecord:
    """Write the student, its record and the metrics; the folder appears at once, or not at all."""
    model = fitted.model.cpu()
    assert isinstance(model, NormalisedModel) and fitted.best.validation is not None
    with run_folder(out, overwrite=overwrite) as folder:
        sha256 = save_model(folder / MAKE_STUDENT, model, record)
        compression = Compression.between(
            params=parameter_count(model),
            macs=macs(model, data.input_size),
            file_bytes=(folder / MAKE_STUDENT).stat().st_size,
            teacher=teacher,
        )
        result = RunRecord(
            model=record,
            sha256=sha256,
            threat_model={"norm": threat.norm, "eps": threat.eps},
            data={"name": data.name, "train": len(_train(data)), "holdout": len(data.holdout or ())},
            settings=settings.model_dump(mode="json"),
            iga_weight=iga_weight,
            gradient=gradient,
            teacher=teacher,
            compression=compression,
            selected=ValidationRecord(epoch=fitted.best.epoch, **asdict(fitted.best.validation)),
            cost=Cost(seconds=round(fitted.seconds, 1), steps=fitted.steps, device=device_name(device)),
            versions=versions(),
        )
        (folder / "student.json").write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        lines = [json.dumps(_line(epoch)) for epoch in fitted.history]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return result


def _line(epoch: Epoch) -> dict[str, object]:
    return asdict(epoch)


__all__ = ["LoadedModel", "distill", "new_network", "train", "train_network"]
