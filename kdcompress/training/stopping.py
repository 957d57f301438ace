"""Ctrl-C and SIGTERM while a network is trained: heeded between two steps, so that what was done is not lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kdcompress.errors import Stopped


class Stop:
    """Whether a signal has asked the run to end."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def heed(self) -> None:
        """Called where the run can end.

        Raises:
            Stopped: if it has been asked to.
        """
        if self.signal is not None:
            raise Stopped(self.signal)

    def obey(self) -> None:
        """End the run, since this process or another of the job has been asked to.

        Raises:
            Stopped: always.
        """
        raise Stopped(signal.SIGTERM if self.signal is None else self.signal)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:  # asked again: at once, wherever the run is
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def gently() -> Iterator[Stop]:
    """Signals are heeded by `Stop.heed` alone while the block runs; outside the main thread they go their usual way."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
