"""Reports as tables for a terminal."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcompress.maths.intervals import clopper_pearson
from kdcompress.progress import guessing
from kdcompress.render.figures import figures
from kdcompress.render.gates import gate_line
from kdcompress.render.sentences import (
    attack_terms,
    comparison,
    distrust,
    heading,
    masking_lines,
    preserved,
)
from kdcompress.render.words import count, duration, tenths_of_percent, title, whole_percent
from kdcompress.report import Report
from kdcompress.training.run_record import RunRecord, ValidationRecord


def show(console: Console, renderable: RenderableType) -> None:
    """Print; folded to the width of the terminal or notebook, or as wide as it is where there is neither."""
    if not (console.is_terminal or console.is_jupyter):
        console = Console(file=console.file, width=160, no_color=console.no_color)
    console.print(renderable, highlight=False)


def evaluation(report: Report) -> Group:
    """The whole report: figures, comparison, masking, gates, notes."""
    parts: list[RenderableType] = [Text(heading(report)), table(report)]
    if report.paired is not None:
        parts += [Text(comparison(report.paired)), Text(preserved(report))]
    return Group(*parts, *_conclusions(report))


def demonstration(report: Report) -> Group:
    """The demo's table, and the sentence it shows."""
    return Group(Text(heading(report)), table(report), Text(sentence(report)), *_conclusions(report))


def _conclusions(report: Report) -> list[RenderableType]:
    """What every table ends with."""
    flagged = distrust(report)
    return [
        *(Text(line) for line in attack_terms(report)),
        *(Text(line, style="bold red" if name in flagged else "") for name, line in masking_lines(report).items()),
        *(Text(gate_line(gate), style="" if gate.met else "bold red") for gate in report.gates),
        *(Text(f"note: {note}") for note in report.notes),
        Text(f"95% intervals in brackets; took {duration(report.seconds)}"),
    ]


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


def table(report: Report) -> Table:
    """One column a model, one row a figure. The teacher's sizes over the student's stand in brackets behind them.

    A column of their own would not leave AutoAttack's row room on 80 columns.
    """
    shown = Table(show_edge=False, pad_edge=False)
    shown.add_column("")
    for name in report.models:
        over = " (/ student)" if report.ratios and name == "teacher" else ""
        # Text, since a name in brackets would be read as markup.
        shown.add_column(Text(title(name) + over), justify="right")
    for line in figures(report):
        *others, last = line.cells
        shown.add_row(*map(Text, (line.title, *others, f"{last} ({line.ratio})" if line.ratio else last)))
    return shown


def run_summary(record: RunRecord) -> Group:
    """What `distill` and `train` leave behind, in a few lines."""
    size, best, last = record.compression, record.selected, record.last
    ratios = (
        ""
        if size.params_ratio is None or size.macs_ratio is None
        else f"; its teacher has {size.params_ratio:.2f}x the parameters, {size.macs_ratio:.2f}x the MACs"
    )
    if size.macs_ratio is not None and size.macs_ratio < 1:
        ratios += f", so that the student takes {1 / size.macs_ratio:.1f} times the teacher's arithmetic"
    return Group(
        Text(f"{record.model.arch}: {count(size.params)} parameters, {count(size.macs)} MACs{ratios}{_before(record)}"),
        Text(
            f"held-out slice ({best.images} images), best, epoch {best.epoch}: {_reached(best)}. "
            f"Chosen on these images: judge it by kdcompress evaluate.{_guessing(record)}"
        ),
        Text(f"last, epoch {last.epoch}, in last.safetensors: {_reached(last)}"),
        Text(
            f"{record.cost.steps} steps{_skipped(record)} in {duration(record.cost.seconds)} on {record.cost.device}"
            f"{_passes(record)}"
        ),
    )


def _guessing(record: RunRecord) -> str:
    """Said where nothing tells the best epoch from a network that guesses: no epoch was worth choosing."""
    best, classes = record.selected, len(record.model.classes)
    low, _ = clopper_pearson(round(best.robust_accuracy * best.images), best.images)
    if low > 1 / classes:
        return ""
    said = f" Under {best.attack} it is no better than guessing one of {classes} classes, so far as they tell."
    # The gradient term is smallest soonest where every image is answered alike.
    if record.iga_weight and best.clean_accuracy < guessing(classes) and record.pruned is None:
        said += (
            " The gradient term has flattened it: begin with --student-weights of a run of --recipe kd, with a third "
            f"of --iga-weight {record.iga_weight:.3g} and --iga-norm l2-log."
        )
    return said


def _before(record: RunRecord) -> str:
    found = record.pruned
    if found is None:
        return ""
    return f"; before pruning {count(found.params_before)} parameters, {count(found.macs_before)} MACs"


def _skipped(record: RunRecord) -> str:
    left_out = record.cost.skipped
    return f", of which {left_out} {'was' if left_out == 1 else 'were'} not finite and left out," if left_out else ""


def _passes(record: RunRecord) -> str:
    """What a step is made of: beside plain distillation's, where there is a teacher."""
    cost, r = record.cost, record.compression.macs_ratio
    if r is None:
        return f"; a step is {cost.student_passes:g} passes through the network an image"
    times = (cost.student_passes + r * cost.teacher_passes) / (3 + r)
    return (
        f"; a step is {cost.student_passes:g} passes through the student and {cost.teacher_passes:g} through the "
        f"teacher an image, {times:.1f} times plain KD's work"
    )


def _reached(validation: ValidationRecord) -> str:
    seen = validation
    noisy = "" if seen.noisy_accuracy is None else f", under noise {tenths_of_percent(seen.noisy_accuracy)}"
    robust = f"{seen.attack} {tenths_of_percent(seen.robust_accuracy)}"
    return f"clean {tenths_of_percent(seen.clean_accuracy)}, {robust}{noisy} ({seen.weights} weights)"
