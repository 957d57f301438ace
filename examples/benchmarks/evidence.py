"""How far robustness goes for how much compute: one command a row, and the table of the rows that were run.

    python examples/benchmarks/evidence.py row digits resnet18 kdiga-noise --seed 0
    python examples/benchmarks/evidence.py row cifar10-small resnet18 rslad-1+iga --teacher resnet4b.pth --data cifar10/
    python examples/benchmarks/evidence.py row cifar10 resnet18 rslad --teacher robust.pt --data cifar10/ --device cuda
    python examples/benchmarks/evidence.py table

A row trains a student by one recipe, and attacks its best and its last weights on the same test images: clean, PGD-50,
AutoAttack; the paired difference from its teacher; certified accuracy by smoothing. It leaves a JSON file in `--rows`,
which `table` reads; rows that nobody ran are listed as open. The images are the first of the test split's seeded
shuffle, and choose nothing.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

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
    evaluate,
    train,
)
from kdcompress.training.run_record import RunRecord

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Bed:
    """Where rows can be compared: data, teacher, radius, and epochs that fit the machine, the same for every row."""

    data: str | None
    teacher: dict[str, Any]
    eps: str
    epochs: int
    images: int
    students: dict[str, tuple[str, dict[str, Any], int | None]]
    train_images: int | None = None
    batch_size: int = 128
    lr: float = 1e-2


SMALL = {
    "layers": [1, 1, 1, 1],
    "stem_type": "deep",
    "stem_width": 8,
    "act_layer": "silu",
    "channels": [16, 24, 32, 40],
}
CIFAR_STATISTICS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
VIT = {"depth": 4, "embed_dim": 96, "num_heads": 3}

BEDS = {
    "digits": Bed(
        data="digits",
        teacher={"path": ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors"},
        eps="0.15",
        epochs=45,
        images=360,
        students={"resnet18": ("resnet18", SMALL, 8), "vit": ("vit_tiny_patch16_224", VIT, None)},
        batch_size=64,
    ),
    "cifar10-small": Bed(
        data=None,
        teacher={"arch": f"{ROOT}/examples/cifar10/resnet4b.py:resnet4b", **CIFAR_STATISTICS},
        eps="2/255",
        epochs=8,
        images=200,
        students={"resnet18": ("resnet18", SMALL, 32), "mobilenetv2": ("mobilenetv2_035", {}, None)},
        train_images=10_000,
    ),
    "cifar10": Bed(
        data=None,
        teacher={},
        eps="8/255",
        epochs=100,
        images=1000,
        students={
            "resnet18": ("resnet18", {}, None),
            "mobilenetv2": ("mobilenetv2_100", {}, None),
            "convnext": ("convnext_atto", {}, None),
        },
        lr=3e-3,
    ),
}

RECIPES: dict[str, dict[str, Any]] = {
    **{name: {"recipe": name} for name in ("kd", "kdiga-noise", "ard", "rslad", "iad", "adaad", "igdm")},
    "kdiga-jacobian": {"recipe": "kdiga-noise", "align": "jacobian"},
    "kdiga-every-2": {"recipe": "kdiga-noise", "iga_every": 2},
    "rslad-1": {"recipe": "rslad", "inner_steps": 1},
    "rslad-1+iga": {"recipe": "rslad", "inner_steps": 1, "iga_weight": "auto"},
    "rslad+iga": {"recipe": "rslad", "iga_weight": "auto"},
}
WITHOUT_TEACHER = ("at", "trades", "fast")


@dataclass(frozen=True)
class Row:
    """What one command found; every rate is (value, low, high)."""

    bed: str
    student: str
    recipe: str
    seed: int
    params: int
    epochs: int
    passes: float
    seconds: float
    device: str
    images: int
    weights: dict[str, dict[str, Any]]


def trained(bed: Bed, student: str, recipe: str, seed: int, options: argparse.Namespace, out: Path) -> RunRecord:
    """The student, in the folder `out`."""
    arch, arguments, stride = bed.students[student]
    data = DataSettings(data=bed.data or options.data, train_images=bed.train_images)
    threat = ThreatSettings(eps=bed.eps)
    how = {"batch_size": bed.batch_size, "lr": bed.lr, "seed": seed, "device": options.device}
    if recipe in WITHOUT_TEACHER:
        run = RunSettings(epochs=options.epochs or bed.epochs, **how)
        return train(
            TrainSettings(
                recipe=recipe,
                model=arch,
                model_args=arguments,
                model_stride=stride,
                data=data,
                threat=threat,
                run=run,
            ),
            out,
        )
    return distill(
        DistillSettings(
            teacher=teacher_file(bed, options),
            student=arch,
            student_args=arguments,
            student_stride=stride,
            data=data,
            threat=threat,
            loss=LossSettings(iga_mode="exact", **RECIPES[recipe]),
            run=RunSettings(epochs=options.epochs or bed.epochs, **how),
        ),
        out,
    )


def teacher_file(bed: Bed, options: argparse.Namespace) -> ModelFile:
    """The bed's own teacher, or the one that was named."""
    path = options.teacher or bed.teacher.get("path")
    if path is None or (bed.data is None and options.data is None):
        raise SystemExit(f"{options.bed} needs --teacher and --data")
    return ModelFile(**bed.teacher | {"path": path})


