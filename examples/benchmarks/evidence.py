"""How far robustness goes for how much compute: one command a row, and the table of the rows that were run.

    python examples/benchmarks/evidence.py row digits resnet18 kdiga-noise --seed 0
    python examples/benchmarks/evidence.py row cifar10-small resnet18 rslad-1+iga --teacher resnet4b.pth --data cifar10/
    python examples/benchmarks/evidence.py row cifar10 resnet18 rslad --teacher robust.pt --data cifar10/ --device cuda
    python examples/benchmarks/evidence.py row digits resnet18 at --as-long-as jacobian
    python examples/benchmarks/evidence.py row digits vit rslad --lr 1e-3 --held-out-only
    python examples/benchmarks/evidence.py table

A row trains a student by one recipe, and attacks its best weights on test images: clean, PGD-50, AutoAttack; the paired
difference from its teacher; certified accuracy by smoothing. The last weights get PGD-50, and AutoAttack where the bed
says so. It leaves a JSON file in `--rows`, which `table` reads; rows that nobody ran are listed as open. The images are
the first of the test split's seeded shuffle, and choose nothing.

`--as-long-as` gives a recipe the compute of another row of the same seed, which must have been run, or a `--share` of
it: as many epochs as take as many passes. `--held-out-only` prints what the held-out slice says and attacks no test
image.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beds import BEDS, ROOT, Bed
from scipy import stats

from kdcompress import (
    DataSettings,
    DistillSettings,
    EvaluateSettings,
    EvaluationSettings,
    LossSettings,
    ModelFile,
    Report,
    RunSettings,
    ThreatSettings,
    TrainSettings,
    distill,
    train,
)
from kdcompress.evaluation.evaluate import evaluate_with_evidence
from kdcompress.evidence import Evidence
from kdcompress.maths.intervals import paired_difference
from kdcompress.settings import CacheSettings
from kdcompress.training.recipes.passes import passes, passes_without_teacher
from kdcompress.training.run_record import RunRecord

# Without the clean term, whose forward and backward pay for a step and a half of the attack.
RSLAD_AT_Z = {"recipe": "rslad", "kl_weight": 1.0, "clean_weight": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    **{name: {"recipe": name} for name in ("kd", "kdiga-noise", "ard", "rslad", "iad", "adaad", "igdm")},
    "jacobian": {"recipe": "kdiga-noise", "align": "jacobian"},
    "jacobian-cached": {"recipe": "kdiga-noise", "align": "jacobian"},
    "jacobian-log": {"recipe": "kdiga-noise", "align": "jacobian", "iga_norm": "l2-log"},
    "jacobian-late": {"recipe": "kdiga-noise", "align": "jacobian", "iga_start": 0.4, "iga_ramp": 0.3},
    "ard-1": {"recipe": "ard", "inner_steps": 1},
    "kdiga-adv-1": {"recipe": "kdiga-adv", "inner_steps": 1, "align": "jacobian"},
    "rslad-1": {"recipe": "rslad", "inner_steps": 1},
    "rslad-3": {"recipe": "rslad", "inner_steps": 3},
    "rslad-4-z": RSLAD_AT_Z | {"inner_steps": 4},
    "rslad-1-z+jacobian": RSLAD_AT_Z
    | {"inner_steps": 1, "iga_weight": "auto/4", "align": "jacobian", "iga_norm": "l2-log"},
    "rslad-1+iga": {"recipe": "rslad", "inner_steps": 1, "iga_weight": "auto"},
    "rslad-1+jacobian": {"recipe": "rslad", "inner_steps": 1, "iga_weight": "auto", "align": "jacobian"},
    "rslad+jacobian": {"recipe": "rslad", "iga_weight": "auto", "align": "jacobian"},
}
AFTER_KD: dict[str, dict[str, Any]] = {
    # For students that a gradient term flattens: a third of its weight, and the norm that bends.
    "kd+jacobian": RECIPES["jacobian"] | {"iga_weight": "auto/3", "iga_ramp": 0.5, "iga_norm": "l2-log"},
    "kd+rslad-3": RECIPES["rslad-3"],
}
"""Recipes that start from the last weights of `kd`."""
KD_SHARE = 2 / 3
"""Epochs of that `kd`, by those that follow it."""
WITHOUT_TEACHER = ("at", "trades", "fast")
EVERY_RECIPE = (*RECIPES, *AFTER_KD, *WITHOUT_TEACHER)


@dataclass(frozen=True)
class Row:
    """What one command found; rates are (value, low, high).

    Attributes:
        passes: of an image in a step, each as long as one forward of the student; a cached teacher takes none.
        macs_ratio: the teacher's multiply-accumulates over the student's; None without a teacher.
        held_out: PGD-10 accuracy on the images held out of training, of the best and of the last weights.
    """

    bed: str
    student: str
    recipe: str
    seed: int
    params: int
    epochs: int
    passes: float
    macs_ratio: float | None
    seconds: float
    device: str
    images: int
    held_out: dict[str, float]
    weights: dict[str, dict[str, Any]]


def name_of(options: argparse.Namespace) -> str:
    """The row's, by its recipe and by how long that ran."""
    share = "" if options.share == 1 else f" {options.share:g}"
    return options.recipe + (f"{share} as long as {options.as_long_as}" if options.as_long_as else "")


