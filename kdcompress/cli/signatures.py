"""How a command gets options that are not written in it: the parser reads signatures."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

Command = Callable[..., None]

TYPED = "kdcompress.typed"
"""In a context's `meta`: options as typed, called as fields, for what must be known of them before they are parsed."""


def taking(*blocks: type) -> Callable[[Command], Command]:
    """The command with the options of the blocks beside its own; it gets them in its `**asked`."""
    shared = {
        name: (kind, getattr(block, name, inspect.Parameter.empty))
        for block in blocks
        for name, kind in block.__annotations__.items()
    }
    return lambda command: with_options(command, command, shared)


def with_options(command: Command, wrapped: Command, more: Mapping[str, tuple[Any, Any]]) -> Command:
    """`wrapped`, which looks to the parser like `command` with `more` options: their annotations and defaults."""
    signature = inspect.signature(command)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    new = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in more.items()
    ]
    wrapped.__signature__ = signature.replace(parameters=[*own, *new])  # type: ignore[attr-defined]
    wrapped.__annotations__ = command.__annotations__ | {name: kind for name, (kind, _) in more.items()}
    return wrapped
