"""Options that several commands share, and how their texts become settings.

Defaults come from `kdcompress.settings`, their only home.
"""

import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel

from kdcompress.errors import UsageError
from kdcompress.settings import EvaluationSettings, GateSettings, ModelFile, RunSettings, Settings, Statistics
from kdcompress.threat import Norm, parse_eps

S = TypeVar("S", bound=Settings)


class Format(StrEnum):
    """How the result is printed on stdout."""

    table = "table"
    json = "json"


def gathered(settings: type[S], asked: Mapping[str, Any]) -> S:
    """The settings whose fields are called as the options in `asked`, which may hold others too.

    Raises:
        UsageError: naming the first wrong option as typed.
    """
    return settings.of(**{name: asked[name] for name in settings.model_fields if name in asked})


def default(settings: type[BaseModel], name: str) -> Any:
    """The default of a field of `settings`."""
    return settings.model_fields[name].default


def choice(settings: type[BaseModel], name: str, panel: str, help: str) -> Any:
    """An option for one of the words of a field of `settings`, which the help and the shell's completion offer."""
    words = [word for word in _literals(settings.model_fields[name].annotation) if word is not None]
    offered = "|".join(words)
    return typer.Option(
        f"--{name.replace('_', '-')}",
        help=help,
        metavar=offered if len(offered) < WIDE else "NAME",
        autocompletion=offering(*words),
        rich_help_panel=panel,
    )


def offering(*words: str) -> Callable[[str], list[str]]:
    """What the shell's completion offers where these words may stand, and others too."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def timm_names(incomplete: str) -> list[str]:
    """The networks of timm whose names begin so."""
    import timm

    return [str(name) for name in timm.list_models(f"{incomplete}*")]


DEVICES = offering("auto", "cpu", "cuda", "mps")

WIDE = 24
"""Letters of choices from which on their column would leave too little room for what is said of them."""


def _literals(annotation: Any) -> list[Any]:
    """The words of a Literal, or of those in a union."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _literals(part)]


TEACHER, STUDENT, DATA, LOSS, TRAINING, OUTPUT = "Teacher", "Student", "Data", "Loss", "Training", "Output"
CACHE = "Teacher cache"
THREAT, MEASURES, GATES = "Threat model", "Measures", "Gates"

Data = Annotated[
    str,
    typer.Option(
        help="Images: a folder or tar with train/<class>/ and test/<class>/ (or val/), a folder of WebDataset shards, "
        "a timm scheme such as torch/cifar10, or the built-in digits.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Root folder of a timm scheme.", rich_help_panel=DATA)]
