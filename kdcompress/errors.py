"""Exceptions that end a run with a clear line and a chosen exit code.

A message says what was expected, what was found and what to do next; options are named as typed.
Only `kdcompress.cli.boundary` turns these into text and exit codes.
"""

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_OK = 0
EXIT_GATE_MISSED = 1
EXIT_CANNOT_RUN = 2
EXIT_BUG = 3
EXIT_SIGNAL = 128
"""And the number of the signal, as shells have it."""
EXIT_INTERRUPTED = 130


class KdcompressError(Exception):
    """The run cannot go on, for a reason that the user can mend: exit code 2, one line on stderr."""

    exit_code = EXIT_CANNOT_RUN


class Stopped(KeyboardInterrupt):
    """A signal has ended the run, where it could end: exit code 128 and the signal's number, as shells have it.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int, told: str = "") -> None:
        super().__init__(told)
        self.number = number


class UsageError(KdcompressError):
    """An option has a value that makes no sense, alone or with the others."""


class CheckpointError(KdcompressError):
    """A model file cannot be read, or does not fit the architecture or the data."""


class DataError(KdcompressError):
    """A data set cannot be read, or is not what it should be."""


class DamagedImageError(DataError):
    """An image cannot be read; others can."""


class TeacherError(KdcompressError):
    """The teacher has no robustness to hand on, or its outputs are not logits."""


def did_you_mean(word: str, choices: Iterable[str], count: int = 3) -> str:
    """A hint naming the choices nearest to `word`, or nothing.

    >>> did_you_mean("resnet81", ["resnet18", "vit_tiny"])
    '; did you mean resnet18?'
    >>> did_you_mean("linf", ["Linf", "L2"])
    '; did you mean Linf?'
    >>> did_you_mean("zzz", ["resnet18"])
    ''
    """
    plain = {choice.lower(): choice for choice in choices}
    near = [plain[one] for one in get_close_matches(word.lower(), plain, n=count, cutoff=0.7)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


class TrainingError(KdcompressError):
    """Training cannot go on: the loss stopped being finite."""


class PeerError(KdcompressError):
    """Another process of a job on several has ended; what it says tells why."""


class ExportError(KdcompressError):
    """A network cannot be written for a runtime, or what was written does not answer as the network does."""


class ReportError(KdcompressError):
    """A report cannot be read, or is not one."""


class UnsupportedLayerError(KdcompressError):
    """Sound bounds cannot pass a network: the message is `not supported: <layer>`, or `too large: ...`."""
