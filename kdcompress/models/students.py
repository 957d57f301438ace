"""Students: any timm network, fitted to the size, channels and classes of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdcompress.errors import CheckpointError, UsageError, did_you_mean
from kdcompress.models.arguments import as_json_value, as_python_value, parse_arguments
from kdcompress.models.fitting import RESERVED, accepted_arguments, candidates, one_line
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.small_images import Shape, apply_changes, skips_pixels
from kdcompress.models.small_images import total_stride as measured_stride

__all__ = ["build_student", "create_student", "load_starting_weights", "parse_arguments"]


def create_student(
    arch: str,
    args: Mapping[str, Any],
    *,
    classes: Sequence[str],
    input_size: Shape,
    total_stride: int | None = None,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[NormalisedModel, ModelRecord]:
    """A timm network with fresh weights for images of `input_size`, and the record that rebuilds it.

    Images smaller than those the network was made for would end as one position. So the earliest strides become 1 (same
    weights, pools removed) until at least 4x4 positions are left; a network with `patch_size` gets smaller patches (8x8
    tokens, or 4x4 in its last stage) and one with `img_size` the images' size, unless `args` names them. If the network
    cannot take that stride, the nearest is chosen that it can take.

    Guarantees:
        * the student does a forward and a backward at `input_size` in train mode with a batch of 2;
        * `build_student(record)` is the same network: under the same seed it has the same weights;
        * the global random state moves by one construction of the network, however many were tried.

    Args:
        arch: a timm name; a leading "timm/" or "timm:" is dropped.
        args: keyword arguments of `timm.create_model`.
        classes: class names, in the order of the logits.
        input_size: (C, H, W) of the images.
        total_stride: image side / side of the final map, a power of two; chosen by the rule above if None.
        mean, std: per-channel normalisation, units of [0,1].

    Raises:
        UsageError: if the name or an argument is unknown to timm, or the network cannot take such images.
    """
    name = _known_name(arch)
    stored = {key: as_json_value(value, f"--student-arg {key}") for key, value in args.items()}
    _refuse_reserved(stored)
    if total_stride is not None and (total_stride < 1 or total_stride & (total_stride - 1)):
        raise UsageError(f"--student-stride must be a power of two such as 1, 2, 4 or 8, got {total_stride}")
    plain = ModelRecord(
        source="timm",
        arch=name,
        args=stored,
        input_size=input_size,
        classes=tuple(classes),
        mean=tuple(mean),
        std=tuple(std),
    )
    with torch.random.fork_rng(devices=[]):
        record = _fitted(plain, total_stride)
    return NormalisedModel(build_student(record), mean, std), record


def build_student(record: ModelRecord) -> nn.Module:
    """The bare network that `record` describes, with fresh weights.

    Raises:
        UsageError: if timm does not know the name or an argument; if a change names a module that is not there.
    """
    channels = record.input_size[0]
    kwargs = as_python_value(record.args)
    try:
        network: nn.Module = timm.create_model(
            record.arch, pretrained=False, num_classes=len(record.classes), in_chans=channels, **kwargs
        )
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(_why_not_built(record, error)) from error
    try:
        apply_changes(network, record.changes)
    except (AttributeError, ValueError) as error:
        raise UsageError(f"{record.arch} cannot be changed as it says: {one_line(error)}") from error
    return network


def load_starting_weights(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load `state` into `network`; the classifier and the first layer may differ.

    Returns:
        The names of the weights that kept their fresh values, or were in `state` to no use: all of them in the
        classifier or the first layer, because classes or channels differ. Empty if everything fitted.

    Raises:
        CheckpointError: if anything else is missing, left over or of another shape; nothing is loaded then.
    """
    own = network.state_dict()
    unfit = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    unfit += [key for key in state if key not in own]
    # Counters that old files lack, and that nothing reads but BatchNorm with momentum None.
    unfit = [key for key in unfit if not key.endswith("num_batches_tracked")]
    replaceable = _first_and_last(network)
    foreign = [key for key in unfit if not any(key.startswith(f"{prefix}.") for prefix in replaceable)]
    if foreign:
        told = "; ".join(
            f"{key}: expected {_shape(own.get(key))}, found {_shape(state.get(key))}" for key in foreign[:3]
        )
        raise CheckpointError(
            f"starting weights must fit the student but for its classifier and first layer; "
            f"{len(foreign)} weights do not, first {told}; check --student and --student-arg"
        )
    network.load_state_dict({key: state[key] for key in own if key in state and key not in unfit}, strict=False)
    return unfit


