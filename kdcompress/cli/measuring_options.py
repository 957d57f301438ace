"""The options that evaluate, certify and export share, declared once, and what is made of them.

A name is an option's and a settings' field's alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kdcompress.cli import options
from kdcompress.cli.options import MEASURES, OUTPUT, Format, default, gathered
from kdcompress.errors import UsageError
from kdcompress.settings import DataSettings, EvaluationSettings, GateSettings, ModelFile


class Judged:
    """The network in MODEL, and the images that it is judged on."""

    data: options.Data
    data_dir: options.DataDir = None
    image_size: options.ImageSize = None
    arch: options.Arch = None
    arg: options.Arg = None
    mean: options.Mean = None
    std: options.Std = None


class Teacher:
    """What is said of the file in --teacher."""

    teacher_arch: options.TeacherArch = None
    teacher_arg: options.TeacherArg = None
    teacher_mean: options.TeacherMean = None
    teacher_std: options.TeacherStd = None


class Kept:
    """Where it is computed, from which seed, and what is kept for a run that goes on."""

    seed: Annotated[
        int, typer.Option(help="Seed of the shuffle and of everything that is drawn.", rich_help_panel=MEASURES)
    ] = default(EvaluationSettings, "seed")
    device: options.MeasuringDevice = default(EvaluationSettings, "device")
    keep_dir: options.KeepDir = None
    fresh: options.Fresh = False
    report: options.Report = None


class Smoothed:
    """Randomized smoothing, its gate, and how rates meet gates."""

    smoothing: options.SmoothingMethod = default(EvaluationSettings, "smoothing")
    sigma: options.Sigma = default(EvaluationSettings, "sigma")
    n0: options.N0 = default(EvaluationSettings, "n0")
    n: options.N = default(EvaluationSettings, "n")
    alpha: options.Alpha = default(EvaluationSettings, "alpha")
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Most images a forward: less memory, the same figures to rounding. Default: 250, or the chunk of an "
            "attack.",
            rich_help_panel=MEASURES,
        ),
    ] = default(EvaluationSettings, "batch_size")
    min_certified_accuracy: options.MinCertifiedAccuracy = None
    gate_on: options.GateOn = default(GateSettings, "gate_on")


class Page:
    """A result to look at, in several forms."""

    html: Annotated[Path | None, typer.Option(help="Write a page to look at, in one file.", rich_help_panel=OUTPUT)] = (
        None
    )
    table: Annotated[
        Path | None, typer.Option(help="Write a CSV file, a row for each image.", rich_help_panel=OUTPUT)
    ] = None
    format: options.FormatOption = Format.table


def of_images(asked: Mapping[str, Any]) -> DataSettings:
    """The images that are judged on."""
    return gathered(DataSettings, asked)


def of_evaluation(asked: Mapping[str, Any]) -> EvaluationSettings:
    """How it is measured; `asked` may hold any of the fields' options, --fresh and --keep-dir among them.

    Raises:
        UsageError: if --keep-dir is a file.
    """
    keep_dir = asked["keep_dir"]
    if keep_dir is not None and keep_dir.exists() and not keep_dir.is_dir():
        raise UsageError(f"--keep-dir must be a folder, got the file {keep_dir}")
    kept = None if asked["fresh"] else keep_dir or options.cache_folder("verdicts")
    return gathered(EvaluationSettings, {**asked, "keep_dir": kept})


def of_model(path: Path | None, asked: Mapping[str, Any], prefix: str = "") -> ModelFile | None:
    """A file and what was said of it, under options that begin with `prefix`: "", "teacher-" or "surrogate-"."""
    arch, arg, mean, std = (asked[f"{prefix.replace('-', '_')}{name}"] for name in ("arch", "arg", "mean", "std"))
    return options.optional_model_file(path, arch, arg, mean, std, prefix)