ImageSize = Annotated[
    int | None, typer.Option(help="Resize and crop images to this side. Default: as they are.", rich_help_panel=DATA)
]
TrainImages = Annotated[
    int | None, typer.Option(help="Train on so many images, balanced by class. Default: all.", rich_help_panel=DATA)
]
SyncBatchnorm = Annotated[
    bool,
    typer.Option(
        "--sync-batchnorm",
        help="Under torchrun: BatchNorm's statistics over all processes' images.",
        rich_help_panel=TRAINING,
    ),
]
SkipCorrupt = Annotated[
    bool,
    typer.Option(
        "--skip-corrupt",
        help="Leave training images out that cannot be read, and say which. Else the first one ends the run.",
        rich_help_panel=DATA,
    ),
]
NormOption = Annotated[Norm, typer.Option("--norm", help="Norm of the perturbation.", rich_help_panel=THREAT)]
Eps = Annotated[
    str,
    typer.Option(
        help="Radius of the perturbation in pixels of [0,1], such as 8/255 or 0.15.",
        rich_help_panel=THREAT,
        show_default=False,
    ),
]
Epochs = Annotated[
    int,
    typer.Option(
        help="Passes over the training images. Five times at most, the last time at the end, clean and PGD-10 accuracy "
        "on the held-out slice say what student.safetensors is to hold.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[int, typer.Option(help="Images a step.", rich_help_panel=TRAINING)]
Schedule = Annotated[
    str,
    choice(
        RunSettings,
        "schedule",
        TRAINING,
        "Learning rate over the run: one-cycle, cosine (after a short warm-up), or step (a tenth after 1/2 and "
        "after 3/4).",
    ),
]
Optimizer = Annotated[str, choice(RunSettings, "optimizer", TRAINING, "adamw, or sgd with Nesterov's momentum.")]
Lr = Annotated[
    float | None,
    typer.Option(help="Peak learning rate. Default: 0.003 for adamw, 0.1 for sgd.", rich_help_panel=TRAINING),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(help="Weight decay. Default: 0.01 for adamw, 0.0005 for sgd.", rich_help_panel=TRAINING),
]
Momentum = Annotated[float | None, typer.Option(help="Of sgd. Default: 0.9.", rich_help_panel=TRAINING)]
AverageOption = Annotated[
    str,
    choice(
        RunSettings,
        "average",
        TRAINING,
        "Averaged weights, of which and of the raw ones the better are kept: ema, over the steps; swa, over the "
        "ends of late epochs; or none.",
    ),
]
Ema = Annotated[float | None, typer.Option(help="Decay of ema's average. Default: 0.99.", rich_help_panel=TRAINING)]
SwaStart = Annotated[
    float | None,
    typer.Option(help="Share of the run after which swa's average begins. Default: 0.75.", rich_help_panel=TRAINING),
]
Augment = Annotated[
    str,
    choice(
        RunSettings,
        "augment",
        TRAINING,
        "auto, none, crop, crop-flip, cutout (auto, and a square erased), or idbh (stronger: shifts, colours, "
        "shapes, erasing). auto, cutout and idbh flip colour images only: name crop where mirrored images lose their "
        "meaning.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.", rich_help_panel=TRAINING)]
Device = Annotated[
    str, typer.Option(help="auto, cpu, mps, cuda or cuda:N.", autocompletion=DEVICES, rich_help_panel=TRAINING)
]
MeasuringDevice = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, mps, cuda or cuda:N.", autocompletion=DEVICES, rich_help_panel=MEASURES),
]
Precision = Annotated[str, choice(RunSettings, "precision", TRAINING, "float32, or bf16 autocast.")]
NoiseSigma = Annotated[
    float,
    typer.Option(
        help="Train on x + N(0, S^2), in place of --input-noise, so that randomized smoothing can certify the network "
        "at --sigma S.",
        metavar="S",
        rich_help_panel=TRAINING,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="New folder for student.safetensors (the best weights), last.safetensors, student.json and metrics.jsonl.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the run in --out, and forget an unfinished one.", rich_help_panel=OUTPUT),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with a run that was stopped, or begin where there is none.", rich_help_panel=OUTPUT
    ),
]
LogTo = Annotated[
    list[str] | None,
    typer.Option(
        help="Send each epoch's figures to tensorboard[:FOLDER], wandb[:PROJECT] or mlflow[:EXPERIMENT]; repeat for "
        "more. Default folder: tensorboard, beside --out.",
        metavar="TRACKER",
        autocompletion=offering("tensorboard", "wandb", "mlflow"),
        rich_help_panel=OUTPUT,
    ),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        help="Minutes between checkpoints: the most that a killed run loses. 0: only where it is stopped by a signal.",
        rich_help_panel=OUTPUT,
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="What stdout gets.", rich_help_panel=OUTPUT)]

Arch = Annotated[
    str | None,
    typer.Option(help="MODEL's architecture, as --teacher-arch. Default: from the file.", rich_help_panel=STUDENT),
]
Arg = Annotated[
    list[str] | None, typer.Option(help="key=value for MODEL's builder; repeat for more.", rich_help_panel=STUDENT)
]
Mean = Annotated[
    str | None,
    typer.Option(help="MODEL's normalisation, as --teacher-mean. Default: from the file.", rich_help_panel=STUDENT),
]
Std = Annotated[str | None, typer.Option(help="See --mean.", rich_help_panel=STUDENT)]
Teacher = Annotated[
    Path,
    typer.Option(help="The robust teacher: safetensors or a torch file.", rich_help_panel=TEACHER, show_default=False),
]
TeacherArch = Annotated[
    str | None,
    typer.Option(
        help="timm name, CIFAR layout, package.module:function or file.py:function. Default: from the file.",
        rich_help_panel=TEACHER,
    ),
]
TeacherArg = Annotated[
    list[str] | None,
    typer.Option(help="key=value for the teacher's builder; repeat for more.", rich_help_panel=TEACHER),
]
TeacherMean = Annotated[
    str | None,
    typer.Option(
        help="Its normalisation: one number a channel, such as 0.49,0.48,0.45, or none. Default: from the file.",
        rich_help_panel=TEACHER,
    ),
]
TeacherStd = Annotated[str | None, typer.Option(help="See --teacher-mean.", rich_help_panel=TEACHER)]

