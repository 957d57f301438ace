"""Safetensors larger than memory: written part by part, read as a map of the file."""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

Shape = tuple[int, ...]
Arrays = Mapping[str, NDArray[Any]]

_KINDS: dict[str, type[np.floating[Any]]] = {"F16": np.float16, "F32": np.float32}
_DTYPES = {"F16": torch.float16, "F32": torch.float32}


def file_size(shapes: Mapping[str, tuple[str, Shape]]) -> int:
    """Bytes of the tensors; the header comes on top, which is a few hundred."""
    return sum(_bytes(kind, shape) for kind, shape in shapes.values())


def write_mapped(path: Path, shapes: Mapping[str, tuple[str, Shape]], fill: Callable[[Arrays], None]) -> None:
    """A safetensors file at `path`, whose tensors `fill` writes into a map of it.

    Guarantees:
        `path` holds either the whole file or what it held before.

    Args:
        shapes: name -> (F16 or F32, shape); F16 last, so that every tensor is aligned.

    Raises:
        OSError: if it cannot be written.
    """
    header: dict[str, object] = {}
    starts: dict[str, int] = {}
    end = 0
    for name, (kind, shape) in shapes.items():
        starts[name], end = end, end + _bytes(kind, shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [starts[name], end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    before = 8 + len(text)
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as stream:  # with the mode that files have here: others may read a shared cache
            stream.write(len(text).to_bytes(8, "little") + text)
            _reserve(stream, before + end)
        arrays = {
            name: np.memmap(temporary, _KINDS[kind], "r+", before + starts[name], shape)
            for name, (kind, shape) in shapes.items()
        }
        fill(arrays)
        for array in arrays.values():
            array.flush()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_mapped(path: Path, shapes: Mapping[str, tuple[str, Shape]]) -> dict[str, Tensor] | None:
    """The tensors as maps of the file; None where there is no such file, or one with other tensors.

    Raises:
        OSError: if it is there and may not be read.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if set(file.keys()) != set(shapes):
                return None
            found = {name: file.get_tensor(name) for name in shapes}
    except (FileNotFoundError, SafetensorError):
        return None
    fits = all(
        found[name].dtype == _DTYPES[kind] and found[name].shape == shape for name, (kind, shape) in shapes.items()
    )
    return found if fits else None


def sweep(folder: Path, age: float) -> None:
    """Remove what killed runs have left half-written, if older than `age` seconds: a younger one may be at work."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > age:
                part.unlink()


def _reserve(stream: IO[bytes], size: int) -> None:
    """So that a full disk is an error here, and not the end of the process on the first page that has no room."""
    if hasattr(os, "posix_fallocate"):
        stream.flush()
        os.posix_fallocate(stream.fileno(), 0, size)
    else:
        stream.truncate(size)


def _bytes(kind: str, shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(_KINDS[kind]).itemsize
