"""Reports as tables for a terminal."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcompress.render.words import count, duration, file_size, percent, tenths_of_percent, whole_percent
from kdcompress.report import Gate, ModelReport, Paired, Report, Smoothing
from kdcompress.threat import ThreatModel
from kdcompress.training.run_record import RunRecord

NAMES = {"kd": "KD student", "kdiga": "KDIGA student"}


def show(console: Console, renderable: RenderableType) -> None:
    """Print; folded to the terminal's width, or as wide as it is where there is no terminal."""
    if not console.is_terminal:
        console = Console(file=console.file, width=160, no_color=console.no_color)
    console.print(renderable, highlight=False)


def evaluation(report: Report) -> Group:
    """The whole report: figures, comparison, gates, notes."""
    threat = ThreatModel(report.threat_model.norm, report.threat_model.eps)
    head = f"{report.data.name}: {report.data.images} of {report.data.of} test images, {threat}, {report.device}"
    parts: list[RenderableType] = [Text(head), figures(report)]
    if report.paired is not None:
        parts.append(Text(comparison(report.paired)))
    parts += [Text(gate_line(gate), style="" if gate.met else "bold red") for gate in report.gates]
    parts += [Text(f"note: {note}") for note in report.notes]
    parts.append(Text(f"95% intervals in brackets; took {duration(report.seconds)}"))
    return Group(*parts)


def demonstration(report: Report) -> Group:
    """The demo's table, and the sentence it shows."""
    threat = ThreatModel(report.threat_model.norm, report.threat_model.eps)
    head = f"{report.data.name}: {report.data.images} of {report.data.of} test images, {threat}, {report.device}"
    parts: list[RenderableType] = [Text(head), figures(report), Text(sentence(report))]
    parts += [Text(gate_line(gate), style="" if gate.met else "bold red") for gate in report.gates]
    parts += [Text(f"note: {note}") for note in report.notes]
    parts.append(Text(f"95% intervals in brackets; took {duration(report.seconds)}"))
    return Group(*parts)


def sentence(report: Report) -> str:
    """What the demo's table shows."""
    robust = {name: model.robust_accuracy for name, model in report.models.items()}
    teacher, kd, kdiga = robust["teacher"], robust["kd"], robust["kdiga"]
    assert teacher is not None and kd is not None and kdiga is not None  # the demo always attacks
    smaller = report.models["teacher"].params / report.models["kdiga"].params
    share = kdiga.value / teacher.value if teacher.value else 0.0
    return (
        f"The same student, {smaller:.1f} times smaller than its teacher: distilled by outputs alone (KD) it keeps "
        f"{whole_percent(kd.value)} robust accuracy, with its input gradients aligned (KDIGA) "
        f"{whole_percent(kdiga.value)}, {whole_percent(share)} of the teacher's {whole_percent(teacher.value)}; "
        "no adversarial example was trained on."
    )


