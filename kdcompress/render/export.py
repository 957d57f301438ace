"""An export in words: what was written, how near it is, and what int8 cost."""

import operator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdcompress.export.record import Agreement, Export, Quantised
from kdcompress.render.gates import gate_line
from kdcompress.render.words import count, decimals, file_size, p_value, percent, points, signed_points
from kdcompress.report import ModelReport, Paired


def described(found: Export) -> Group:
    """A line for each thing to know of the file; with int8 its parent beside it."""
    table = Table(show_header=False, show_edge=False, pad_edge=False, box=None)
    for name, said in _lines(found):
        table.add_row(Text(name), Text(said))
    parts: list[Table | Text] = [table]
    if found.int8 is not None:
        parts += [Text(), _beside(found.int8), Text(), *map(Text, _sentences(found.int8))]
    parts += [Text(f"note: {note}") for note in found.notes]
    parts += [Text(gate_line(gate)) for gate in found.gates]
    return Group(*parts)


def _lines(found: Export) -> list[tuple[str, str]]:
    written = f"ONNX, opset {found.opset}" if found.format == "onnx" else "torch.export program"
    inside = "none: inputs enter as they are" if found.mean is None else "inside the file"
    network = "network" if found.int8 is None else "rounded network"
    return [
        ("file", f"{found.file}, {file_size(found.file_bytes)}, {written}"),
        ("from", f"{found.source} ({found.arch})"),
        ("takes", found.input),
        ("gives", found.output),
        ("normalisation", inside),
        *((f"on {one.n} {one.on} images", _agreement(one, network)) for one in found.agreements),
        ("sha256", found.sha256),
    ]


def _agreement(found: Agreement, network: str) -> str:
    same = "all" if found.labels_differ == 0 else f"all but {found.labels_differ}"
    return (
        f"{same} labels as the {network} has them; logits differ by {found.largest:.1e} at most, of {found.logit:.3g}"
    )


def _beside(found: Quantised) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for head, justify in (("", "left"), ("float", "right"), ("int8", "right")):
        table.add_column(head, justify=justify)  # type: ignore[arg-type]
    for name, of in _FIGURES.items():
        if (cells := [of(found.float), of(found.int8)]) != ["", ""]:
            table.add_row(name, *cells)
    return table


def _robust(model: ModelReport) -> str:
    return "" if model.robust_accuracy is None else percent(model.robust_accuracy)


_FIGURES = {
    "parameters": lambda model: count(model.params),
    "file": lambda model: file_size(model.file_bytes),
    "latency, one image": lambda model: f"{model.latency_ms:.2f} ms",
    "clean accuracy": lambda model: percent(model.clean_accuracy),
    "robust accuracy": _robust,
}


def _sentences(found: Quantised) -> list[str]:
    rounding = found.rounding
    said = [
        f"{found.rounded[0]} of {found.rounded[1]} convolutions, linear layers and products take rounded numbers.",
        f"Rounding, with ranges from {found.calibration_images} training images, moved logits by {rounding.mean:.2g} "
        f"on average, {rounding.largest:.2g} at most, and {rounding.labels_differ} of {rounding.n} labels.",
        f"Clean: {_drop(found.clean)}",
    ]
    if found.robust is not None and found.int8.robust_accuracy is not None:
        said += [f"Under attack: {_drop(found.robust)}", f"Attacks: {found.int8.robust_accuracy.attack}."]
        within = f"within {points(found.robust.within)} points"
        said.append(
            f"Whether rounding kept the robustness {within} cannot be told: a sign of masking was found."
            if found.robust.preserved is None
            else f"Rounding kept the robustness {within}, at 95%."
            if found.robust.preserved
            else f"Rounding did not keep the robustness {within}, at 95%."
            if found.robust.low > found.robust.within
            else f"It is not shown that rounding kept the robustness {within}, at 95%."
        )
        for name, model in (("float", found.float), ("int8", found.int8)):
            reasons = model.masking.reasons if model.masking is not None else ()
            said += [f"{name}: not to be trusted, because {reason}" for reason in reasons]
    return said


def _drop(found: Paired) -> str:
    digits = decimals(found.high, found.within, 1, operator.le)
    return (
        f"of {found.n} images float alone is right on {found.teacher_only}, int8 alone on {found.student_only}; int8 "
        f"lost {signed_points(found.drop)} points (95% interval {signed_points(found.low, digits)} to "
        f"{signed_points(found.high, digits)}; McNemar's exact test: {p_value(found.p_value)})."
    )
