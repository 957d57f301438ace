"""The one place where exceptions become text and exit codes."""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from kdcompress.cli.output import VERBOSE, unwritten
from kdcompress.cli.signals import heard
from kdcompress.errors import EXIT_BUG, EXIT_CANNOT_RUN, EXIT_INTERRUPTED, EXIT_SIGNAL, KdcompressError, Stopped

_NO_MEMORY = "can't allocate memory"
"""In the plain RuntimeError that PyTorch raises for want of memory on a CPU."""


@contextmanager
def boundary() -> Iterator[None]:
    """Known errors end in one line and exit code 2, Ctrl-C in 130, SIGTERM in 143, the rest in a traceback and 3."""
    try:
        with heard():
            yield
    except typer.Exit:  # a command that chose its exit code
        raise
    except KdcompressError as error:
        if VERBOSE.get():
            traceback.print_exc()
        _stop(f"error: {' '.join(str(error).split())}", error.exit_code)
    except Stopped as stopped:
        _stop(str(stopped) or "terminated; nothing was left half-written", EXIT_SIGNAL + stopped.number)
    except KeyboardInterrupt:
        _stop("interrupted; nothing was left half-written", EXIT_INTERRUPTED)
    except BrokenPipeError as error:
        unwritten(error)
        raise typer.Exit(EXIT_CANNOT_RUN) from None
    except Exception as error:
        if (known := _known(error)) is not None:
            _stop(f"error: {known}", EXIT_CANNOT_RUN)
        traceback.print_exc()
        _stop(f"this is a bug in kdcompress; please report it with the lines above ({_versions()})", EXIT_BUG)


def _known(error: Exception) -> str | None:
    """The line for failures of the machine rather than of the program."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, writing {error.filename or 'a file'}; free some space and run again"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(error):
        return "out of memory; use a smaller --batch-size or --image-size"
    return None


def _stop(line: str, code: int) -> None:
    typer.echo(line, err=True)
    raise typer.Exit(code)


def _versions() -> str:
    from kdcompress.versions import versions

    return ", ".join(f"{name} {number}" for name, number in versions().items())
