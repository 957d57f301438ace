"""The code behind a network, as far as it is not a published package's."""

import hashlib
import inspect
from pathlib import Path

from torch import nn

PUBLISHED = frozenset({"torch", "torchvision", "timm", "kdcompress"})
"""Whose versions are known."""


def code_of(model: nn.Module) -> str:
    """sha256 of the files that define the classes of a network's modules; what these import is not seen."""
    files = set()
    for kind in {type(module) for module in model.modules()}:
        if kind.__module__.partition(".")[0] not in PUBLISHED:
            try:
                files.add(inspect.getfile(kind))
            except (OSError, TypeError):  # made in a running program
                continue
    seen = hashlib.sha256()
    for file in sorted(files):
        content = Path(file).read_bytes() if Path(file).is_file() else b""
        seen.update(hashlib.sha256(content).digest())
    return seen.hexdigest()
