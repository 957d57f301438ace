"""Reading torch files without running what is in them."""

import pickle
import pickletools
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch

from kdcompress.errors import CheckpointError

_NUMPY_NUMBERS = "?bhilqBHILQefd"
_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]

# What a file may name besides torch's own list (tensors, storages, dtypes, OrderedDict, Counter, set). Fixed: nothing
# is added because a file asks for it. Each only builds a value; none opens, imports, calls or evaluates anything.
_ALLOWED: list[Any] = [
    Namespace,  # the training script's options, kept beside the weights: an object with attributes
    SimpleNamespace,  # the same, from newer scripts
    # Numbers that were computed with numpy (best accuracy, learning rate): bytes and a dtype become one number. Both
    # names of the module, since numpy 2 renamed it.
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    # Arrays of numbers: bytes, a shape and a dtype; numpy checks that they fit.
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in _NUMPY_NUMBERS},  # the classes of number dtypes; object and void are not here
    # Paths among the options: names only, nothing is opened. The pure classes stand in, so that a file from another
    # operating system loads too. Both names of the module, since Python 3.13 renamed it.
    (PurePosixPath, "pathlib.PosixPath"),
    (PurePosixPath, "pathlib._local.PosixPath"),
    (PureWindowsPath, "pathlib.WindowsPath"),
    (PureWindowsPath, "pathlib._local.WindowsPath"),
    torch.torch_version.TorchVersion,  # a string: scripts keep torch.__version__ beside the weights
]


def read_torch_file(path: Path) -> object:
    """What a torch file holds (zip or legacy layout, saved on any device), on the CPU.

    Guarantees:
        Nothing in the file is executed: only the names in torch's weights-only list and in `_ALLOWED` are resolved.

    Raises:
        CheckpointError: if the file is damaged, is no torch file, or names anything else.
    """
    try:
        # A stream, since torch.load goes by the name where it is given one.
        with path.open("rb") as stream, warnings.catch_warnings(), torch.serialization.safe_globals(_ALLOWED):
            warnings.simplefilter("ignore")  # about pickle protocols and TorchScript; what matters is raised below
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged or foreign file makes the reader fail in any way it likes
        raise CheckpointError(_damage(path, str(error))) from error


def _refusal(path: Path, reason: str) -> str:
    named = list(dict.fromkeys(_globals_named(path)))
    match = re.search(r"GLOBAL (\S+)", reason)
    # A newer pickle protocol is refused before its names are looked at: name the first that is not torch's own.
    foreign = [name for name in named if not re.match(r"torch\._utils|torch\.\w*[sS]torage|collections\.", name)]
    refused = match.group(1) if match else next(iter(foreign), None)
    if refused is None:
        return _damage(path, reason)
    if any(name.startswith("torch.nn.modules.") for name in named):
        return (
            f"{path}: expected a state dict, found a whole pickled network ({refused} is refused: unpickling it would "
            "run code); load it where it was made and save model.state_dict() instead"
        )
    return (
        f"{path}: expected tensors, found a pickle that names {refused}, which is refused: unpickling it could run "
        "code; save the state dict alone, or as safetensors"
    )


EXPORTED = {".onnx": "an ONNX file", ".pt2": "a torch.export file", ".engine": "a TensorRT engine"}
"""Programs that run elsewhere, by suffix: no weights to load into a network here."""


def _damage(path: Path, reason: str) -> str:
    kind = EXPORTED.get(path.suffix.lower())
    if kind is not None and (_first_byte(path) not in (b"P", b"\x80") or zipfile.is_zipfile(path)):
        return f"{path}: expected weights, found {kind}; name the safetensors or torch file that it was exported from"
    if "TorchScript" in reason:
        return f"{path}: expected a state dict, found a TorchScript archive; save model.state_dict() instead"
    if "Unsupported operand" in reason and _first_byte(path) == b"\x80":
        return f"{path}: expected a torch checkpoint, found another program's pickle; save the weights with torch.save"
    if _first_byte(path) in (b"P", b"\x80") and not _other_zip(path):
        return f"{path}: expected a torch checkpoint, found one that is truncated or damaged; copy or download it again"
    return f"{path}: expected a safetensors or torch checkpoint, found neither; name a file with a network's weights"


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1)


def _other_zip(path: Path) -> bool:
    """Whether it is a sound zip archive, but none of torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("data.pkl") for name in archive.namelist())
    except Exception:  # a damaged archive fails in many ways
        return False


def _globals_named(path: Path) -> Iterator[str]:
    """The functions and classes that the pickles in the file name, as `module.name`, by reading opcodes only."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith("data.pkl"):
                        with archive.open(member) as stream:
                            yield from _globals_of(stream)
        else:
            with path.open("rb") as stream:
                while True:  # the legacy layout is several pickles in a row, then the raw numbers
                    yield from _globals_of(stream)
    except Exception:  # only used to word a message: what can be read is enough
        return


def _globals_of(stream: IO[bytes]) -> Iterator[str]:
    strings: list[str] = []
    genops: Callable[[IO[bytes]], Iterator[tuple[Any, Any, int | None]]] = pickletools.genops
    for opcode, argument, _ in genops(stream):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)