Student = Annotated[
    str,
    typer.Option(help="Any timm name.", autocompletion=timm_names, rich_help_panel=STUDENT, show_default=False),
]
StudentArg = Annotated[
    list[str] | None,
    typer.Option(help="key=value for timm, such as layers=1,1,1,1; repeat for more.", rich_help_panel=STUDENT),
]
StudentStride = Annotated[
    int | None,
    typer.Option(
        help="Image side over the side of the final map: 8 makes of 32x32 pixels 4x4 positions. "
        "Default: what leaves 4x4 positions.",
        rich_help_panel=STUDENT,
    ),
]
ATTACKS = offering("autoattack", "autoattack-plus", "autoattack-rand", "apgd", "square", "screen", "pgd-50", "none")
SmoothingMethod = Annotated[
    str,
    choice(
        EvaluationSettings,
        "smoothing",
        MEASURES,
        "How draws are spent: sequential, until the radii of the curve and the gate are decided; fixed, n for "
        "every image (Cohen et al. 2019); adaptive, for the average certified radius.",
    ),
]
Sigma = Annotated[float, typer.Option(help="Smoothing: standard deviation of the noise.", rich_help_panel=MEASURES)]
N0 = Annotated[int, typer.Option("--n0", help="Smoothing: draws that choose the class.", rich_help_panel=MEASURES)]
N = Annotated[
    int, typer.Option("--n", help="Smoothing: most draws that bound its probability.", rich_help_panel=MEASURES)
]
Alpha = Annotated[float, typer.Option(help="Smoothing: probability of a wrong certificate.", rich_help_panel=MEASURES)]
MinCertifiedAccuracy = Annotated[
    str | None,
    typer.Option(
        help="Least certified accuracy of the smoothed classifier at an L2 radius, such as 0.25:0.40.",
        metavar="RADIUS:X",
        rich_help_panel=GATES,
    ),
]
GateOn = Annotated[
    str,
    choice(GateSettings, "gate_on", GATES, "point: the estimate decides; bound: the conservative end of its interval."),
]
KeepDir = Annotated[
    Path | None,
    typer.Option(
        help="Where verdicts are kept, so that a killed or repeated run goes on from them. Default: "
        "~/.cache/kdcompress/verdicts.",
        rich_help_panel=OUTPUT,
    ),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Begin anew: take nothing that was kept, and keep nothing.", rich_help_panel=OUTPUT),
]
Report = Annotated[Path | None, typer.Option(help="Write the JSON report here.", rich_help_panel=OUTPUT)]
Markdown = Annotated[Path | None, typer.Option(help="Write the report as Markdown.", rich_help_panel=OUTPUT)]
Junit = Annotated[Path | None, typer.Option(help="Write JUnit XML, a test case for each gate.", rich_help_panel=OUTPUT)]


def cache_folder(what: str) -> Path | None:
    """Where `what` is kept on this machine: in $XDG_CACHE_HOME, or ~/.cache, kdcompress/what; None without a home."""
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "kdcompress" / what
    try:
        return Path.home() / ".cache" / "kdcompress" / what
    except RuntimeError:
        return None


def radii(text: str) -> tuple[float, ...]:
    """`--eps` as typed: radii with commas between them, in the order given, each once.

    >>> radii("0.1"), radii("8/255, 2/255,8/255") == (8 / 255, 2 / 255)
    ((0.1,), True)
    """
    return tuple(dict.fromkeys(parse_eps(part.strip()) for part in text.split(",")))


def statistics(text: str | None, option: str) -> Statistics:
    """Normalisation as typed: numbers, `none`, or nothing.

    >>> statistics("0.5, 0.5,0.25", "--mean"), statistics("none", "--mean"), statistics(None, "--mean")
    ((0.5, 0.5, 0.25), 'none', None)

    Raises:
        UsageError: if the text is neither.
    """
    if text is None or text.strip().lower() == "none":
        return None if text is None else "none"
    try:
        return tuple(float(number) for number in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(
            f"{option} must be one number a channel, such as 0.49,0.48,0.45, or none, got {text}"
        ) from None


def optional_model_file(
    path: Path | None, arch: str | None, args: list[str] | None, mean: str | None, std: str | None, prefix: str
) -> ModelFile | None:
    """The same where the file may be left out, and then nothing may be said of it.

    Raises:
        UsageError: if something is.
    """
    if path is not None:
        return model_file(path, arch, args, mean, std, prefix)
    said = {"arch": arch, "arg": args, "mean": mean, "std": std}
    if wrong := [name for name, value in said.items() if value]:
        file = f"--{prefix[:-1]}" if prefix else "MODEL"
        raise UsageError(f"--{prefix}{wrong[0]} is about {file}, which is not given; name the file")
    return None


def model_file(
    path: Path, arch: str | None, args: list[str] | None, mean: str | None, std: str | None, prefix: str
) -> ModelFile:
    """The file and what was said of it; `prefix` is "teacher-" or ""."""
    from kdcompress.models.arguments import parse_arguments

    return ModelFile.of(
        path=path,
        arch=arch,
        args=parse_arguments(args or [], f"--{prefix}arg"),
        mean=statistics(mean, f"--{prefix}mean"),
        std=statistics(std, f"--{prefix}std"),
    )
