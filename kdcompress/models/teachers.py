"""Loading any model: our own files from their record, other people's from a layout, a timm name or a factory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from kdcompress.errors import CheckpointError, KdcompressError, UsageError, did_you_mean
from kdcompress.models.arguments import as_json_value, as_python_value
from kdcompress.models.checkpoints import Checkpoint, load_state, read_checkpoint
from kdcompress.models.cost import parameter_count
from kdcompress.models.factories import build_with_factory, is_factory
from kdcompress.models.fitting import RESERVED
from kdcompress.models.layouts import (
    LAYOUTS,
    UNREADABLE,
    assumption,
    build_layout,
    layout_state,
    read_arguments,
    recognise,
)
from kdcompress.models.normalisation import Flags, Numbers, chosen_normalisation, leave_normalisation
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.shrinking import shrink
from kdcompress.models.states import is_average, unwrap_keys
from kdcompress.models.students import build_student
from kdcompress.models.within import within
from kdcompress.settings import ModelFile

Size = tuple[int, int, int]

_SIDE = 32  # of the images of a network that does not say, and whose user does not either


@dataclass(frozen=True)
class LoadedModel:
    """A network ready for use: in eval mode, without gradients for its weights.

    Attributes:
        record: how it was built; with it the model can be saved as a kdcompress file.
        sha256: of the file.
        notes: what was decided on the way that the file does not prove, one sentence each, for stderr.
        runtime: what answers, where that is more than the software of every report.
        tells_size: whether its file tells what images it was made for; else the record's size is that of the data.
    """

    model: nn.Module
    record: ModelRecord
    sha256: str
    path: Path
    notes: tuple[str, ...] = ()
    runtime: str = ""
    tells_size: bool = False

    @property
    def file_bytes(self) -> int:
        """Of the file; of the weights, where the network came from none."""
        weights = self.model.state_dict().values()
        return self.path.stat().st_size if self.path.is_file() else sum(tensor.nbytes for tensor in weights)

    @property
    def line(self) -> str:
        """What was read, for those who want to know."""
        record = self.record
        inside = "inputs enter as they are" if record.mean is None else f"normalised by {record.mean} and {record.std}"
        return f"{self.path}: {record.arch}, {parameter_count(self.model):,} parameters, {inside}, sha256 {self.sha256}"


def load_model(
    path: Path | str,
    *,
    arch: str | None = None,
    args: Mapping[str, Any] | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    classes: Sequence[str] | None = None,
    input_size: Size | None = None,
    option: str = "teacher",
    checkpoint: Checkpoint | None = None,
) -> LoadedModel:
    """Read a model file and build its network.

    >>> from importlib.resources import files
    >>> found = load_model(files("kdcompress") / "assets" / "digits_teacher.safetensors")
    >>> found.record.arch, found.record.input_size, found.model(torch.rand(2, 1, 16, 16)).shape
    ('resnet18', (1, 16, 16), torch.Size([2, 10]))

    A file that kdcompress wrote needs nothing else. For any other file `arch` is, in this order: a user's factory if it
    contains a colon; one of `LAYOUTS`; a timm name. Without it the layout is recognised from the keys. The
    normalisation comes from the file or from `mean` and `std`; it is never guessed.

    Guarantees:
        * nothing in the file is executed, and no code that only the file names is imported: a record that names a
          factory counts only together with the same wish in `arch`;
        * inputs (2, C, H, W) in [0,1] give finite outputs (2, K), K the number of classes.

    Args:
        args: keyword arguments of the builder; for layouts they add to what the keys tell.
        mean, std: one number, one per channel, or "none" for a network that takes [0,1] as it is.
        classes: class names of the data, in the order of the logits.
        input_size: (C, H, W) of the data.
        option: `teacher` or "", the prefix of the options named in messages.
        checkpoint: what is in the file, where that has been read before.

    Raises:
        CheckpointError: if the file cannot be read, or does not fit the network or the data.
        UsageError: if an option makes no sense or is needed.
    """
    flags = Flags(option)
    path = Path(path)
    checkpoint = checkpoint or read_checkpoint(path)
    if checkpoint.record is not None:
        record, network = _from_record(checkpoint, checkpoint.record, arch, args, flags)
        notes: list[str] = []
        check_size(input_size, record.input_size, str(path))
        _load(network, checkpoint, record.source, record.arch)
        statistics = chosen_normalisation(checkpoint, record.input_size[0], mean, std, flags)
    else:
        source, name, built_with, network, notes = _from_foreign(checkpoint, arch, args or {}, classes, flags)
        # Before the normalisation is asked for: with the wrong architecture that question is idle.
        _load(network, checkpoint, source, name)
        size = input_size or _own_size(network, built_with, checkpoint.state)
        if _normalises_itself(network):
            statistics = leave_normalisation(mean, std, name, flags)
            notes.append(f"{name} normalises its inputs itself")
        else:
            statistics = chosen_normalisation(checkpoint, size[0], mean, std, flags)
        record = ModelRecord(
            source=source,
            arch=name,
            args=built_with,
            input_size=size,
            classes=(),
            mean=statistics[0],
            std=statistics[1],
        )
    model = NormalisedModel(network, *statistics).eval().requires_grad_(False)
    outputs = _dummy_outputs(model, input_size or record.input_size, path, flags)
    if classes is not None:
        notes += _check_classes(classes, outputs, record, path)
    if not record.classes:
        names = tuple(classes or (str(number) for number in range(outputs)))
        record = record.model_copy(update={"classes": names})
    tells_size = checkpoint.record is not None
    return LoadedModel(model, record, checkpoint.sha256, path, tuple(notes), tells_size=tells_size)


def load_named(
    file: ModelFile, checkpoint: Checkpoint, *, classes: Sequence[str], input_size: Size, option: str
) -> LoadedModel:
    """The same for settings whose file was read before the data, so that a wrong path is told at once."""
    return load_model(
        file.path,
        arch=file.arch,
        args=file.args,
        mean=file.mean,
        std=file.std,
        classes=classes,
        input_size=input_size,
        option=option,
        checkpoint=checkpoint,
    )


def _from_record(
    checkpoint: Checkpoint, record: ModelRecord, arch: str | None, args: Mapping[str, Any] | None, flags: Flags
) -> tuple[ModelRecord, nn.Module]:
    path = checkpoint.path
    if record.source == "factory":
        # The name stands in the file, and whoever wrote the file could have written any: only the user may start code.
        if arch is None or not is_factory(arch):
            raise UsageError(f"{path}: its network is built by a function, {record.arch}; name it with {flags.arch}")
        built_with = record.args if args is None else _stored(args, flags)
        record = record.model_copy(update={"arch": arch, "args": built_with})
        return record, _shrunk(build_with_factory(arch, as_python_value(built_with), flag=flags.arch), record, path)
    if (arch is not None and arch != record.arch) or (args and _stored(args, flags) != record.args):
        raise UsageError(
            f"{path}: says that it is {record.arch} with its arguments; leave out {flags.arch}, {flags.arg}"
        )
    try:
        with within(checkpoint.state, shrunk=record.shrunk is not None):
            if record.source == "layout":
                return record, _shrunk(build_layout(record.arch, as_python_value(record.args)), record, path)
            # Names with a colon and timm's own loading arguments would fetch or open other files.
            if not timm.is_model(record.arch) or RESERVED & set(record.args):
                told = ", ".join(record.args) or "nothing"
                raise UsageError(f"expected a timm model, found {record.arch} with {told}")
            return record, _shrunk(build_student(record), record, path)
    except UsageError as error:
        raise CheckpointError(f"{path}: its record cannot be followed: {error}") from error


def _shrunk(network: nn.Module, record: ModelRecord, path: Path) -> nn.Module:
    if record.shrunk is not None:
        try:
            shrink(network, record.shrunk)
        except UsageError as error:
            raise CheckpointError(f"{path}: its record cannot be followed: it {error}") from error
    return network


Source = Literal["timm", "layout", "factory"]
Foreign = tuple[Source, str, dict[str, Any], nn.Module, list[str]]


def _from_foreign(
    checkpoint: Checkpoint, arch: str | None, args: Mapping[str, Any], classes: Sequence[str] | None, flags: Flags
) -> Foreign:
    """(source, arch, arguments, network with fresh weights, notes)."""
    stored = _stored(args, flags)
    notes = [f"the weights are the average kept as {checkpoint.origin}"] if is_average(checkpoint.origin) else []
    if arch is not None and is_factory(arch):
        return "factory", arch, stored, build_with_factory(arch, as_python_value(stored), flag=flags.arch), notes
    if arch is None:
        recognised = recognise(checkpoint.state)
        if recognised is None:
            raise UsageError(
                f"{checkpoint.path}: its architecture was not recognised (first keys: {_first_keys(checkpoint)}); name "
                f"a timm model, a layout ({', '.join(LAYOUTS)}), package.module:function or file.py:function with "
                f"{flags.arch}"
            )
        arch = recognised[0]
        notes.append(f"recognised as {arch}")
    if arch not in LAYOUTS:
        return "timm", *_build_timm(arch, stored, checkpoint.state, classes, flags), notes
    read = read_arguments(arch, checkpoint.state)
    if read is None:
        found = _first_keys(checkpoint)
        raise CheckpointError(
            f"{checkpoint.path}: expected the keys of {arch}, found {found}; choose another {flags.arch}"
        )
    needed = UNREADABLE.get(arch)
    if needed is not None and needed not in stored:
        raise UsageError(
            f"{checkpoint.path}: is a {arch}, whose weights do not tell its {needed}; name it, for example "
            f"{flags.arg} {needed}=silu"
        )
    if (assumed := assumption(arch, read, stored)) is not None:
        notes.append(assumed)
    return "layout", arch, read | stored, _build_layout(arch, read | stored, flags), notes


def _first_keys(checkpoint: Checkpoint) -> str:
    return ", ".join(list(checkpoint.state)[:5])


def _build_layout(arch: str, args: Mapping[str, Any], flags: Flags) -> nn.Module:
    try:
        return build_layout(arch, as_python_value(args))
    except UsageError as error:
        raise UsageError(f"{flags.arch} {arch}, {flags.arg}: {error}") from error


def _build_timm(
    arch: str, args: dict[str, Any], state: Mapping[str, Tensor], classes: Sequence[str] | None, flags: Flags
) -> tuple[str, dict[str, Any], nn.Module]:
    """The timm network with the channels and classes of the weights, else of the data."""
    name = arch.removeprefix("timm/")
    if not timm.is_model(name):
        known = [*LAYOUTS, *timm.list_models()]
        hint = did_you_mean(name, known) or "; timm.list_models() names them, file.py:function is your own"
        raise UsageError(f"{flags.arch} must be a timm model, a layout or a function, got {arch}{hint}")
    if taken := sorted(RESERVED & set(args)):
        raise UsageError(f"{flags.arg} {taken[0]} cannot be set: it follows from the weights; leave it out")
    config = timm.models.get_pretrained_cfg(name)
    head = _rows(state, getattr(config, "classifier", None), 0) or len(classes or ()) or None
    channels = _rows(state, getattr(config, "first_conv", None), 1) or 3
    try:
        kwargs = as_python_value(args) | ({} if head is None else {"num_classes": head})
        network: nn.Module = timm.create_model(name, pretrained=False, in_chans=channels, **kwargs)
    except Exception as error:  # timm's networks check their arguments each in its own way
        told = " ".join(str(error).split())
        raise UsageError(f"{flags.arch} {arch} cannot be built with {flags.arg} {args or 'unset'}: {told}") from error
    return name, args, network


def _rows(state: Mapping[str, Tensor], module: object, dimension: int) -> int | None:
    """Size along `dimension` of the weight of `module`, which timm gives as a name or several."""
    name = module if isinstance(module, str) else next(iter(module), "") if isinstance(module, tuple | list) else ""
    weight = state.get(f"{name}.weight")
    return weight.shape[dimension] if weight is not None and weight.ndim > dimension else None


def _own_size(network: nn.Module, args: Mapping[str, Any], state: Mapping[str, Tensor]) -> Size:
    """(C, H, W) that the network was made for, as far as it or its first weights say."""
    config = getattr(network, "pretrained_cfg", None)
    side = (config or {}).get("input_size", (0, _SIDE, _SIDE))[1:]
    if isinstance(asked := args.get("img_size"), int):
        side = (asked, asked)
    first = next((value for value in state.values() if value.ndim == 4), None)
    return (3 if first is None else first.shape[1], *side)


def _normalises_itself(network: nn.Module) -> bool:
    return bool(unwrap_keys(network.state_dict())[1])


def _stored(args: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    return {key: as_json_value(value, f"{flags.arg} {key}") for key, value in args.items()}


def _load(network: nn.Module, checkpoint: Checkpoint, source: Source, arch: str) -> None:
    state: Mapping[str, Tensor] = checkpoint.state
    if source == "layout":
        state = layout_state(arch, state)
    if checkpoint.buffers and _normalises_itself(network):
        state = {**state, **checkpoint.buffers}
    load_state(network, state, what=str(checkpoint.path))


def check_size(found: Size | None, made_for: Size, name: str, *, cure: str = "") -> None:
    """Convolutions run on images of any size, and answer nonsense.

    Args:
        cure: what to do where only the side differs; "" for the option.
    """
    if found is not None and found != made_for:
        shape, own = ("x".join(map(str, size)) for size in (found, made_for))
        cure = cure or f"add --image-size {made_for[1]}"
        cure = cure if found[0] == made_for[0] else "bring images of as many channels"
        raise CheckpointError(f"{name}: expected images of {own}, which it was made for, found {shape}; {cure}")


def _check_classes(classes: Sequence[str], outputs: int, record: ModelRecord, path: Path) -> list[str]:
    """Notes on what the names leave open."""
    if len(classes) != outputs:
        raise CheckpointError(
            f"{path}: expected {len(classes)} classes as in the data, found a network with {outputs}; "
            "choose data and model with the same classes"
        )
    if set(classes) == set(record.classes) and tuple(classes) != record.classes:
        raise CheckpointError(
            f"{path}: expected the classes in the order {', '.join(classes[:4])}, ..., found "
            f"{', '.join(record.classes[:4])}, ...; sort the data's classes as in the model"
        )
    if record.classes and tuple(classes) != record.classes:
        own, found = (", ".join(names[:3]) for names in (record.classes, classes))
        return [f"its classes are named {own}, ..., the data's {found}, ...: taken to be the same, in this order"]
    return []


def _dummy_outputs(model: NormalisedModel, size: Size, path: Path, flags: Flags) -> int:
    """The number of classes, from one forward of two images."""
    inputs = torch.linspace(0, 1, 2 * size[0] * size[1] * size[2]).view(2, *size)
    shape = f"{size[0]}x{size[1]}x{size[2]}"
    try:
        with torch.no_grad():
            logits: object = model(inputs)
    except KdcompressError:
        raise
    except Exception as error:  # whatever a network may raise on images that it was not made for
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: expected a network for images of {shape}, but it failed: {told}; check {flags.arg} and the data"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != 2 or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise CheckpointError(f"{path}: expected outputs of shape (2, classes) for two images, found {found}")
    if not torch.isfinite(logits).all():
        raise CheckpointError(f"{path}: expected finite logits, found NaN or infinity for two images of {shape}")
    return logits.shape[1]
