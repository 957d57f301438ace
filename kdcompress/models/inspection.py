"""What a model file is, as far as it tells: for people who were handed one."""

import shlex
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcompress.models.checkpoints import Checkpoint, read_checkpoint
from kdcompress.models.layouts import UNREADABLE, assumption, recognise
from kdcompress.models.proposal import as_pairs, smaller_student
from kdcompress.models.states import BOOKKEEPING, is_average
from kdcompress.report import Result

# A key that a family of timm's networks has -> names of that family. Tried in order, each name until one fits.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "layer1.0.conv1.weight": ("resnet*", "wide_resnet*", "resnext*", "seresnet*", "ecaresnet*", "res2net*"),
    "blocks.0.attn.qkv.weight": ("vit_*", "deit*", "beit*", "eva*"),
    "stages.0.blocks.0.conv_dw.weight": ("convnext*",),
    "conv_stem.weight": ("mobilenet*", "efficientnet*", "tf_efficientnet*", "mnasnet*", "ghostnet*", "fbnet*"),
    "layers.0.blocks.0.attn.qkv.weight": ("swin*",),
    "features.conv0.weight": ("densenet*",),
    "features.0.weight": ("vgg*",),
    "stem.conv1.weight": ("mobilenet*", "resnetv2*", "regnet*"),
}
_MOST_TRIED = 150
_MOST_SHOWN = 3
_STATISTICS = ("running_mean", "running_var", *BOOKKEEPING)


class Inspection(Result):
    """A model file.

    Attributes:
        format: of the file.
        origin: the wrapper keys that led to the weights, as `state_dict`; empty where they lie bare.
        averaged: whether those are averaged weights.
        parameters: numbers in its weights, statistics of BatchNorm left out; `tensors`, how many hold them.
        dtypes: of the weights.
        classes: how many, from the record or the last layer; None where that is not told.
        input_size: (C, H, W) that a record tells.
        mean, std: the stored normalisation; `normalised` is False where the file does not say.
        arch, arch_args: what it is, where it was recognised; `others` fit its weights as well.
        assumed: what the weights do not tell, and was taken to be as usual.
        pruned: whether channels were taken from it.
        missing: what has to be said beside the file.
        command: a command line that uses it, with what is missing in capitals.
    """

    schema_version: str = "1.0"
    path: str
    format: str
    sha256: str
    file_bytes: int
    kdcompress: bool
    origin: str
    averaged: bool
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    classes: int | None
    class_names: tuple[str, ...]
    input_size: tuple[int, int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    normalised: bool
    arch: str | None
    arch_args: dict[str, Any]
    others: tuple[str, ...]
    assumed: str | None
    pruned: bool
    missing: tuple[str, ...]
    command: str


def inspect(path: Path) -> Inspection:
    """Read a model file, execute nothing in it, and say what it is.

    >>> from importlib.resources import files
    >>> found = inspect(files("kdcompress") / "assets" / "digits_teacher.safetensors")
    >>> found.arch, found.parameters, found.missing
    ('resnet18', 224722, ())

    Raises:
        CheckpointError: if it is no model file, or damaged.
    """
    found = read_checkpoint(path)
    record = found.record
    arch, args, others, assumed = _recognised(found)
    weights = {key: value for key, value in found.state.items() if not key.endswith(_STATISTICS)}
    missing = tuple(_missing(found, arch))
    names = record.classes if record is not None else ()
    parameters, classes = sum(value.numel() for value in weights.values()), len(names) or _classes(found.state)
    return Inspection(
        path=str(path),
        format=_format(path),
        sha256=found.sha256,
        file_bytes=path.stat().st_size,
        kdcompress=record is not None,
        origin=found.origin,
        averaged=is_average(found.origin),
        tensors=len(weights),
        parameters=parameters,
        dtypes=tuple(sorted({str(value.dtype).removeprefix("torch.") for value in weights.values()})),
        classes=classes,
        class_names=names,
        input_size=None if record is None else record.input_size,
        mean=found.mean,
        std=found.std,
        normalised=found.has_normalisation,
        arch=arch,
        arch_args=args,
        others=others,
        assumed=assumed,
        pruned=record is not None and record.shrunk is not None,
        missing=missing,
        command=_command(path, arch, found, parameters, classes),
    )


def _format(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":
        return "safetensors"
    return "torch, zip" if head.startswith(b"PK") else "torch, of before 1.6"


def _recognised(found: Checkpoint) -> tuple[str | None, dict[str, Any], tuple[str, ...], str | None]:
    """(architecture, arguments, others that fit, what was assumed)."""
    if found.record is not None:
        return found.record.arch, dict(found.record.args), (), None
    if (layout := recognise(found.state)) is not None:
        name, args = layout
        return name, args, (), assumption(name, args, {})
    fitting = tuple(_timm_names(found.state))
    return (fitting[0] if fitting else None), {}, fitting[1:], None


def _timm_names(state: Mapping[str, Tensor]) -> Iterator[str]:
    """timm's names whose networks have just these weights, the shortest first."""
    import timm

    patterns = [pattern for key, family in _FAMILIES.items() if key in state for pattern in family]
    names = [name for name in timm.list_models() if any(fnmatch(name, pattern) for pattern in patterns)]
    wanted = {key: value.shape for key, value in state.items() if not key.endswith(BOOKKEEPING)}
    classes, shown = _classes(state), 0
    for name in sorted(names, key=lambda one: (len(one), one))[:_MOST_TRIED]:
        try:
            with torch.device("meta"):
                network = timm.create_model(name) if classes is None else timm.create_model(name, num_classes=classes)
            own = network.state_dict()
        except Exception:
            continue
        if {key: value.shape for key, value in own.items() if not key.endswith(BOOKKEEPING)} == wanted:
            yield name
            shown += 1
            if shown == _MOST_SHOWN:
                return


def _classes(state: Mapping[str, Tensor]) -> int | None:
    """Rows of the last matrix, which is the classifier's in all networks that are known here."""
    matrices = [value for value in state.values() if value.ndim == 2]
    return matrices[-1].shape[0] if matrices else None


def _missing(found: Checkpoint, arch: str | None) -> Iterator[str]:
    if arch is None:
        yield "--teacher-arch: its architecture was not recognised: a timm name, or file.py:function that builds it"
    if found.record is None and arch in UNREADABLE:
        yield f"--teacher-arg {UNREADABLE[arch]}=...: the weights do not tell it (silu and relu are usual)"
    if not found.has_normalisation:
        yield (
            "--teacher-mean and --teacher-std: the file does not say how inputs are normalised; ask where it comes "
            "from (--teacher-mean none where it takes pixels in [0,1])"
        )


def _command(path: Path, arch: str | None, found: Checkpoint, parameters: int, classes: int | None) -> str:
    words = ["kdcompress", "distill", "--teacher", shlex.quote(str(path))]
    if found.record is None or found.record.source == "factory":
        layout = found.record is None and recognise(found.state) is not None
        if arch is None or not layout:
            words += ["--teacher-arch", arch or "ARCH"]
        if arch in UNREADABLE and found.record is None:
            words += ["--teacher-arg", f"{UNREADABLE[arch]}=NAME"]
        if not found.has_normalisation:
            words += ["--teacher-mean", "MEAN", "--teacher-std", "STD"]
    channels = 3 if found.record is None else found.record.input_size[0]
    arguments, _ = smaller_student(parameters, classes or 10, channels)
    student = ["--student", "resnet18", *(word for pair in as_pairs(arguments) for word in ("--student-arg", pair))]
    return " ".join([*words, *student, "--data", "DATA/", "--eps", "8/255", "--out", "student/"])
