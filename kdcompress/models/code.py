"""The code behind a network, as far as it is not a published package's."""

import hashlib
import inspect
import sys
from pathlib import Path

from torch import nn

PUBLISHED = frozenset({"torch", "torchvision", "timm", "kdcompress"})
"""Whose versions are known."""


def code_of(model: nn.Module, arch: str = "") -> str:
    """sha256 of the files that define the classes of a network's modules, and of its factory's own file.

    What these import is not seen: who keeps something by this hash compares the network's answers too.

    Args:
        arch: how it was built; `file.py:function` and `package.module:function` name a file.
    """
    files = set(_factory_file(arch))
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


def _factory_file(arch: str) -> list[str]:
    place, _, _ = arch.rpartition(":")
    if place.endswith(".py"):
        return [str(Path(place).resolve())]
    found = getattr(sys.modules.get(place), "__file__", None)
    return [] if found is None or place.partition(".")[0] in PUBLISHED else [found]
