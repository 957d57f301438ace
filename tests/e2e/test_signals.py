"""Signals that fall where Python loses them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from kdcompress.cli.boundary import boundary
from kdcompress.cli.output import watched
from kdcompress.cli.signals import heard, heeding
from kdcompress.errors import Stopped
from kdcompress.progress import Listener


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Where these tests run in the background, the shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def lose(number: int) -> None:
    """What an `except:` in other people's code does."""
    with suppress(BaseException):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "tell", [lambda listener: listener.note("teacher: clean .9"), lambda listener: listener.count("decode", 1, 2)]
)
def test_what_was_swallowed_ends_the_command_where_it_next_says_something(
    number: int, code: int, tell: Callable[[Listener], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BaseException) as ended, boundary(), watched() as listener:
        lose(number)
        tell(listener)
        pytest.fail("it went on")
    assert getattr(ended.value, "exit_code", None) == code
    assert "nothing was left half-written" in capsys.readouterr().err


def test_an_interrupt_on_its_way_is_not_raised_again_by_what_tidies_up() -> None:
    told: list[str] = []
    listener = heeding(Listener(note=told.append))
    with pytest.raises(Stopped), heard():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            listener.note("tidied up")
    assert told == ["tidied up"]


def test_a_command_does_not_inherit_what_ended_the_one_before() -> None:
    told: list[str] = []
    listener = heeding(Listener(note=told.append))
    with heard():
        lose(signal.SIGINT)
    with heard():
        listener.note("of the next")
    assert told == ["of the next"]


def test_what_the_shell_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
