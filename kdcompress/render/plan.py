"""What a run will take, as a table."""

import math

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdcompress.plan import LIBRARIES, READ_MS, UNUSED, Plan
from kdcompress.render.words import count

FEW = 32
"""Images from which BatchNorm's statistics are usually thought good enough."""
MANY_CORES = 16
"""CPU cores that rented machines commonly have beside each GPU."""


def planned(plan: Plan) -> Group:
    """A row for every number of GPUs, and what the figures rest on."""
    table = Table(show_edge=False, pad_edge=False)
    heads = ("GPUs", "images each", "memory each", "step", "of it exchange", "images/s", "hours", "GPU hours")
    for head in (*heads, "cores each"):
        table.add_column(head, justify="right")
    for row in plan.rows:
        step = row.compute + row.exchange
        table.add_row(
            str(row.gpus),
            f"{row.images}" + (f" ({row.micro_batch} at a time)" if row.micro_batch else ""),
            _gib(row.memory) + ("" if row.fits else ", too much"),
            f"{1000 * step:.0f} ms",
            f"{row.exchange / step:.0%}",
            f"{row.images_per_second:,.0f}",
            f"{row.hours:,.1f}",
            f"{row.gpu_hours:,.0f}",
            f"{math.ceil(row.cores)}",
        )
    asked = plan.settings
    return Group(
        Text(
            f"{plan.teacher} ({count(plan.teacher_params)} parameters) into {plan.student} "
            f"({count(plan.student_params)}), r = {plan.r:.2f}; {plan.flops / 1e9:.1f} GFLOP an image and step, "
            f"{plan.steps:,} steps; {_gib(plan.resident)} between them, {plan.an_image / 2**20:.0f} MiB an image in one"
        ),
        table,
        Text(
            f"memory: counted on shapes, and {UNUSED:.0%} and {_gib(LIBRARIES)} allowed for what a GPU's allocator and "
            f"its libraries take. hours: of arithmetic at {asked['tflops']:g} TFLOP/s a GPU (--tflops; kdcompress "
            f"bench measures it) and of averaging gradients at {asked['link']:g} GB/s (--link); validation "
            f"comes on top. cores: that decode 500 x 375 JPEGs as fast, {READ_MS} ms each."
        ),
        *(Text(line) for line in advice(plan)),
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def advice(plan: Plan) -> list[str]:
    """What to set, where the figures say so."""
    found = []
    for row in plan.rows:
        where = f"{row.gpus} GPU{'s' if row.gpus > 1 else ''}: "
        if not row.fits:
            found.append(f"{where}not even two images fit beside the networks: a smaller student, or a larger GPU")
        elif row.micro_batch:
            found.append(f"{where}--iga-micro-batch {row.micro_batch}")
        if plan.batchnorm and row.gpus > 1 and row.images < FEW:
            found.append(
                f"{where}BatchNorm sees {row.images} images at a time: add --sync-batchnorm, or a larger batch"
            )
        if row.exchange > row.compute:
            found.append(f"{where}most of the time goes into averaging gradients: take fewer GPUs, or a larger batch")
        if row.cores > MANY_CORES:
            found.append(f"{where}decoding may be slower than training: store images at the size they are trained at")
    return found
