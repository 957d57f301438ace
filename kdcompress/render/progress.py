"""Live progress on a terminal; plain lines where stderr is none."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from kdcompress.progress import AttackProgress, Epoch, Listener, Step
from kdcompress.render.words import duration
from kdcompress.threat import render_eps

WIDE = 100
"""Columns of a terminal with room for a bar beside the figures."""


EVERY = 30.0
"""Seconds after which a line is written again where nothing else was said: a slow image is no stuck run."""


@contextmanager
def listening(console: Console, *, every: float = EVERY) -> Iterator[Listener]:
    """A listener that shows a run on `console` (stderr), for as long as the block runs."""
    with _bars(console) if console.is_terminal or _has_widgets(console) else _lines(console, every) as listener:
        yield listener


def show_progress() -> AbstractContextManager[Listener]:
    """A listener that shows a run as the commands do, on stderr or in a notebook's cell, for as long as the block runs.

    In a notebook with ipywidgets it is a bar, elsewhere without a terminal plain lines.

    >>> from kdcompress import load_data, show_progress
    >>> with show_progress() as listener:
    ...     _ = load_data("digits", on_progress=listener.count)
    """
    return listening(Console(stderr=True))


def _has_widgets(console: Console) -> bool:
    """Whether rich can move a bar in a notebook."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


@contextmanager
def _bars(console: Console) -> Iterator[Listener]:
    columns = (  # in the order of worth: a narrow terminal cuts the last
        TextColumn("{task.description}"),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[detail]}"),
        *([BarColumn(bar_width=20)] if console.width >= WIDE else []),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def show(label: str, done: int, total: int, detail: str = "") -> None:
            if label not in tasks:
                for task in tasks.values():  # one bar at a time: what is finished is history
                    bars.update(task, visible=False)
                tasks[label] = bars.add_task(label, total=total, detail=detail)
            bars.update(tasks[label], completed=done, total=total, detail=detail)

        def step(now: Step) -> None:
            if now.terms:
                detail = (
                    f"{duration(now.seconds_left)} left  {terms(now.terms, now.weights)}  "
                    f"{now.images_per_second:.0f} images/s"
                )
                show("training", now.step, now.steps, detail)

        def attack(name: str, now: AttackProgress) -> None:
            show(f"{name}: {now.stage}", now.done, now.images, attack_detail(now))

        yield Listener(
            note=lambda text: console.print(text, highlight=False, markup=False),
            count=show,
            attack=attack,
            step=step,
            epoch=lambda epoch: _tell_epoch(console, epoch),
        )


@contextmanager
def _lines(console: Console, every: float) -> Iterator[Listener]:
    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    seen: set[str] = set()
    counted: list[_Counted] = []  # one at most: what is being counted now

    def count(label: str, done: int, total: int, detail: str = "") -> None:
        if label not in seen:
            seen.add(label)
            tell(label)
        if not counted or counted[0].label != label:
            counted[:] = [_Counted(label, done, done, total, time.monotonic())]
        counted[:] = [replace(counted[0], done=done, total=total)] if done < total else []

    def again() -> None:
        while not over.wait(every):
            for now in tuple(counted):
                tell(now.line(time.monotonic()))

    def epoch(now: Epoch) -> None:
        counted.clear()
        _tell_epoch(console, now)

    def attack(name: str, now: AttackProgress) -> None:
        counted.clear()
        place = f"{name}: chunk {now.chunk} of {now.chunks}, {now.stage}"
        if now.eps is not None:
            place += f" at eps {render_eps(now.eps)}"
        if place not in seen:
            seen.add(place)
            tell(f"{place}, on {attack_detail(now)}")

    over = threading.Event()
    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield Listener(note=tell, count=count, attack=attack, epoch=epoch)
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class _Counted:
    """What is counted, from `first` on, since when."""

    label: str
    first: int
    done: int
    total: int
    began: float

    def line(self, now: float) -> str:
        """With the time left, where there is a pace to tell it by."""
        text = f"{self.label}: {self.done} of {self.total}"
        if self.done == self.first:
            return text
        left = (now - self.began) / (self.done - self.first) * (self.total - self.done)
        return f"{text}, {duration(left)} left"


def attack_detail(now: AttackProgress) -> str:
    """Images left standing, and time left where there is a pace to tell it by."""
    left = "" if now.seconds_left is None else f", {duration(now.seconds_left)} left"
    return f"{now.standing} of {now.tried} standing{left}"


def terms(values: dict[str, float], weights: dict[str, float]) -> str:
    """Losses by name, on one line, without those that weigh nothing."""
    return "  ".join(f"{name} {value:.3g}" for name, value in values.items() if weights.get(name, 1) > 0)


def _tell_epoch(console: Console, epoch: Epoch) -> None:
    if epoch.validation is None:
        return
    seen = epoch.validation
    weights = f" ({epoch.validated} weights)"
    best = "  best so far" if epoch.is_best else ""
    noisy = "" if seen.noisy_accuracy is None else f", under noise {seen.noisy_accuracy:.3f}"
    console.print(
        f"epoch {epoch.epoch}: {terms(epoch.terms, epoch.weights)}  held-out clean {seen.clean_accuracy:.3f}, "
        f"PGD-10 {seen.robust_accuracy:.3f}{noisy}{weights}{best}",
        highlight=False,
        markup=False,
        soft_wrap=not console.is_terminal,
    )