def _known_name(arch: str) -> str:
    name = arch.removeprefix("timm/").removeprefix("timm:")
    # A colon would send timm to a model hub or to a folder.
    if ":" in name or not timm.is_model(name):
        hint = did_you_mean(name.partition(".")[0], timm.list_models()) or "; timm.list_models() names them all"
        raise UsageError(f"--student must be the name of a timm model, got {arch}{hint}")
    return name


def _refuse_reserved(args: Mapping[str, Any]) -> None:
    taken = sorted(RESERVED & set(args))
    if taken:
        raise UsageError(f"--student-arg {taken[0]} cannot be set: it follows from the data; leave it out")


def _fitted(plain: ModelRecord, stride: int | None) -> ModelRecord:
    """`plain` with the arguments and changes that its images need."""
    reasons: list[str] = []
    working: list[tuple[int, ModelRecord]] = []
    for record, wanted in candidates(build_student(plain), plain, stride):
        try:
            found = _stride_in_training(record)
        except Exception as error:  # whatever a network may raise on images that it was not made for
            reasons.append(one_line(error))
            continue
        patched = "patch_size" in record.args and "patch_size" not in plain.args
        if patched and skips_pixels(build_student(record), record.input_size):
            reasons.append(f"with patch_size={record.args['patch_size']} it skips pixels")
        elif stride is not None and patched and found != stride:
            # A later stride made up for the smaller patches. Surgery keeps to its goal by construction.
            reasons.append(f"with patch_size={record.args['patch_size']} its stride is {found}")
        elif stride is not None or found <= wanted:
            return record
        else:
            working.append((found, record))
    if working:
        return min(working, key=lambda pair: pair[0])[1]
    channels, height, width = plain.input_size
    # The first candidate is the one that would suit best, so its failure says most.
    reason = reasons[0] if reasons else "its strides cannot be reduced so far"
    raise UsageError(
        f"--student {plain.arch} must take {height}x{width} images with {channels} channels, but fails: {reason}; "
        "try another --student-stride, --student-arg img_size or patch_size, or another --student"
    )


def _stride_in_training(record: ModelRecord) -> int:
    """The total stride at its image size of a network that is trained for a step; raises what the network raises."""
    network = build_student(record).train()
    logits = network(torch.rand(2, *record.input_size))
    if not isinstance(logits, Tensor) or logits.shape != (2, len(record.classes)):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"its output must be logits of shape (2, {len(record.classes)}), got {found}")
    torch.autograd.backward(logits.sum())
    return measured_stride(network, record.input_size)


def _why_not_built(record: ModelRecord, error: Exception) -> str:
    text = one_line(error)
    wrong = next((key for key in record.args if f"'{key}'" in text), None)
    if isinstance(error, TypeError) and "unexpected keyword" in text and wrong is not None:
        try:
            accepted = accepted_arguments(build_student(record.model_copy(update={"args": {}})))
        except UsageError:
            accepted = []
        return (
            f"--student-arg {wrong} is no argument of {record.arch}{did_you_mean(wrong, accepted)}"
            f"{'; it takes ' + ', '.join(accepted) if accepted else ''}"
        )
    given = ", ".join(f"{key}={value!r}" for key, value in record.args.items())
    return f"--student {record.arch} cannot be built{' with --student-arg ' + given if given else ''}: {text}"


def _first_and_last(network: nn.Module) -> list[str]:
    """Module names of the classifier and of the first layer, as timm declares them."""
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    names: list[str] = []
    for entry in ("classifier", "first_conv"):
        value = config.get(entry) or ()
        names.extend((value,) if isinstance(value, str) else value)
    return names


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else str(tuple(value.shape))