def judged(file: Path, bed: Bed, attack: str, options: argparse.Namespace) -> Report:
    """The student and its teacher under one attack."""
    return evaluate(
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


def measured(file: Path, bed: Bed, options: argparse.Namespace) -> dict[str, Any]:
    """One network's columns."""
    quick, full = (judged(file, bed, attack, options) for attack in ("pgd-50", "autoattack"))
    student, teacher, paired = full.models["student"], full.models["teacher"], full.paired
    assert student.robust_accuracy and teacher.robust_accuracy and quick.models["student"].robust_accuracy and paired
    smoothing = None if student.certified is None else student.certified.smoothing
    return {
        "clean": of(student.clean_accuracy),
        "pgd50": of(quick.models["student"].robust_accuracy),
        "autoattack": of(student.robust_accuracy),
        "teacher": of(teacher.robust_accuracy),
        "drop": [paired.drop, paired.low, paired.high],
        "certified": {} if smoothing is None else {f"{at.radius:g}": of(at) for at in smoothing.at},
    }


def run_row(options: argparse.Namespace) -> None:
    bed = BEDS[options.bed]
    options.rows.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        record = trained(bed, options.student, options.recipe, options.seed, options, folder)
        cost, r = record.cost, record.compression.macs_ratio or 0.0
        row = Row(
            bed=options.bed,
            student=options.student,
            recipe=options.recipe,
            seed=options.seed,
            params=record.compression.params,
            epochs=options.epochs or bed.epochs,
            passes=cost.student_passes + r * cost.teacher_passes,
            seconds=cost.seconds,
            device=cost.device,
            images=options.images or bed.images,
            weights={
                name: measured(folder / f"{file}.safetensors", bed, options)
                for name, file in (("best", "student"), ("last", "last"))
            },
        )
    name = f"{options.bed} {options.student} {options.recipe} {options.seed}.json"
    (options.rows / name).write_text(json.dumps(asdict(row), indent=2) + "\n", encoding="utf-8")
    best = row.weights["best"]
    print(f"{name}: clean {best['clean'][0]:.3f}, AutoAttack {best['autoattack'][0]:.3f}, {row.seconds:.0f} s")


def over_seeds(values: list[float]) -> str:
    """The mean, with its 95% t interval where there are several."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.3f} (1 seed)"
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return f"{mean:.3f} +- {half:.3f}"


def print_table(options: argparse.Namespace) -> None:
    rows = [Row(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(options.rows.glob("*.json"))]
    print(
        "| bed | student | recipe | passes | s | clean | PGD-50 | AutoAttack | last: AutoAttack | below its teacher |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    still_open = []
    for name, bed in BEDS.items():
        for student, recipe in product(bed.students, (*RECIPES, *WITHOUT_TEACHER)):
            seeds = [row for row in rows if (row.bed, row.student, row.recipe) == (name, student, recipe)]
            if not seeds:
                still_open.append(f"{name} {student} {recipe}")
                continue
            best = {key: [row.weights["best"][key][0] for row in seeds] for key in ("clean", "pgd50", "autoattack")}
            last = [row.weights["last"]["autoattack"][0] for row in seeds]
            drops = "; ".join("{:+.3f} [{:+.3f}, {:+.3f}]".format(*row.weights["best"]["drop"]) for row in seeds)
            cells = (*map(over_seeds, best.values()), over_seeds(last), drops)
            seconds = min(row.seconds for row in seeds)
            print(f"| {name} | {student} | {recipe} | {seeds[0].passes:.1f} | {seconds:.0f} | {' | '.join(cells)} |")
    print(f"\nopen: {', '.join(still_open)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    row = commands.add_parser("row")
    row.add_argument("bed", choices=tuple(BEDS))
    row.add_argument("student")
    row.add_argument("recipe", choices=(*RECIPES, *WITHOUT_TEACHER))
    row.add_argument("--seed", type=int, default=0)
    row.add_argument("--teacher", type=Path)
    row.add_argument("--data")
    row.add_argument("--epochs", type=int)
    row.add_argument("--images", type=int)
    row.add_argument("--device", default="auto")
    table = commands.add_parser("table")
    for command, run in ((row, run_row), (table, print_table)):
        command.add_argument("--rows", type=Path, default=Path("evidence-rows"))
        command.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
