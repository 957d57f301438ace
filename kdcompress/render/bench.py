"""What a step costs, as a table."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdcompress.bench import Bench
from kdcompress.render.words import count, file_size


def costs(bench: Bench) -> Group:
    """One row a method, the cheapest floor first."""
    table = Table(show_edge=False, pad_edge=False)
    for title in (
        "method",
        "ms a step",
        "images/s",
        "peak memory",
        "times KD",
        "floor",
        "over floor",
        "TFLOP/s",
        "hours",
    ):
        table.add_column(title, justify="left" if title == "method" else "right")
    for row in bench.rows:
        if (
            row.milliseconds is None
            or row.ratio is None
            or row.images_per_second is None
            or row.tflops is None
            or row.hours is None
        ):
            table.add_row(Text(row.method), *["-"] * 4, f"{row.floor:.2f}", "-", "-", "-")
            continue
        table.add_row(
            Text(row.method),
            f"{row.milliseconds:.1f}",
            f"{row.images_per_second:.0f}",
            "-" if row.peak_memory is None else file_size(row.peak_memory),
            f"{row.ratio:.2f}",
            f"{row.floor:.2f}",
            f"{row.ratio / row.floor:.2f}",
            f"{row.tflops:.3g}",
            f"{row.hours:.2f}",
        )
    return Group(
        Text(
            f"{bench.teacher} ({count(bench.teacher_params)} parameters) into {bench.student} "
            f"({count(bench.student_params)}), r = {bench.r:.2f} times its multiply-accumulates; batches of "
            f"{bench.batch_size}, {bench.device}, median of {bench.repeats}"
        ),
        table,
        *(Text(f"{row.method}: {row.fault}") for row in bench.rows if row.fault),
        Text(
            f"floor: by counts of multiply-accumulates, in KD's; hours: {bench.epochs} epochs of "
            f"{bench.train_images} images; published style: separate forwards for logits and gradients, PyTorch's own "
            "second derivatives"
        ),
    )
