"""How inputs are normalised: as the file says or as the user says, never guessed."""

from collections.abc import Sequence
from typing import Literal

from kdcompress.errors import CheckpointError, UsageError
from kdcompress.models.checkpoints import Checkpoint
from kdcompress.models.states import normalisation_fault

Numbers = Sequence[float] | Literal["none"] | None
Statistics = tuple[tuple[float, ...] | None, tuple[float, ...] | None]

_SAME = 1e-3  # a quarter of a pixel's step: published statistics are rounded to three or four digits


class Flags:
    """Names of options as the user types them."""

    def __init__(self, option: str) -> None:
        start = f"--{option}-" if option else "--"
        self.arch, self.arg, self.mean, self.std = (f"{start}{name}" for name in ("arch", "arg", "mean", "std"))


def leave_normalisation(mean: Numbers, std: Numbers, name: str, flags: Flags) -> tuple[None, None]:
    """No normalisation before `name`, which has its own.

    Raises:
        UsageError: if one is asked for.
    """
    for value, flag in ((mean, flags.mean), (std, flags.std)):
        if value not in (None, "none"):
            raise UsageError(f"{flag} must be none: {name} normalises its inputs itself, got {_shown(value)}")
    return None, None


def chosen_normalisation(
    checkpoint: Checkpoint, channels: int, mean: Numbers, std: Numbers, flags: Flags
) -> Statistics:
    """(mean, std) per channel from the file or the options; (None, None) if inputs enter as they are.

    Raises:
        UsageError: if neither says anything, they differ, or the options make no sense.
        CheckpointError: if the file's normalisation is for other channels.
    """
    stored = (_per_channel(checkpoint.mean, channels, checkpoint), _per_channel(checkpoint.std, channels, checkpoint))
    if mean is None and std is None:
        if not checkpoint.has_normalisation:
            raise UsageError(
                f"{checkpoint.path}: does not say how its inputs are normalised; give {flags.mean} and {flags.std}, "
                f"or {flags.mean} none if it takes pixels in [0, 1] as they are"
            )
        return stored
    given = _given(mean, std, channels, flags)
    if not checkpoint.has_normalisation:
        return given
    if not all(_close(a, b) for a, b in zip(given, stored, strict=True)):
        raise UsageError(
            f"{flags.mean} and {flags.std} must be those in {checkpoint.path}, {_shown(stored[0])} and "
            f"{_shown(stored[1])}, got {_shown(given[0])} and {_shown(given[1])}; leave them out"
        )
    return stored


def _given(mean: Numbers, std: Numbers, channels: int, flags: Flags) -> Statistics:
    if {mean if isinstance(mean, str) else None, std if isinstance(std, str) else None} - {None, "none"}:
        raise UsageError(f"{flags.mean} and {flags.std} must be numbers or none, got {_shown(mean)} and {_shown(std)}")
    if "none" in (mean, std):
        if not all(value in (None, "none") for value in (mean, std)):
            raise UsageError(f"{flags.mean} and {flags.std} must both be numbers or both none; got one of each")
        return None, None
    if mean is None or std is None:
        lacking, there = (flags.mean, flags.std) if mean is None else (flags.std, flags.mean)
        raise UsageError(f"{lacking} must be given together with {there}, got {there} alone")
    spread: list[tuple[float, ...]] = []
    for values, flag in ((mean, flags.mean), (std, flags.std)):
        if len(values) not in (1, channels):
            raise UsageError(f"{flag} must be {_numbers(channels)}, got {len(values)} numbers")
        spread.append(tuple(float(value) for value in values) * (channels if len(values) == 1 else 1))
    if fault := normalisation_fault(*spread):
        raise UsageError(f"{flags.mean} and {flags.std}: {fault}")
    return spread[0], spread[1]


def _numbers(channels: int) -> str:
    return (
        "one number, since the images have one channel" if channels == 1 else f"one number or {channels}, one a channel"
    )


def _per_channel(values: tuple[float, ...] | None, channels: int, checkpoint: Checkpoint) -> tuple[float, ...] | None:
    if values is not None and len(values) not in (1, channels):
        raise CheckpointError(
            f"{checkpoint.path}: expected a normalisation of {channels} channels, found one of {len(values)}"
        )
    return values * channels if values is not None and len(values) == 1 else values


def _close(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(abs(x - y) <= _SAME for x, y in zip(a, b, strict=True))


def _shown(values: object) -> str:
    if values is None or isinstance(values, str) or not isinstance(values, Sequence):
        return "none" if values is None else str(values)
    return ",".join(f"{value:g}" for value in values)
