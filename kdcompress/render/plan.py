"""What a run will take, as a table."""

import math
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdcompress.plan import LIBRARIES, READ_MS, UNUSED, Plan
from kdcompress.render.words import count


def planned(plan: Plan) -> Group:
    """A row for every number of GPUs, and what the figures rest on."""
    table = Table(show_edge=False, pad_edge=False)
    heads = ("GPUs", "images each", "memory each", "step", "of it averaging", "images/s", "hours", "GPU hours")
    for head in (*heads, "cores each"):
        table.add_column(head, justify="right")
    for row in plan.rows:
        table.add_row(
            str(row.gpus),
            f"{row.images}" + (f", {row.micro_batch} at a time" if row.micro_batch else ""),
            _bytes(row.memory) + ("" if row.fits else ", too much"),
            f"{_digits(1000 * row.step)} ms",
            f"{row.exchange / row.step:.0%}",
            f"{row.images_per_second:,.0f}",
            _digits(row.hours),
            _digits(row.gpu_hours),
            "-" if row.cores is None else f"{math.ceil(row.cores)}",
        )
    asked = plan.settings
    return Group(
        Text(
            f"{plan.teacher} ({count(plan.teacher_params)} parameters) into {plan.student} "
            f"({count(plan.student_params)}), r = {plan.r:.2f}; {plan.flops / 1e9:.3g} GFLOP an image and step"
            f"{' on average' if _skips(plan) else ''}, {plan.steps:,} steps; {_bytes(plan.resident)} always, and "
            f"{_bytes(plan.an_image)} an image during a step"
        ),
        table,
        Text(
            f"memory: counted on shapes, and {UNUSED:.0%} and {_bytes(LIBRARIES)} allowed for what a GPU's allocator "
            f"and libraries take. hours: of arithmetic at {asked['tflops']:g} TFLOP/s a GPU (--tflops; kdcompress "
            f"bench measures it) and of averaging gradients at {asked['link']:g} GB/s (--link); validation "
            f"comes on top. cores: that decode 500 x 375 JPEGs as fast, {READ_MS} ms each; none for images that "
            "fit into memory."
        ),
        *(Text(line) for line in plan.advice),
    )


def _skips(plan: Plan) -> bool:
    """Whether some steps leave out the gradient term."""
    loss: Any = plan.settings["loss"]
    return bool(loss["iga_every"] > 1 or loss["iga_start"] > 0)


def _digits(value: float) -> str:
    """Three that count.

    >>> _digits(1234.5), _digits(0.04567)
    ('1,234', '0.0457')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{_digits(size / 2**20)} MiB"