def as_long(recipe: str) -> str:
    """The row of adversarial training for as many passes.

    >>> as_long("rslad"), as_long("jacobian 0.5 as long as rslad")
    ('at as long as rslad', 'at 0.5 as long as rslad')
    """
    own, length, other = recipe.partition(" as long as ")
    return f"at as long as {recipe}" if not length else " ".join(["at", *own.split()[1:]]) + length + other


def file_of(options: argparse.Namespace, recipe: str) -> Path:
    return options.rows / f"{options.bed} {options.student} {recipe} {options.seed}.json"


def epochs_of(bed: Bed, options: argparse.Namespace) -> int:
    """The bed's or the student's own, or what the compute of another row allows."""
    if not options.as_long_as:
        return options.epochs or bed.students[options.student].epochs or bed.epochs
    path = file_of(options, options.as_long_as)
    if not path.exists():
        raise SystemExit(f"{path} is not there: run {options.as_long_as} first")
    other = Row(**json.loads(path.read_text(encoding="utf-8")))
    if options.recipe in WITHOUT_TEACHER:
        a_step = passes_without_teacher(train_settings(bed, options, epochs=1)).student
    else:
        assert other.macs_ratio is not None
        a_step = passes_of(options.recipe, other.macs_ratio)
        if options.recipe in AFTER_KD:
            a_step += KD_SHARE * passes_of("kd", other.macs_ratio)
    return max(1, round(options.share * other.epochs * other.passes / a_step))


def passes_of(recipe: str, r: float) -> float:
    loss = loss_settings(recipe)
    own = passes(loss, loss.iga_weight != 0)
    return own.student if recipe.endswith("-cached") else own.in_forwards(r)


def run_settings(bed: Bed, options: argparse.Namespace, epochs: int) -> RunSettings:
    lr = options.lr or bed.students[options.student].rate(options.recipe) or bed.lr
    return RunSettings(epochs=epochs, batch_size=bed.batch_size, lr=lr, seed=options.seed, device=options.device)


def data_settings(bed: Bed, options: argparse.Namespace) -> DataSettings:
    return DataSettings(data=bed.data or options.data, train_images=bed.train_images)


def train_settings(bed: Bed, options: argparse.Namespace, epochs: int) -> TrainSettings:
    student = bed.students[options.student]
    return TrainSettings(
        recipe=options.recipe,
        model=student.arch,
        model_args=student.arguments,
        model_stride=student.stride,
        data=data_settings(bed, options),
        threat=ThreatSettings(eps=bed.eps),
        run=run_settings(bed, options, epochs),
    )


def loss_settings(recipe: str) -> LossSettings:
    return LossSettings(iga_mode="exact", **{**RECIPES, **AFTER_KD}[recipe])


def distill_settings(
    bed: Bed, options: argparse.Namespace, recipe: str, epochs: int, *, cache: Path, weights: Path | None = None
) -> DistillSettings:
    student = bed.students[options.student]
    return DistillSettings(
        teacher=teacher_file(bed, options),
        student=student.arch,
        student_args=student.arguments,
        student_stride=student.stride,
        student_weights=weights,
        data=data_settings(bed, options),
        threat=ThreatSettings(eps=bed.eps),
        loss=loss_settings(recipe),
        run=run_settings(bed, options, epochs),
        cache=CacheSettings(cache_teacher=True, cache_dir=cache) if recipe.endswith("-cached") else CacheSettings(),
    )


@dataclass(frozen=True)
class Trained:
    """The last run's record, in the folder `run`, and what it took with all that went before."""

    record: RunRecord
    epochs: int
    passes: float
    seconds: float


