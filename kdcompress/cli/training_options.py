"""The options that distill, prune and train share, declared once, and what is made of them.

A name is an option's and a settings' field's alike.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kdcompress.cli import loss_options, options
from kdcompress.cli.options import CACHE, TEACHER, Format, default, gathered
from kdcompress.cli.output import emit, speaks, watched
from kdcompress.settings import (
    CacheSettings,
    DataSettings,
    LossSettings,
    RunSettings,
    Settings,
    TeacherCheckSettings,
    ThreatSettings,
)
from kdcompress.tracking import asked_for, tracked


class Training:
    """Which images and ball, how long and how, and where the run goes."""

    data: options.Data
    eps: options.Eps
    out: options.Out
    norm: options.NormOption = "Linf"
    data_dir: options.DataDir = None
    image_size: options.ImageSize = None
    train_images: options.TrainImages = None
    skip_corrupt: options.SkipCorrupt = False
    epochs: options.Epochs = default(RunSettings, "epochs")
    batch_size: options.BatchSize = default(RunSettings, "batch_size")
    schedule: options.Schedule = default(RunSettings, "schedule")
    optimizer: options.Optimizer = default(RunSettings, "optimizer")
    lr: options.Lr = None
    weight_decay: options.WeightDecay = None
    momentum: options.Momentum = None
    average: options.AverageOption = default(RunSettings, "average")
    ema: options.Ema = None
    swa_start: options.SwaStart = None
    augment: options.Augment = default(RunSettings, "augment")
    precision: options.Precision = default(RunSettings, "precision")
    noise_sigma: options.NoiseSigma = default(RunSettings, "noise_sigma")
    sync_batchnorm: options.SyncBatchnorm = False
    seed: options.Seed = default(RunSettings, "seed")
    device: options.Device = default(RunSettings, "device")
    log_to: options.LogTo = None
    checkpoint_every: options.CheckpointEvery = default(RunSettings, "checkpoint_every")
    resume: options.Resume = False
    overwrite: options.Overwrite = False
    format: options.FormatOption = Format.table


class Teaching:
    """The teacher, and whether it is to be believed."""

    teacher: options.Teacher
    teacher_arch: options.TeacherArch = None
    teacher_arg: options.TeacherArg = None
    teacher_mean: options.TeacherMean = None
    teacher_std: options.TeacherStd = None
    insist: Annotated[
        bool, typer.Option("--insist", help="Go on with a teacher that fails the check.", rich_help_panel=TEACHER)
    ] = False


class Memory:
    """How much of a batch is in memory at once, and whether what the teacher says is kept."""

    iga_micro_batch: loss_options.IgaMicroBatch = default(LossSettings, "iga_micro_batch")
    cache_teacher: Annotated[
        bool,
        typer.Option(
            "--cache-teacher",
            help="Ask the teacher once, of fixed views of the images, and keep what it says for later epochs and runs.",
            rich_help_panel=CACHE,
        ),
    ] = False
    cache_views: Annotated[
        int | None,
        typer.Option(help="Fixed views of each image (crop, flip, noise). Default: 8.", rich_help_panel=CACHE),
    ] = None
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Where they are kept. Default: ~/.cache/kdcompress/views.", rich_help_panel=CACHE),
    ] = None


def of_training(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of any training, by the fields that hold them."""
    return {
        "data": gathered(DataSettings, asked),
        "threat": gathered(ThreatSettings, asked),
        "run": gathered(RunSettings, asked),
    }


def of_teaching(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `TeachingSettings`."""
    caches = asked["cache_teacher"] and asked["cache_dir"] is None
    cache_dir = options.cache_folder("views") if caches else asked["cache_dir"]
    return {
        "teacher": options.model_file(
            asked["teacher"],
            asked["teacher_arch"],
            asked["teacher_arg"],
            asked["teacher_mean"],
            asked["teacher_std"],
            "teacher-",
        ),
        **of_training(asked),
        "loss": gathered(LossSettings, asked),
        "cache": gathered(CacheSettings, {**asked, "cache_dir": cache_dir}),
        "check": gathered(TeacherCheckSettings, asked),
    }


def run_in_folder(work: Callable[..., Any], settings: Settings, asked: Mapping[str, Any]) -> None:
    """Do it in --out, shown and tracked, and print what came of it."""
    trackers, out = asked_for(asked["log_to"] or []), asked["out"]
    from kdcompress.render.console import run_summary

    with watched() as shown, tracked(trackers, out, shown) as listener:
        record = work(settings, out, overwrite=asked["overwrite"], resume=asked["resume"], listener=listener)
    if speaks():
        emit(record.model_dump_json(indent=2), run_summary(record), asked["format"])
