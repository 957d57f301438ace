"""Keyword arguments written on the command line as `key=value`. No torch here: usage errors answer at once."""

import ast
import json
from collections.abc import Sequence
from typing import Any

from kdcompress.errors import UsageError


def parse_arguments(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """The keyword arguments that `pairs` spell: Python literals where they are ones, else strings.

    >>> parse_arguments(["layers=1,1,1,1", "drop_path_rate=0.1", "act_layer=silu"], "--student-arg")
    {'layers': (1, 1, 1, 1), 'drop_path_rate': 0.1, 'act_layer': 'silu'}

    Args:
        pairs: texts such as `channels=8,16,24,32`; spaces around either side are dropped.
        option: the option as typed, for messages.

    Raises:
        UsageError: if a pair has no key or no "=", a key comes twice, or a value could not be stored as JSON.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not key.isidentifier():
            raise UsageError(f"{option} must be key=value, got {pair!r}: write for example {option} drop_path_rate=0.1")
        if key in arguments:
            raise UsageError(f"{option} {key} was given twice: {arguments[key]!r} and {text!r}; keep one")
        arguments[key] = _literal(text)
        as_json_value(arguments[key], f"{option} {key}")
    return arguments


def as_json_value(value: Any, name: str) -> Any:
    """`value` as it comes back from a JSON file: tuples are lists.

    Raises:
        UsageError: if JSON has no such value.
    """
    try:
        stored = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} must be a number, a string, True, False, None, or a tuple or dict of these, "
            f"got {value!r}: the model file could not hold it"
        ) from None
    return stored


def as_python_value(value: Any) -> Any:
    """The inverse of `as_json_value`: lists are tuples again, since timm takes tuples everywhere.

    >>> as_python_value({"layers": [1, [2, 3]]})
    {'layers': (1, (2, 3))}
    """
    if isinstance(value, list | tuple):
        return tuple(as_python_value(item) for item in value)
    if isinstance(value, dict):
        return {key: as_python_value(item) for key, item in value.items()}
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
