"""Model files: our own safetensors with their record, and the torch or safetensors files that people bring."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdcompress.errors import CheckpointError
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.states import (
    BOOKKEEPING,
    common_prefix,
    find_state,
    stored_normalisation,
    unwrap_keys,
    weights_fault,
)
from kdcompress.models.torchfiles import read_torch_file

METADATA_KEY = "kdcompress"
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
_SHOWN = 3  # keys named in a message


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds.

    Attributes:
        state: the weights, on the CPU, under the keys of the bare network.
        record: how to rebuild the network; None in a file that kdcompress did not write.
        mean, std: stored normalisation, one value per channel, units of [0,1]; None where there is none.
        has_normalisation: whether the file says how inputs are normalised (not at all counts as saying).
        sha256: of the file.
        buffers: the normalisation buffers as they lay beside the weights.
        origin: the wrapper keys that led to the weights, such as `state_dict_ema`; empty for a bare state dict.
    """

    state: dict[str, Tensor]
    record: ModelRecord | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    has_normalisation: bool
    sha256: str
    path: Path
    buffers: dict[str, Tensor]
    origin: str = ""


def save_model(path: Path, model: NormalisedModel, record: ModelRecord) -> str:
    """Write the bare network's weights and the record as safetensors; return the file's sha256.

    Guarantees:
        `path` holds either the whole file or what it held before.

    Raises:
        CheckpointError: if the file cannot be written.
        ValueError: if the record's normalisation is not the model's: the file would rebuild another function.
    """
    if not (_agrees(model.mean, record.mean) and _agrees(model.std, record.std)):
        raise ValueError(f"record: {record.mean}, {record.std}; model: {model.mean}, {model.std}")
    # Clones, since safetensors refuses tensors that share memory (tied weights).
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.network.state_dict().items()}
    content = safetensors.torch.save(state, metadata={METADATA_KEY: record.model_dump_json()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file that can be written, found: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def _agrees(held: Tensor | None, told: tuple[float, ...] | None) -> bool:
    if held is None or told is None:
        return held is None and told is None
    # Loosely, for models in half precision.
    return torch.allclose(held.flatten().float().cpu(), torch.tensor(told), atol=0.01)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read weights, and what the file says about them, on the CPU. Nothing in the file is executed.

    The format is told from the content, never from the name. What `find_state` and `unwrap_keys` say about wrappers,
    averages, prefixes and normalisation buffers applies to files that kdcompress did not write; its own files are
    taken as they are.

    Raises:
        CheckpointError: if the file is missing, damaged, no model file, holds code, or has unusable weights.
    """
    head = _first_bytes(path)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    content: object
    record = None
    if _is_safetensors(head):
        content, record = _read_safetensors(path, head)
    else:
        content = read_torch_file(path)
    found = find_state(content)
    if found is None:
        shown = _listed(list(content)) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path}: expected a state dict of tensors, found no weights ({shown or 'nothing'})")
    state, origin = found
    if fault := weights_fault(state):
        raise CheckpointError(f"{path}: {fault}")
    if record is not None:
        return Checkpoint(state, record, record.mean, record.std, True, sha256, path, buffers={})
    state, buffers = unwrap_keys(state)
    try:
        normalisation = stored_normalisation(buffers)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    mean, std = normalisation or (None, None)
    return Checkpoint(state, None, mean, std, normalisation is not None, sha256, path, buffers, origin)


WEIGHTS = ("student.safetensors", "model.safetensors", "pytorch_model.bin")
"""Of a run of ours, and as model hubs have them in a folder."""


def _first_bytes(path: Path) -> bytes:
    """The beginning of the file, if it can be a model's at all."""
    try:
        if path.is_dir():
            inside = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
            what = "the file inside it" if inside is None else inside
            raise CheckpointError(f"{path}: expected a model file, found a folder; name {what}")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path}: expected a model file, found a pipe or device; name a file on the disk")
        with path.open("rb") as stream:
            head = stream.read(512)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: expected a model file, found nothing there; check the path") from None
    except OSError as error:
        raise CheckpointError(f"{path}: expected a readable model file, found: {error.strerror}") from error
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        raise CheckpointError(f"{path}: expected a model file, found an empty one; copy or download it again")
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")):
        raise CheckpointError(
            f"{path}: expected a model file, found a web page, probably a failed download; download the file itself"
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: expected a model file, found a git-lfs pointer; run `git lfs pull` to fetch it")
    if text.startswith((b"{", b"[")):
        raise CheckpointError(
            f"{path}: expected a model file, found JSON; name the .safetensors or torch file with the weights"
        )
    return head


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes with the length of a header, then the header in JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _read_safetensors(path: Path, head: bytes) -> tuple[dict[str, Tensor], ModelRecord | None]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        cut = 8 + int.from_bytes(head[:8], "little") > path.stat().st_size or "incomplete" in str(error)
        what = "a truncated one" if cut else f"an unreadable one ({error})"
        raise CheckpointError(
            f"{path}: expected a safetensors file, found {what}; copy or download it again"
        ) from error
    if METADATA_KEY not in metadata:
        return state, None
    try:
        return state, ModelRecord.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise CheckpointError(
            f"{path}: expected a record that this version of kdcompress knows, found {where}: {first['msg']}; "
            "update kdcompress, or write the file again"
        ) from error


def load_state(network: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Load `state` into `network`: every weight must be there, with its shape, and nothing else.

    Counters that no network reads in eval mode may be missing or left over, and a normalisation that the network's
    builder has set may be missing. A wrapper's prefix (`model.` in a network that keeps another as `self.model`) may
    be missing or left over.

    Args:
        network: changed in place; left as it was if the state does not fit.
        what: names the state in messages, usually the file.

    Raises:
        CheckpointError: naming the first keys that are missing, left over, or of another shape.
    """
    own = network.state_dict()
    names, constants = _full_names(own)
    outer = common_prefix(state)
    given = {key if key in own else names.get(key.removeprefix(outer), key): value for key, value in state.items()}
    missing = [key for key in own if key not in given and not key.endswith(BOOKKEEPING) and key not in constants]
    extra = [key for key in given if key not in own and not key.endswith(BOOKKEEPING)]
    reshaped = [key for key in own if key in given and own[key].shape != given[key].shape]
    if missing or extra or reshaped:
        parts = [
            f"{len(missing)} missing from the file ({_listed(missing)})" if missing else "",
            f"{len(extra)} that the network does not have ({_listed(extra)})" if extra else "",
            f"{len(reshaped)} of another shape ({_shapes(reshaped, given, own)})" if reshaped else "",
        ]
        advice = "; name the architecture and arguments that it was trained with"
        if not missing and not extra and (classes := _other_classes(reshaped, given, own)):
            advice = f"; only the classifier differs: the file has {classes[0]} classes, the network {classes[1]}"
        raise CheckpointError(f"{what}: expected the weights of {_name(network)}, found {_join(parts)}{advice}")
    network.load_state_dict({key: value for key, value in given.items() if key in own}, strict=False)


def _full_names(own: Mapping[str, Tensor]) -> tuple[dict[str, str], set[str]]:
    """The network's keys by what `unwrap_keys` leaves of them, and those of its normalisation."""
    full = {id(value): key for key, value in own.items()}
    bare, buffers = unwrap_keys(own)
    names = {key: full[id(value)] for key, value in (bare | buffers).items()}
    return names, {names[key] for key in buffers}


def _other_classes(
    keys: Sequence[str], given: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[int, int] | None:
    """(classes in the file, classes of the network) if only one module's outputs differ in number."""
    one_module = len({key.rpartition(".")[0] for key in keys}) == 1
    if not one_module or any(given[key].ndim == 0 or given[key].shape[1:] != own[key].shape[1:] for key in keys):
        return None
    return given[keys[0]].shape[0], own[keys[0]].shape[0]


def _shapes(keys: Sequence[str], given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    return _listed([f"{key}: file {tuple(given[key].shape)}, network {tuple(own[key].shape)}" for key in keys])


def _listed(names: Sequence[object]) -> str:
    return ", ".join(str(name) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _join(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part)


def _name(network: nn.Module) -> str:
    return type(network).__name__
