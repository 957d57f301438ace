"""Ctrl-C and SIGTERM end a command, even where they fall into code that swallows exceptions.

An `except:` around an import, a callback of the compiler, a destructor: Python prints the KeyboardInterrupt there, or
not even that, and goes on. So what was heard is remembered, and raised again where the command next says how far it is.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from types import FrameType
from typing import Any

from kdcompress.errors import Stopped
from kdcompress.progress import Listener

_heard: list[KeyboardInterrupt] = []
"""What was raised in this command; one that is still here while it works was swallowed."""


@contextmanager
def heard() -> Iterator[None]:
    """SIGINT and SIGTERM raise in the block, so that what is half-done is tidied up."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be heard
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        _heard.append(KeyboardInterrupt() if number == signal.SIGINT else Stopped(number))
        raise _heard[-1]

    before = {
        number: signal.signal(number, hear)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN  # as a shell has it for a job in the background
    }
    try:
        yield
    finally:
        _heard.clear()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def heeding(listener: Listener) -> Listener:
    """The same, which raises first what was swallowed: KeyboardInterrupt or Stopped."""

    def after_heeding(call: Callable[..., None]) -> Callable[..., None]:
        def heed(*told: Any, **more: Any) -> None:
            # Not while something is handled: it may be this very interrupt, on its way.
            if _heard and sys.exc_info()[1] is None and threading.current_thread() is threading.main_thread():
                raise _heard[-1]
            call(*told, **more)

        return heed

    return replace(listener, **{field.name: after_heeding(getattr(listener, field.name)) for field in fields(listener)})