def trained(bed: Bed, options: argparse.Namespace, scratch: Path) -> Trained:
    """The student, in the folder `run` of `scratch`."""
    epochs, recipe = epochs_of(bed, options), options.recipe
    if recipe in WITHOUT_TEACHER:
        return taken(train(train_settings(bed, options, epochs), scratch / "run"))
    ask = partial(distill_settings, bed, options, cache=scratch / "cache")
    if recipe not in AFTER_KD:
        return taken(distill(ask(recipe, epochs), scratch / "run"))
    first = taken(distill(ask("kd", max(1, round(KD_SHARE * epochs))), scratch / "kd"))
    then = taken(distill(ask(recipe, epochs, weights=scratch / "kd" / "last.safetensors"), scratch / "run"))
    together = first.epochs + then.epochs
    passes = (first.passes * first.epochs + then.passes * then.epochs) / together
    return Trained(then.record, together, passes, first.seconds + then.seconds)


def taken(record: RunRecord) -> Trained:
    """What one run took."""
    cost, r = record.cost, record.compression.macs_ratio
    passes = cost.student_passes + (r or 0.0) * cost.teacher_passes
    return Trained(record, record.settings["run"]["epochs"], passes, cost.seconds)


def teacher_file(bed: Bed, options: argparse.Namespace) -> ModelFile:
    """The bed's own teacher, or the one that was named."""
    path = options.teacher or bed.teacher.get("path")
    if path is None or (bed.data is None and options.data is None):
        raise SystemExit(f"{options.bed} needs --teacher and --data")
    return ModelFile(**bed.teacher | {"path": path})


def judged(file: Path, bed: Bed, attack: str, options: argparse.Namespace) -> tuple[Report, Evidence]:
    """The student and its teacher under one attack."""
    return evaluate_with_evidence(
        EvaluateSettings(
            student=ModelFile(path=file),
            teacher=teacher_file(bed, options),
            data=DataSettings(data=bed.data or options.data),
            threat=ThreatSettings(eps=bed.eps),
            evaluation=EvaluationSettings(
                attack=attack,
                images=options.images or bed.images,
                device=options.device,
                masking=False,
                certify_images=100 if attack == "autoattack" else 0,
                keep_dir=options.rows / "kept",
            ),
        )
    )


def of(rate: Any) -> list[float]:
    return [rate.value, rate.low, rate.high]


def measured(file: Path, bed: Bed, attacks: set[str], options: argparse.Namespace) -> dict[str, Any]:
    """One network's columns."""
    columns: dict[str, Any] = {}
    for attack in sorted(attacks):
        found, evidence = judged(file, bed, attack, options)
        student, teacher, paired = found.models["student"], found.models["teacher"], found.paired
        assert student.robust_accuracy and teacher.robust_accuracy and paired
        columns |= {
            "clean": of(student.clean_accuracy),
            attack: of(student.robust_accuracy),
            f"{attack} teacher": of(teacher.robust_accuracy),
            f"{attack} drop": [paired.drop, paired.low, paired.high],
            f"{attack} stood": "".join(str(int(row.models["student"].verdict == "stood")) for row in evidence.rows),
        }
        if student.certified is not None and student.certified.smoothing is not None:
            columns["certified"] = {f"{at.radius:g}": of(at) for at in student.certified.smoothing.at}
    return columns


def run_row(options: argparse.Namespace) -> None:
    if options.lr is not None and not options.held_out_only:
        raise SystemExit(
            "--lr is for --held-out-only: a row is trained at the rate that its bed or its student has for it"
        )
    bed = BEDS[options.bed]
    options.rows.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        found = trained(bed, options, scratch)
        record = found.record
        if options.held_out_only:
            print(f"{name_of(options)} {options.lr}: {record.selected}, {found.seconds:.0f} s")
            return
        row = Row(
            bed=options.bed,
            student=options.student,
            recipe=name_of(options),
            seed=options.seed,
            params=record.compression.params,
            epochs=found.epochs,
            passes=found.passes,
            macs_ratio=record.compression.macs_ratio,
            seconds=found.seconds,
            device=record.cost.device,
            images=options.images or bed.images,
            held_out={"best": record.selected.robust_accuracy, "last": record.last.robust_accuracy},
            weights={
                "best": measured(scratch / "run" / "student.safetensors", bed, {"pgd-50", "autoattack"}, options),
                "last": measured(scratch / "run" / "last.safetensors", bed, {"pgd-50", bed.last_by}, options),
            },
        )
    path = file_of(options, row.recipe)
    path.write_text(json.dumps(asdict(row), indent=2) + "\n", encoding="utf-8")
    best = row.weights["best"]
    print(f"{path.name}: clean {best['clean'][0]:.3f}, AutoAttack {best['autoattack'][0]:.3f}, {row.seconds:.0f} s")


