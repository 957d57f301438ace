"""Any result, as the command that makes it prints it."""

from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType

from kdcompress.bench import Bench
from kdcompress.certification import Certification
from kdcompress.comparison import Comparison
from kdcompress.export.record import Export
from kdcompress.models.inspection import Inspection
from kdcompress.plan import Plan
from kdcompress.render import console
from kdcompress.render.bench import costs
from kdcompress.render.certification import certification
from kdcompress.render.comparison import side_by_side
from kdcompress.render.export import described
from kdcompress.render.inspection import inspected
from kdcompress.render.plan import planned
from kdcompress.report import Report, Result
from kdcompress.training.run_record import RunRecord

RENDERED: dict[type[Result], Callable[[Any], RenderableType]] = {
    Report: console.evaluation,
    Certification: certification,
    Comparison: side_by_side,
    RunRecord: console.run_summary,
    Export: described,
    Inspection: inspected,
    Bench: costs,
    Plan: planned,
}


def show(result: Result) -> None:
    """Print a result as its command prints it: on the terminal, or in a notebook's cell.

    >>> from importlib.resources import files
    >>> from kdcompress import inspect, show
    >>> show(inspect(files("kdcompress") / "assets" / "digits_teacher.safetensors"))
    file          ...digits_teacher.safetensors...

    Raises:
        TypeError: for what is no result of kdcompress.
    """
    if type(result) not in RENDERED:
        known = ", ".join(kind.__name__ for kind in RENDERED)
        raise TypeError(f"expected one of {known}, got {type(result).__name__}")
    console.show(Console(), RENDERED[type(result)](result))
