"""A run's figures in experiment trackers, while it goes on. Each has a file here, imported where it is named alone.

Figures and settings are called as in metrics.jsonl and student.json: settings with dots between the keys, figures with
slashes, since all three trackers draw those side by side whose names agree up to a slash.
"""

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kdcompress.errors import KdcompressError, UsageError, did_you_mean
from kdcompress.progress import Beginning, Epoch, Listener
from kdcompress.tracking.tracker import Figures, Tracker

PLACES = {"tensorboard": "FOLDER", "wandb": "PROJECT", "mlflow": "EXPERIMENT"}
"""Trackers, and what may be said of where each writes."""
PROJECT = "kdcompress"
"""And experiment, where none is named."""


def asked_for(texts: Iterable[str]) -> dict[str, str | None]:
    """`--log-to` as typed -> where each tracker is to write; None where that is not said.

    >>> asked_for([])
    {}

    Raises:
        UsageError: for a name that no tracker has, or two have; if its package is missing.
    """
    asked: dict[str, str | None] = {}
    for text in texts:
        name, colon, place = text.partition(":")
        if name not in PLACES:
            *others, last = (f"{known}[:{said}]" for known, said in PLACES.items())
            raise UsageError(
                f"--log-to must be {', '.join(others)} or {last}, got {text or 'nothing'}{did_you_mean(name, PLACES)}"
            )
        if colon and not place:
            raise UsageError(f"--log-to {text} names no {PLACES[name].lower()}; name it, or leave the colon out")
        if name in asked:
            raise UsageError(f"--log-to {name} is given twice; name each tracker once")
        if not _is_installed(name):
            raise UsageError(f"--log-to {name} needs {name}: pip install 'kdcompress[{name}]'")
        asked[name] = place or None
    return asked


@contextmanager
def tracked(asked: Mapping[str, str | None], out: Path, listener: Listener) -> Iterator[Listener]:
    """A listener that tells `listener` all, and the trackers a run's figures, for as long as the block runs.

    A tracker that fails once the run has begun is left out from there on, which is noted.

    Args:
        asked: as from `asked_for`.
        out: the run's folder, by whose name it is found.

    Raises:
        UsageError: where the run begins, if a tracker cannot.
    """
    trackers: dict[str, Tracker] = {}
    finished = False

    def began(run: Beginning) -> None:
        listener.began(run)
        for name, place in asked.items():
            trackers[name] = _started(name, place, out, run)
            listener.note(f"figures go to {name}: {_line(trackers[name].where)}")

    def epoch(now: Epoch) -> None:
        listener.epoch(now)
        each(lambda tracker: tracker.epoch(now.step, figures(asdict(now))))

    def ended(record: Mapping[str, Any]) -> None:
        nonlocal finished
        listener.ended(record)
        finished = True
        reached = figures({name: record[name] for name in ("selected", "last", "compression", "cost")})
        each(lambda tracker: tracker.ended(record["cost"]["steps"], reached))

    def each(tell: Callable[[Tracker], None]) -> None:
        for name, tracker in tuple(trackers.items()):
            try:
                tell(tracker)
            except Exception as error:  # of whatever kind: a service must not cost the training
                del trackers[name]
                listener.note(f"--log-to {name} failed and gets no more figures ({_line(error)}); the run goes on")

    try:
        yield replace(listener, began=began, epoch=epoch, ended=ended)
    finally:
        each(lambda tracker: tracker.closed(finished))


def figures(found: Mapping[str, Any]) -> Figures:
    """The numbers among nested values, by their keys.

    >>> figures({"step": 8, "terms": {"ce": 0.5}, "is_best": True, "validated": "raw", "other_validation": None})
    {'step': 8, 'terms/ce': 0.5}
    """
    return {
        name: value
        for name, value in flat(found, "/").items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def flat(found: Mapping[str, Any], between: str) -> dict[str, Any]:
    """Nested values by all their keys.

    >>> flat({"settings": {"run": {"lr": 0.1}, "student": "resnet18"}}, ".")
    {'settings.run.lr': 0.1, 'settings.student': 'resnet18'}
    """
    flattened: dict[str, Any] = {}
    for key, value in found.items():
        inner = flat(value, between) if isinstance(value, Mapping) else None
        flattened |= {key: value} if inner is None else {f"{key}{between}{rest}": of for rest, of in inner.items()}
    return flattened


def _started(name: str, place: str | None, out: Path, run: Beginning) -> Tracker:
    settings = flat({"settings": run.settings, "versions": run.versions}, ".")
    out = out.resolve()
    try:
        if name == "tensorboard":
            from kdcompress.tracking.tensorboard import TensorBoard

            return TensorBoard(out.parent / "tensorboard" if place is None else Path(place), out, run, settings)
        if name == "wandb":
            from kdcompress.tracking.wandb import WeightsAndBiases

            return WeightsAndBiases(place or PROJECT, out.name, run, settings)
        from kdcompress.tracking.mlflow import MLflow

        return MLflow(place or PROJECT, out.name, run, settings)
    except KdcompressError:
        raise
    except Exception as error:  # each package has errors of its own, and those of what it is built on
        raise UsageError(f"--log-to {name} cannot begin: {_line(error)}") from error


def _is_installed(package: str) -> bool:
    """Folders called as trackers are, which lie where they ran, are no packages of theirs."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _line(said: object) -> str:
    """On one line, without the passwords that addresses may hold."""
    return re.sub(r"://[^/\s@]*@", "://", " ".join(str(said).split())) or type(said).__name__
