"""Networks that a user's own function builds: `package.module:function` or `path/to/file.py:function`."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from kdcompress.errors import UsageError, did_you_mean


def is_factory(arch: str) -> bool:
    """Whether `arch` names a function.

    >>> is_factory("examples.nets:small"), is_factory("nets.py:small"), is_factory("resnet18")
    (True, True, False)
    """
    return ":" in arch


def build_with_factory(arch: str, args: Mapping[str, Any], *, flag: str = "--arch") -> nn.Module:
    """The network that the user's function returns when called with `args`.

    The current directory, or the file's own, is importable meanwhile.

    Args:
        arch: `package.module:function` or `path/to/file.py:function`.
        flag: the option that named it, for messages.

    Raises:
        UsageError: if the module, the function, its arguments or its result are not what they should be.
    """
    place, _, name = arch.rpartition(":")
    if not place or not name.isidentifier():
        raise UsageError(f"{flag} must be package.module:function or path/to/file.py:function, got {arch}")
    path = Path(place) if place.endswith(".py") else None
    if path is not None and not path.is_file():
        raise UsageError(f"{flag} {arch}: expected a Python file, found none at {path}; check the path")
    with _importable(path.parent if path else Path()):
        module = _import(place, path, f"{flag} {arch}")
        function = getattr(module, name, None)
        if function is None:
            own = [entry for entry, value in vars(module).items() if callable(value) and not entry.startswith("_")]
            hint = did_you_mean(name, own) or f"; it has {', '.join(own[:5]) or 'no functions'}"
            raise UsageError(f"{flag} {arch}: expected a function {name} in {place}, found none{hint}")
        if not callable(function):
            raise UsageError(f"{flag} {arch}: expected a function, found {type(function).__name__} {name}")
        return _call(function, args, f"{flag} {arch}")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    try:
        yield
    finally:
        if entry in sys.path:  # the user's module may have changed the path itself
            sys.path.remove(entry)


def _import(place: str, path: Path | None, named: str) -> ModuleType:
    try:
        if path is None:
            return importlib.import_module(place)
        alias = f"_kdcompress_factory_{path.stem}"
        spec = importlib.util.spec_from_file_location(alias, path.resolve())
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[alias] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:  # a user's module may fail in any way; a script may exit when imported
        raise UsageError(
            f"{named}: expected an importable module, found {_told(error)}; mend it or the name"
        ) from error


def _call(function: Any, args: Mapping[str, Any], named: str) -> nn.Module:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None  # a callable written in C does not say what it takes
    if signature is not None:
        try:
            signature.bind(**args)
        except TypeError as error:
            given = ", ".join(args) or "none"
            raise UsageError(f"{named}: expected arguments {signature}, got {given}: {error}") from error
    try:
        network = function(**args)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{named}: expected a network, but the call failed with {_told(error)}") from error
    if not isinstance(network, nn.Module):
        kind = f"the class {network.__name__}; call it" if isinstance(network, type) else type(network).__name__
        raise UsageError(f"{named}: expected the function to return a torch.nn.Module, got {kind}")
    return network


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
