"""The two kinds of run, readable top to bottom: distil a teacher, or train a network without one.

Every file error is raised before training starts; the folder appears whole at the end.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar, cast

from kdcompress.data import Data
from kdcompress.devices import LAYOUT
from kdcompress.engine import Choice, exact
from kdcompress.errors import UsageError
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.processes import Processes, joined
from kdcompress.progress import Listener
from kdcompress.settings import DistillSettings, PruneSettings, TrainSettings
from kdcompress.training.batches import fresh_batches, refuse_uneven
from kdcompress.training.checkpoints import Checkpoints, unfinished
from kdcompress.training.folder import refuse_to_replace, refuse_used
from kdcompress.training.gradient_mode import chosen_alignment, earlier_mode
from kdcompress.training.identity import finished, identity, sha256_of, starting_weights
from kdcompress.training.ingredients import new_network, teacher_and_data, training_data, training_split
from kdcompress.training.lessons import kind_of
from kdcompress.training.network import train_network
from kdcompress.training.pruning import pruned_student
from kdcompress.training.recipes import (
    Recipe,
    adversarial_training,
    distillation,
    effective_iga_weight,
    noise_training,
    trades,
)
from kdcompress.training.recipes.passes import passes, passes_without_teacher
from kdcompress.training.recipes.words import in_words
from kdcompress.training.result import leave
from kdcompress.training.run_record import GradientRecord, PrunedRecord, RunRecord, TeacherRecord
from kdcompress.training.teacher_cache import cached_batches, refuse_inside
from kdcompress.training.teacher_check import accepted

S = TypeVar("S", DistillSettings, PruneSettings, TrainSettings)


def distill(
    settings: DistillSettings,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    listener: Listener = Listener(),
) -> RunRecord:
    """Train a small student from a robust teacher by eq. 13 and 14, and leave it in the folder `out`.

    >>> from importlib.resources import files
    >>> from tempfile import TemporaryDirectory
    >>> from kdcompress import *
    >>> settings = DistillSettings(
    ...     teacher=ModelFile(path=files("kdcompress") / "assets" / "digits_teacher.safetensors"),
    ...     student="resnet18",
    ...     student_args={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    ...     data=DataSettings(data="digits", train_images=64),  # a moment's worth
    ...     threat=ThreatSettings(eps=0.15),
    ...     loss=LossSettings(iga_mode="exact"),
    ...     run=RunSettings(epochs=2, batch_size=32, device="cpu"),
    ...     check=TeacherCheckSettings(check_images=32),
    ... )
    >>> losses = []
    >>> with TemporaryDirectory() as folder:
    ...     listener = Listener(epoch=lambda epoch: losses.append(epoch.loss))  # told after every epoch
    ...     record = distill(settings, Path(folder) / "student", listener=listener)
    ...     student = load_model(Path(folder) / "student" / "student.safetensors").model
    >>> len(losses), record.compression.params, sum(weight.numel() for weight in student.parameters())
    (2, 19082, 19082)

    Args:
        overwrite: a run in `out` is replaced at the end, and an unfinished one forgotten.
        resume: go on with an unfinished run of the same settings, where there is one; one that is finished is returned.

    Raises:
        KdcompressError: if anything the run needs is missing or wrong; nothing is left behind then.
        Stopped: if a signal ended the run; it can be resumed.
    """
    return _in_folder(_distill, settings, out, overwrite=overwrite, resume=resume, listener=listener)


def prune(
    settings: PruneSettings,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    listener: Listener = Listener(),
) -> RunRecord:
    """Take channels from a trained student, and teach what is left again, as `distill` does, into the folder `out`.

    >>> from importlib.resources import files
    >>> from tempfile import TemporaryDirectory
    >>> from kdcompress import *
    >>> teacher = files("kdcompress") / "assets" / "digits_teacher.safetensors"
    >>> settings = PruneSettings(
    ...     student=teacher,  # the demo's teacher is a file that kdcompress wrote, and may be narrowed itself
    ...     ratio=0.75,
    ...     teacher=ModelFile(path=teacher),
    ...     data=DataSettings(data="digits", train_images=64),  # a moment's worth
    ...     threat=ThreatSettings(eps=0.15),
    ...     loss=LossSettings(iga_mode="exact"),
    ...     run=RunSettings(epochs=1, batch_size=32, device="cpu"),
    ...     check=TeacherCheckSettings(check_images=32),
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     record = prune(settings, Path(folder) / "smaller")
    >>> record.compression.macs < 0.25 * record.pruned.macs_before
    True

    Args and errors as of `distill`.
    """
    return _in_folder(_distill, settings, out, overwrite=overwrite, resume=resume, listener=listener)


def _in_folder(
    work: Callable[[S, Path, bool, Checkpoints, Listener, Processes], RunRecord],
    settings: S,
    out: Path,
    *,
    overwrite: bool,
    resume: bool,
    listener: Listener,
) -> RunRecord:
    """The run that is finished in `out`, or `work`, with all that a folder and other processes ask of it."""
    with joined(settings.run.device) as processes:
        listener = listener if processes.leads else Listener()
        done = finished(out, settings, listener) if resume and processes.leads else None
        if (done := processes.from_leader(done)) is not None:
            return done
        if processes.leads:
            refuse_used(out, overwrite=overwrite)
        every = 60 * settings.run.checkpoint_every
        with unfinished(
            out, resume=resume, overwrite=overwrite, every=every, listener=listener, processes=processes
        ) as checkpoints:
            record = work(settings, out, overwrite, checkpoints, listener, processes)
        listener.ended(record.model_dump(mode="json"))
        return record


def _distill(
    settings: DistillSettings | PruneSettings,
    out: Path,
    overwrite: bool,
    checkpoints: Checkpoints,
    listener: Listener,
    processes: Processes,
) -> RunRecord:
    run, loss, threat = settings.run, settings.loss, settings.threat.threat
    refuse_to_replace({"--teacher": settings.teacher.path, **_student_file(settings)}, out)
    refuse_inside(settings.cache, out)
    device = processes.device(run.device)
    teacher, data = teacher_and_data(settings.teacher, settings.data, run, listener)
    refuse_uneven(data, run, settings.data, processes)
    student, record, pruned = _student(settings, data, listener)
    origin = starting_weights(settings)
    started_from = None if origin is None else sha256_of(origin)
    begun = {"student-weights" if pruned is None else "student": started_from}
    checkpoints.begin(identity(settings, data, device, teacher=teacher.sha256, **begun))
    checkpoints.remember(data.damaged)
    listener.began(checkpoints.beginning(settings.model_dump(mode="json")))
    f_t = teacher.model.to(device).to(memory_format=LAYOUT)
    check = accepted(f_t, settings, training_split(data), device, listener)

    iga_weight = effective_iga_weight(loss, threat, math.prod(data.input_size))
    listener.note(f"loss: {in_words(loss, iga_weight, run.noise_sigma)}")
    if settings.cache.cache_teacher:
        with processes.leader_first():
            batches = cached_batches(settings, teacher, data, kind_of(loss, iga_weight), device, listener)
    else:
        batches = fresh_batches(data, run, device)
    align, choice = exact(2), None
    if iga_weight > 0:
        align, choice = chosen_alignment(
            *(student, f_t, settings, data, device, checkpoints.mode or earlier_mode(out, settings, device)),
            *(listener, processes),
        )
        checkpoints.about["mode"] = choice.mode
        listener.note(choice.line)
    recipe = distillation(
        f_t,
        loss,
        threat,
        iga_weight=iga_weight,
        seed=run.seed,
        align=align,
        classes=len(data.classes),
        noise_sigma=run.noise_sigma,
    )
    fitted = train_network(
        student, recipe, data, batches, run, threat, device, listener, loss.iga_micro_batch, checkpoints, processes
    )
    if not processes.leads:
        return cast(RunRecord, processes.from_leader(None))
    counted = passes(loss, iga_weight, differences=choice is not None and choice.mode == "finite-difference")

    taught = TeacherRecord(
        path=str(settings.teacher.path),
        arch=teacher.record.arch,
        sha256=teacher.sha256,
        params=parameter_count(teacher.model),
        macs=macs(teacher.model.cpu(), data.input_size),
        file_bytes=settings.teacher.path.stat().st_size,
        check=asdict(check),
    )
    done = leave(
        out,
        fitted,
        record,
        settings,
        overwrite=overwrite,
        threat=threat,
        data=data,
        device=processes.told(device),
        passes=replace(counted, teacher=0.0) if settings.cache.cache_teacher else counted,
        teacher=taught,
        iga_weight=iga_weight,
        gradient=_recorded(choice),
        pruned=pruned,
        started_from=None if pruned is not None else started_from,
    )
    return processes.from_leader(done)


def _student(
    settings: DistillSettings | PruneSettings, data: Data, listener: Listener
) -> tuple[NormalisedModel, ModelRecord, PrunedRecord | None]:
    """What is to be taught: a fresh network, or one that channels were taken from."""
    if isinstance(settings, PruneSettings):
        student, record, pruned = pruned_student(settings, data)
        listener.note(
            f"pruned: {pruned.channels:.0%} of the channels, "
            f"{1 - macs(student, record.input_size) / pruned.macs_before:.0%} of the multiply-accumulates, "
            f"{1 - parameter_count(student) / pruned.params_before:.0%} of the parameters"
        )
        return student, record, pruned
    args, stride, weights = settings.student_args, settings.student_stride, settings.student_weights
    student, record = new_network(settings.student, args, stride, weights, data, settings.run, listener)
    return student, record, None


def _student_file(settings: DistillSettings | PruneSettings) -> dict[str, Path | None]:
    if isinstance(settings, PruneSettings):
        return {"STUDENT": settings.student}
    return {"--student-weights": settings.student_weights}


def train(
    settings: TrainSettings,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    listener: Listener = Listener(),
) -> RunRecord:
    """Train any timm network without a teacher, by PGD adversarial training or on noise, into the folder `out`.

    >>> from tempfile import TemporaryDirectory
    >>> from kdcompress import *
    >>> settings = TrainSettings(
    ...     recipe="fast",
    ...     model="resnet18",
    ...     model_args={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    ...     data=DataSettings(data="digits", train_images=64),  # a moment's worth
    ...     threat=ThreatSettings(eps=0.15),
    ...     run=RunSettings(epochs=1, batch_size=32, device="cpu"),
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     record = train(settings, Path(folder) / "teacher")
    >>> record.compression.params
    19082

    Args and errors as of `distill`.
    """
    return _in_folder(_train, settings, out, overwrite=overwrite, resume=resume, listener=listener)


def _train(
    settings: TrainSettings,
    out: Path,
    overwrite: bool,
    checkpoints: Checkpoints,
    listener: Listener,
    processes: Processes,
) -> RunRecord:
    run, threat = settings.run, settings.threat.threat
    device = processes.device(run.device)
    data = training_data(settings.data, run, listener)
    refuse_uneven(data, run, settings.data, processes)
    try:
        network, record = new_network(
            settings.model, settings.model_args, settings.model_stride, None, data, run, listener
        )
    except UsageError as error:  # it speaks of the options of `distill`
        raise UsageError(str(error).replace("--student", "--model")) from error
    checkpoints.begin(identity(settings, data, device))
    checkpoints.remember(data.damaged)
    listener.began(checkpoints.beginning(settings.model_dump(mode="json")))
    recipe, batches = _without_teacher(settings), fresh_batches(data, run, device)
    fitted = train_network(network, recipe, data, batches, run, threat, device, listener, None, checkpoints, processes)
    if not processes.leads:
        return cast(RunRecord, processes.from_leader(None))
    done = leave(
        out,
        fitted,
        record,
        settings,
        overwrite=overwrite,
        threat=threat,
        data=data,
        device=processes.told(device),
        passes=passes_without_teacher(settings),
    )
    return processes.from_leader(done)


def _without_teacher(settings: TrainSettings) -> Recipe:
    run, threat, smoothing = settings.run, settings.threat.threat, settings.label_smoothing
    if settings.recipe == "noise":
        return noise_training(run.noise_sigma, seed=run.seed, smoothing=smoothing)
    if settings.recipe == "trades":
        return trades(threat, steps=settings.steps, beta=settings.beta, seed=run.seed, smoothing=smoothing)
    return adversarial_training(
        threat, steps=settings.steps, seed=run.seed, noise_sigma=run.noise_sigma, smoothing=smoothing
    )


def _recorded(choice: Choice | None) -> GradientRecord | None:
    if choice is None:
        return None
    return GradientRecord(mode=choice.mode, milliseconds=choice.milliseconds, cosine=choice.cosine)
