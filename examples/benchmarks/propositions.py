"""Propositions 1 and 2 of arXiv:2110.12072 audited on the built-in digits: a KD student, a KDIGA student, and one
aligned by Jacobian directions, all of the demo's teacher.

    python examples/benchmarks/propositions.py
    python examples/benchmarks/propositions.py --student kd=a.safetensors --student kdiga=b.safetensors

Trains the students, unless some are given (the demo's settings: two to five minutes each on one thread), then audits
(a quarter of an hour for three) and prints the tables. All figures are of test images; nothing is chosen by them.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import nn

from kdcompress import DataSettings, DistillSettings, LossSettings, ModelFile, distill
from kdcompress.data import Split, load_data
from kdcompress.evaluation.audit.counter_example import counter_examples
from kdcompress.evaluation.audit.proposition1 import proposition1
from kdcompress.evaluation.audit.proposition2 import proposition2
from kdcompress.evaluation.audit.radius import compared_radii
from kdcompress.models.teachers import load_model
from kdcompress.render.html.propositions import gap_over_bound, terms_of_bound
from kdcompress.report import Proposition1, Proposition2, Result
from kdcompress.settings import AuditSettings, DemoSettings
from kdcompress.threat import ThreatModel

ROOT = Path(__file__).parents[2]
TEACHER = ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors"
LOSSES = {"kd": LossSettings(iga_weight=0.0), "kdiga": LossSettings(), "jacobian": LossSettings(align="jacobian")}
BALLS = (ThreatModel("Linf", 0.05), ThreatModel("Linf", 0.15), ThreatModel("L2", 0.5))
RADII = {"Linf": (0.025, 0.05, 0.1, 0.15, 0.2, 0.3), "L2": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)}
CPU = torch.device("cpu")


def trained(name: str, seed: int, folder: Path) -> Path:
    demo = DemoSettings()
    settings = DistillSettings(
        teacher=ModelFile(path=TEACHER),
        student=demo.student,
        student_args=demo.student_args,
        student_stride=demo.student_stride,
        data=DataSettings(data="digits"),
        threat=demo.threat,
        loss=LOSSES[name],
        run=demo.run.model_copy(update={"seed": seed}),
    )
    distill(settings, folder / name)
    return folder / name / "student.safetensors"


def network(path: Path, classes: tuple[str, ...]) -> nn.Module:
    return load_model(path, classes=classes).model.eval().requires_grad_(False)


def row(*cells: object) -> None:
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def head(title: str, *columns: str) -> None:
    print(f"\n{title}\n")
    row(*columns)
    row(*["---"] * len(columns))


def of_three(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}".lstrip("0") or "0" for value in values)


def middle(values: Sequence[float | None]) -> str:
    found = median(value for value in values if value is not None)
    return f"{found:.3g}"


def premises(found: Mapping[tuple[str, str], Proposition1]) -> None:
    head(
        "Share of images for which each premise holds, where three are given to within .1, .25 and .5",
        *("student", "ball", "(12)", "(17)", "(15)", "(16)", "linear: student", "linear: teacher", "all"),
        *("margin kept", "stood"),
    )
    for (name, ball), one in found.items():
        held = [of_three([at.value for at in premise.held]) for premise in one.premises]
        everything = of_three([at.value for at in one.all_hold])
        rates = [f"{rate.value:.2f}" for rate in (one.constant, one.right)]
        row(name, ball, *rates, *held, everything, f"{one.kept.value:.2f}", f"{one.stood.value:.2f}")


def margins(found: Mapping[tuple[str, str], Proposition1]) -> None:
    head(
        "The margin inequality: medians over the images, in logits (estimates)",
        *("student", "ball", "teacher's least margin", "logits", "gradients", "remainder: student", "teacher"),
        *("guaranteed", "student's least margin", "exceeded", "violated"),
    )
    for (name, ball), one in found.items():
        t = one.terms
        columns = (t.teacher_margin, t.logits, t.gradients, t.remainder_student, t.remainder_teacher)
        columns = (*columns, t.guaranteed, t.student_margin)
        row(name, ball, *map(middle, columns), f"{one.exceeded.value:.2f}", one.violated)


def directions(found: Mapping[tuple[str, str], Proposition1]) -> None:
    head(
        "The directions that (21) leaves free: medians over the images",
        *(
            "student",
            "cosine of CE gradients",
            "Jacobians' difference",
            "constrained",
            "common shift",
            "free",
            "weight",
        ),
    )
    for (name, ball), one in found.items():
        if ball == str(BALLS[0]):  # they are taken at x: every ball has the same
            d = one.directions
            row(
                name,
                middle(one.gradient_cosine),
                *map(middle, (d.difference, d.constrained, d.common, d.free, d.weight)),
            )


def losses(found: Mapping[tuple[str, str], Proposition2]) -> None:
    head(
        "Eq. 26: medians over the images, in nats (right sides are estimates)",
        *("student", "ball", "gap", "bound", "as printed", "LLM: student", "teacher", "losses", "gradients"),
        *("largest term", "exceeded", "raised", "violated"),
    )
    for (name, ball), one in found.items():
        columns = (one.remainder_student, one.remainder_teacher, one.losses, one.gradients)
        sides = (one.median_gap, one.median_bound, one.median_bound_of_paper)
        largest = ", ".join(f"{term.replace('_', ' of ')} {count}" for term, count in one.dominant.items() if count)
        rates = (f"{one.exceeded.value:.2f}", f"{one.raised.value:.2f}", one.violated)
        row(name, ball, *(f"{side:.3g}" for side in sides), *map(middle, columns), largest, *rates)


def radii(students: Mapping[str, nn.Module], teacher: nn.Module, images: Split, settings: AuditSettings) -> None:
    head("Radii by attack: upper bounds, medians", "student", "norm", "student", "teacher", "student's is smaller")
    for name, student in students.items():
        for norm, grid in RADII.items():
            one = compared_radii(student, teacher, images, norm, grid, settings, device=CPU)  # type: ignore[arg-type]
            medians = (one.median_student, one.median_teacher)
            cells = (f"over {grid[-1]:g}" if found is None else f"{found:.3f}" for found in medians)
            row(name, norm, *cells, f"{one.below.value:.2f}")


def counted(
    students: Mapping[str, nn.Module],
    teacher: nn.Module,
    images: Split,
    settings: AuditSettings,
    names: tuple[str, ...],
) -> None:
    head(
        f"Counter-examples of (24) and (25), {BALLS[1]}, {len(images)} images",
        *("student", "outputs agree and the teacher stands", "of these broken", "most alike"),
    )
    for name, student in students.items():
        one = counter_examples(student, teacher, images, BALLS[1], settings, names=names, device=CPU).record
        agreed = round(one.agreed.value * one.n)
        seen = zip(one.difference[:1], one.teacher, one.student, strict=False)
        best = "; ".join(f"logits within {d:.3f}, {t} seen as {s}" for d, t, s in seen) or "none"
        row(name, agreed, f"{len(one.images)} ({len(one.images) / max(1, agreed):.2f})", best)


def page(found: Mapping[tuple[str, str], Proposition2], students: Sequence[str]) -> str:
    """Gap over bound, and the terms of the bound, student beside student; a row for each ball."""
    style = (ROOT / "kdcompress" / "render" / "html" / "page.css").read_text(encoding="utf-8")
    rows = []
    for ball in BALLS:
        here = {name: found[name, str(ball)] for name in students}
        drawn = "".join(
            f'<figure class="plot">{one or ""}</figure>' for one in (gap_over_bound(here), terms_of_bound(here))
        )
        rows.append(f"<h2>{ball}</h2><div style='display: grid; grid-template-columns: 1fr 1fr'>{drawn}</div>")
    return f"<!DOCTYPE html><meta charset='utf-8'><style>{style}</style>{''.join(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--student", action="append", default=[], metavar="NAME=FILE", help="instead of training")
    parser.add_argument("--names", default="kd,kdiga,jacobian", help="which to train, where none is given")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="every record, for plots")
    parser.add_argument("--page", type=Path, help="an HTML file for the pictures of eq. 26")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("digits", splits=["test"])
    assert data.test is not None
    images = data.test.shuffled(options.images, options.seed)
    teacher = network(TEACHER, data.classes)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(path) for name, _, path in (one.partition("=") for one in options.student)} or {
            name: trained(name, options.seed, Path(scratch)) for name in options.names.split(",")
        }
        students = {name: network(path, data.classes) for name, path in files.items()}
    full = AuditSettings(seed=options.seed)
    # Nine rivals an image: one start a search is what minutes allow.
    quick = AuditSettings(seed=options.seed, restarts=0)
    first: dict[tuple[str, str], Proposition1] = {}
    second: dict[tuple[str, str], Proposition2] = {}
    for name, student in students.items():
        for ball in BALLS:
            key = (name, str(ball))
            first[key] = proposition1(student, teacher, images, ball, quick, classes=len(data.classes), device=CPU)
            second[key] = proposition2(student, teacher, images, ball, full, device=CPU)
            print(f"audited {name} at {ball}", file=sys.stderr, flush=True)
    premises(first)
    margins(first)
    directions(first)
    losses(second)
    radii(students, teacher, images, full)
    counted(students, teacher, data.test, full, data.classes)
    if options.json is not None:
        records: dict[str, Mapping[tuple[str, str], Result]] = {"proposition1": first, "proposition2": second}
        found = {
            kind: {f"{name}, {ball}": one.model_dump(mode="json") for (name, ball), one in of_kind.items()}
            for kind, of_kind in records.items()
        }
        options.json.write_text(json.dumps(found), encoding="utf-8")
    if options.page is not None:
        options.page.write_text(page(second, list(students)), encoding="utf-8")


if __name__ == "__main__":
    main()
