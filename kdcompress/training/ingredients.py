"""What a run is made of, read and refused before any training: images, a teacher, a fresh network."""

from pathlib import Path

import torch
from torch import Tensor

from kdcompress.data import Data, Split, channel_statistics, load_data
from kdcompress.errors import DataError
from kdcompress.models.checkpoints import Checkpoint, read_checkpoint
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.students import create_student, load_starting_weights
from kdcompress.models.teachers import LoadedModel, load_named
from kdcompress.progress import Listener
from kdcompress.settings import DataSettings, ModelFile, RunSettings


def training_data(settings: DataSettings, run: RunSettings, listener: Listener) -> Data:
    """The training split and its hold-out; the test split is not even opened."""
    data = load_data(
        settings.data,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        train_images=settings.train_images,
        skip_corrupt=settings.skip_corrupt,
        splits=["train"],
        seed=run.seed,
        on_progress=listener.count,
    )
    listener.detail(data.line)
    for note in data.notes:
        listener.note(note)
    images = training_split(data)
    if data.damaged and isinstance(images.pixels, Tensor):  # else more are found on the way, and told at the end
        listener.note(told_damaged(data))
    if run.batch_size > len(images):
        listener.note(f"--batch-size {run.batch_size} is more than the {len(images)} training images: a step takes all")
    if len(images) < 2:
        raise DataError(f"--data {settings.data}: training needs at least 2 images beside the hold-out")
    if len(data.holdout or ()) == 0:
        raise DataError(f"--data {settings.data}: no image of the hold-out can be read; {told_damaged(data)}")
    return data


def told_damaged(data: Data, most: int = 3) -> str:
    """How many images were left out, and what was found in the first few."""
    found = [line.rsplit(";", 1)[0] for line in data.damaged.values()]
    more = f" and {len(found) - most:,} more" if len(found) > most else ""
    return f"left out: {len(found):,} training images that cannot be read: {'; '.join(found[:most])}{more}"


def training_split(data: Data) -> Split:
    """The images that are trained on."""
    assert data.train is not None  # asked for in training_data
    return data.train


def teacher_and_data(
    file: ModelFile, settings: DataSettings, run: RunSettings, listener: Listener
) -> tuple[LoadedModel, Data]:
    """The teacher's file first, since it is read in a moment; its network when the classes are known."""
    checkpoint: Checkpoint = read_checkpoint(file.path)
    data = training_data(settings, run, listener)
    teacher = load_named(file, checkpoint, classes=data.classes, input_size=data.input_size, option="teacher")
    listener.detail(f"teacher: {teacher.line}")
    for note in teacher.notes:
        listener.note(note)
    return teacher, data


def new_network(
    arch: str,
    args: dict[str, object],
    stride: int | None,
    weights: Path | None,
    data: Data,
    run: RunSettings,
    listener: Listener,
) -> tuple[NormalisedModel, ModelRecord]:
    """A timm network for the data's images and classes, seeded by the run.

    It is normalised by the training images; with `weights` as those were, where their file says it.
    """
    start = None if weights is None else read_checkpoint(weights)
    mean, std = channel_statistics(training_split(data))
    if start is not None and start.has_normalisation and len(start.mean or mean) == len(mean):
        mean, std = start.mean or (0.0,) * len(mean), start.std or (1.0,) * len(std)
        listener.detail(f"--student-weights {weights}: inputs are normalised as there, mean {mean}, std {std}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network, record = create_student(
            arch, args, classes=data.classes, input_size=data.input_size, total_stride=stride, mean=mean, std=std
        )
    if record.changes:
        changed = ", ".join(f"{change.module}: {change.action}" for change in record.changes)
        listener.note(f"{record.arch} was fitted to {data.input_size[1]}x{data.input_size[2]} images ({changed})")
    if start is not None:
        left_out = load_starting_weights(network.network, start.state)
        if left_out:
            listener.note(f"--student-weights {weights}: kept fresh: {', '.join(left_out)}")
    return network, record