def over_seeds(values: list[float]) -> str:
    """The mean, with its 95% t interval where there are several."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.3f} (1 seed)"
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return f"{mean:.3f} +- {half:.3f}"


def gained(row: Row, other: Row) -> str:
    """What the row stands above another by, with Tango's interval where the images of both are known."""
    best, others = (either.weights["best"] for either in (row, other))
    difference = f"{best['autoattack'][0] - others['autoattack'][0]:+.3f}"
    if not all("autoattack stood" in columns for columns in (best, others)):
        return difference
    pairs = list(zip(best["autoattack stood"], others["autoattack stood"], strict=True))
    low, high = paired_difference(pairs.count(("1", "0")), pairs.count(("0", "1")), len(pairs))
    return f"{difference} [{low:+.3f}, {high:+.3f}]"


def cells_of(row_seeds: list[Row], rows: Iterable[Row]) -> list[str]:
    """A line of the table: one recipe's, over its seeds."""
    first = row_seeds[0]
    best, last = ([row.weights[which] for row in row_seeds] for which in ("best", "last"))
    beside = {
        row.seed: row
        for row in rows
        if (row.bed, row.student, row.recipe) == (first.bed, first.student, as_long(first.recipe))
        and row.recipe != first.recipe
    }
    return [
        *(first.bed, first.student, first.recipe, str(first.epochs), f"{first.passes:.1f}"),
        f"{min(row.seconds for row in row_seeds):.0f}",
        over_seeds([row.held_out["best"] for row in row_seeds]),
        *(over_seeds([columns[key][0] for columns in best]) for key in ("clean", "pgd-50", "autoattack")),
        over_seeds([columns["pgd-50"][0] for columns in last]),
        over_seeds([columns["certified"]["0.25"][0] for columns in best]),
        ", ".join(dict.fromkeys(row.device for row in row_seeds)),
        "; ".join("{:+.3f} [{:+.3f}, {:+.3f}]".format(*columns["autoattack drop"]) for columns in best),
        "; ".join(gained(row, beside[row.seed]) for row in row_seeds if row.seed in beside),
    ]


def print_table(options: argparse.Namespace) -> None:
    rows = [Row(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(options.rows.glob("*.json"))]
    heads = (
        *("bed", "student", "recipe", "epochs", "passes", "s", "held-out PGD-10", "clean", "PGD-50", "AutoAttack"),
        *("last: PGD-50", "certified at L2 .25", "device"),
        *("AutoAttack below its teacher's, each seed", "above adversarial training as long, each seed"),
    )
    print(f"| {' | '.join(heads)} |")
    print("|" + "---|" * len(heads))
    still_open = []
    for name, student in ((name, student) for name, bed in BEDS.items() for student in bed.students):
        ran = {row.recipe: None for row in rows if (row.bed, row.student) == (name, student)}
        for recipe in dict.fromkeys((*EVERY_RECIPE, *ran)):
            if recipe in ran:
                seeds = [row for row in rows if (row.bed, row.student, row.recipe) == (name, student, recipe)]
                print(f"| {' | '.join(cells_of(seeds, rows))} |")
        missing = [recipe for recipe in EVERY_RECIPE if recipe not in ran]
        still_open.append(f"open: {name} {student}: {', '.join(missing)}")
    print("\n" + "\n".join(still_open))


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    row = commands.add_parser("row")
    row.add_argument("bed", choices=tuple(BEDS))
    row.add_argument("student")
    row.add_argument("recipe", choices=EVERY_RECIPE)
    row.add_argument("--seed", type=int, default=0)
    row.add_argument("--teacher", type=Path)
    row.add_argument("--data")
    row.add_argument("--epochs", type=int)
    row.add_argument("--as-long-as", metavar="RECIPE", help="the compute of another row of this seed")
    row.add_argument("--share", type=float, default=1.0, help="of that compute")
    row.add_argument("--lr", type=float, help="instead of the bed's own")
    row.add_argument("--held-out-only", action="store_true", help="print the held-out slice's figures, write no row")
    row.add_argument("--images", type=int)
    row.add_argument("--device", default="auto")
    table = commands.add_parser("table")
    for command, run in ((row, run_row), (table, print_table)):
        command.add_argument("--rows", type=Path, default=ROOT / "examples" / "benchmarks" / "evidence")
        command.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