def figures(report: Report) -> Table:
    """One column a model, one row a figure; ratios where there are two."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for name in report.models:
        table.add_column(NAMES.get(name, name), justify="right")
    if report.ratios:
        table.add_column("teacher / student", justify="right")
    models = list(report.models.values())
    ratio = {key: f"{value:.2f}x" for key, value in report.ratios.items()}

    def row(title: str, cells: list[str], key: str = "") -> None:
        # Text, since a path in brackets would be read as markup.
        table.add_row(title, *map(Text, cells), *([ratio.get(key, "")] if report.ratios else []))

    row("network", [model.arch for model in models])
    row("parameters", [count(model.params) for model in models], "params")
    row("MACs an image", [count(model.macs) for model in models], "macs")
    row("file", [file_size(model.file_bytes) for model in models], "file_bytes")
    row("latency, 1 image", [f"{model.latency_ms:.2f} ms" for model in models], "latency_ms")
    row("clean accuracy", [percent(model.clean_accuracy) for model in models])
    attacks = [model.robust_accuracy.attack for model in models if model.robust_accuracy is not None]
    if attacks:
        row(f"robust accuracy, {attacks[0]}", [_robust(model) for model in models])
    _certified_rows(row, models)
    return table


def _certified_rows(row, models: list[ModelReport]) -> None:  # type: ignore[no-untyped-def]
    """Each kind of radius under its own head; estimates say so."""
    certified = [model.certified for model in models]
    if any(found is None for found in certified):
        return
    kinds = [found for found in certified if found is not None]
    first = kinds[0].first_order
    medians = [kind.first_order.median for kind in kinds]
    row(
        f"first-order radius, {first.norm}: estimate, median of {first.n}",
        ["infinite" if median is None else f"{median:.4f}" for median in medians],
    )
    smoothed = [kind.smoothing for kind in kinds if kind.smoothing is not None]
    if len(smoothed) != len(models):
        return
    for index, point in enumerate(smoothed[0].at):
        row(
            f"smoothed classifier: certified at L2 {point.radius:.3f}",
            [percent(found.at[index]) for found in smoothed],
        )
    row("smoothed classifier: abstained", [f"{found.abstained} of {found.at[0].n}" for found in smoothed])
    row(_smoothing_terms(smoothed[0]), ["" for _ in smoothed])


def _smoothing_terms(found: Smoothing) -> str:
    return f"  sigma {found.sigma:g}, n0 {found.n0}, n {found.n}, alpha {found.alpha:g}: at most {found.cap:.3f}"


def _robust(model: ModelReport) -> str:
    return "" if model.robust_accuracy is None else percent(model.robust_accuracy)


def comparison(found: Paired) -> str:
    """Teacher against student on the same images, in a sentence."""
    return (
        f"On the same {found.n} images under attack: both kept {found.both_kept}, teacher only {found.teacher_only}, "
        f"student only {found.student_only}, both lost {found.both_lost}. The student's robust accuracy is "
        f"{abs(found.drop) * 100:.1f} points {'below' if found.drop >= 0 else 'above'} the teacher's "
        f"(95% interval of the drop: {found.low * 100:+.1f} to {found.high * 100:+.1f} points)."
    )


def gate_line(gate: Gate) -> str:
    """A gate's verdict: what was asked, what was found, what decided."""
    verdict = "met   " if gate.met else "MISSED"
    plain = gate.name == "--max-params"
    value = f"{gate.value:,.0f}" if plain else f"{gate.value:.3f} [{gate.low:.3f}, {gate.high:.3f}]"
    threshold = f"{gate.threshold:,.0f}" if plain else f"{gate.threshold:g}"
    undecided = "; undecided: the threshold lies inside the interval, more images may turn it" if gate.undecided else ""
    decided = "" if plain else f", by the {'point estimate' if gate.decided_by == 'point' else 'conservative bound'}"
    return f"gate {verdict} {gate.name} {threshold}: {gate.model} {value}{decided}{undecided}"


def run_summary(record: RunRecord) -> Group:
    """What `distill` and `train` leave behind, in a few lines."""
    size, best = record.compression, record.selected
    ratios = (
        ""
        if size.params_ratio is None or size.macs_ratio is None
        else f"; its teacher has {size.params_ratio:.2f}x the parameters, {size.macs_ratio:.2f}x the MACs"
    )
    return Group(
        Text(f"{record.model.arch}: {count(size.params)} parameters, {count(size.macs)} MACs{ratios}"),
        Text(
            f"held-out slice ({best.images} images, epoch {best.epoch}): "
            f"clean {tenths_of_percent(best.clean_accuracy)}, {best.attack} {tenths_of_percent(best.robust_accuracy)}. "
            "Chosen on these images: judge it by kdcompress evaluate."
        ),
        Text(f"{record.cost.steps} steps in {duration(record.cost.seconds)} on {record.cost.device}"),
    )
