"""Where text goes: results to stdout, everything else to stderr."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

from rich.console import Console, RenderableType

from kdcompress.cli.options import Format
from kdcompress.cli.signals import heeding
from kdcompress.errors import UsageError
from kdcompress.files import write_whole
from kdcompress.progress import Listener

QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether --quiet was typed: results and errors alone are written."""
VERBOSE: ContextVar[bool] = ContextVar("verbose", default=False)
"""Whether --verbose was typed: where options come from, what was read and kept, an error's traceback."""


def stderr() -> Console:
    """For progress, notes and hints."""
    return Console(stderr=True, quiet=QUIET.get())


@contextmanager
def watched() -> Iterator[Listener]:
    """A listener that shows a run on stderr, for as long as the block runs; with --verbose it says details too."""
    from kdcompress.render.progress import listening

    with listening(stderr()) as listener:
        yield heeding(replace(listener, detail=listener.note) if VERBOSE.get() else listener)


def deliver(json: str, table: RenderableType, form: Format, files: Mapping[Path | None, bytes]) -> None:
    """The result into its files and on stdout; a file that cannot be written does not cost the reader the rest.

    Raises:
        UsageError: if a file cannot be written.
    """
    failed, places = [], ["on stdout"]
    for path, content in files.items():
        try:
            if path is not None:
                write_whole(path, content)
                places.append(f"in {path}")
        except OSError as error:
            failed.append(f"{path} cannot be written ({error.strerror or error})")
    emit(json, table, form)
    if failed:
        *others, last = places
        stands = f"{', '.join(others)} and {last}" if others else last
        raise UsageError(f"{'; '.join(failed)}; the result stands {stands}")


def speaks() -> bool:
    """Whether this process prints the result: one of those that torchrun starts."""
    return os.environ.get("RANK", "0") == "0" or "TORCHELASTIC_RUN_ID" not in os.environ


def emit(json: str, table: RenderableType, form: Format) -> None:
    """The result on stdout: JSON and nothing else, or the table."""
    from kdcompress.render.console import show

    try:
        if form is Format.json:
            print(json)
        else:
            show(Console(), table)
        if sys.stdout is not None:  # it is where a shell closed it
            sys.stdout.flush()  # a reader who left is heard of here, not when Python has gone
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence_stdout()
        raise UsageError(f"stdout cannot be written ({error.strerror or error})") from error


def unwritten(error: OSError) -> None:
    """Say that stdout cannot be written, unless its reader left (`| head`)."""
    if not isinstance(error, BrokenPipeError):
        print(f"error: stdout cannot be written ({error.strerror or error})", file=sys.stderr)
    _silence_stdout()


def _silence_stdout() -> None:
    """What is still to be written is lost; without this Python would say so at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_to_job_summary(markdown: str) -> None:
    """Append to the page that GitHub shows of a job, where there is one; a summary lost costs the job nothing."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{markdown}\n")
        except OSError as error:
            stderr().print(f"note: GitHub's job summary cannot be written ({error.strerror or error})", markup=False)
