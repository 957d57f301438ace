"""Nested settings as lines."""

from collections.abc import Iterator
from typing import Any


def flat(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value in words), depth first.

    >>> list(flat({"run": {"lr": 0.1, "args": {}, "mean": None}, "sizes": [1, 2]}))
    [('run.lr', '0.1'), ('run.args', 'none'), ('run.mean', 'not set'), ('sizes', '1, 2')]
    """
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _in_words(value)


def _in_words(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | dict) and not value:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(one) for one in value)
    return str(value)
