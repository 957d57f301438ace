"""The measurements behind choices about loss and training: one student, one setting varied at a time, three seeds.

    python examples/benchmarks/studies.py defaults digits
    python examples/benchmarks/studies.py training digits --seeds 1 --epochs 3
    python examples/benchmarks/studies.py alignment cifar10 --teacher resnet4b.pth --data cifar10/

Figures are from the slice held out of the training images, never from the test split: clean and PGD-10 accuracy of the
best weights, PGD-10 accuracy of the last. Each row is printed as it is done: every seed's figure, and the mean with its
95% t interval; then the seconds a run took.
"""

import argparse
import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from kdcompress import DataSettings, DistillSettings, LossSettings, ModelFile, RunSettings, ThreatSettings, distill
from kdcompress.settings import CacheSettings
from kdcompress.training.recipes import AUTO_IGA, scaled_iga_weight

ROOT = Path(__file__).parents[2]
STUDENT = {
    "layers": [1, 1, 1, 1],
    "channels": [16, 24, 32, 40],
    "act_layer": "silu",
    "stem_type": "deep",
    "stem_width": 8,
}

Row = dict[str, Any]
"""Fields of `LossSettings` and `RunSettings`; `multiple` stands for an `iga_weight` of so many eps sqrt(D), `auto`
unless told; `cache_views` for a teacher cache of so many."""

RSLAD_AT_Z: Row = {"recipe": "rslad", "kl_weight": 1.0, "clean_weight": 0.0}

STUDIES: dict[str, tuple[Row, ...]] = {
    "defaults": (
        *({"multiple": multiple} for multiple in (0.0, 1.0, 2.0, 3.0, 4.0)),
        {"ce_weight": 1.0},
        {"iga_ramp": 0.1},
        {"iga_ramp": 0.5},
        {"input_noise": "none"},
    ),
    "alignment": (
        {"multiple": 2.0},
        *({"multiple": multiple, "align": "jacobian"} for multiple in (0.25, 0.5, 1.0, 2.0)),
        *({"multiple": multiple, "iga_norm": "l1"} for multiple in (1.0, 2.0, 4.0)),
    ),
    "cheaper": (
        {"align": "jacobian"},
        *({"align": "jacobian", "iga_every": every} for every in (2, 4)),
        *({"align": "jacobian", "iga_start": start, "iga_ramp": ramp} for start, ramp in ((0.4, 0.3), (0.6, 0.2))),
        {"align": "jacobian", "iga_norm": "l2-log"},
        *({"align": "jacobian", "iga_norm": "l2-squared", "multiple": multiple} for multiple in (0.5, 2.0, 8.0)),
        {"recipe": "rslad"},
        {"recipe": "rslad", "inner_steps": 1},
        {"recipe": "rslad", "inner_steps": 1, "align": "jacobian", "multiple": 2.0},
        {"recipe": "rslad", "inner_steps": 2, "align": "jacobian", "multiple": 2.0},
        *({**RSLAD_AT_Z, "inner_steps": steps} for steps in (1, 2, 4, 5)),
        *(
            {**RSLAD_AT_Z, "inner_steps": 1, "align": "jacobian", "iga_norm": "l2-log", "multiple": multiple}
            for multiple in (0.2, 0.5, 2.0)
        ),
    ),
    "micro-batches": ({}, *({"iga_micro_batch": most} for most in (32, 16, 8))),
    "training": tuple(
        # A peak of its own for each optimizer: 1e-2 is what AdamW's students of digits are trained with.
        {"schedule": schedule, "optimizer": optimizer, "lr": lr, "average": average}
        for schedule, (optimizer, lr), average in itertools.product(
            ("one-cycle", "cosine", "step"), (("adamw", 1e-2), ("sgd", 0.1)), ("ema", "swa", "none")
        )
    ),
    "views": ({}, *({"cache_views": views} for views in (16, 8, 4, 2, 1))),
    "recipes": (
        *({"recipe": name} for name in ("kd", "kdiga", "kdiga-noise")),
        *({"recipe": "kdiga-noise", "iga_every": every} for every in (2, 4)),
        *({"recipe": "rslad", "inner_steps": steps} for steps in (1, 3, 10)),
        *({"recipe": "rslad", "inner_steps": steps, "multiple": 2.0} for steps in (1, 3)),
        {"recipe": "kdiga-adv", "inner_steps": 1},
        *({"recipe": name} for name in ("ard", "iad", "adaad", "igdm")),
    ),
}


def digits(teacher: Path | None, data: str | None) -> DistillSettings:
    return DistillSettings(
        teacher=ModelFile(path=teacher or ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors"),
        student="resnet18",
        student_args=STUDENT,
        student_stride=8,
        data=DataSettings(data="digits"),
        threat=ThreatSettings(eps=0.15),
        run=RunSettings(epochs=45, batch_size=64, lr=1e-2),
    )


def cifar10(teacher: Path | None, data: str | None) -> DistillSettings:
    if teacher is None or data is None:
        raise SystemExit("cifar10 needs --teacher and --data")
    return DistillSettings(
        teacher=ModelFile(
            path=teacher,
            arch=f"{ROOT}/examples/cifar10/resnet4b.py:resnet4b",
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2471, 0.2435, 0.2616),
        ),
        student="resnet18",
        student_args=STUDENT,
        student_stride=32,
        data=DataSettings(data=data, train_images=10_000),
        threat=ThreatSettings(eps="2/255"),
        run=RunSettings(epochs=8, lr=1e-2),
    )


DIMENSIONS = {"digits": 16 * 16, "cifar10": 3 * 32 * 32}


def changed(row: Row, base: DistillSettings, dimensions: int, seed: int, cache: Path) -> DistillSettings:
    """The settings that a row stands for."""
    changes = dict(row)
    run = {name: changes.pop(name) for name in row if name in RunSettings.model_fields}
    views = changes.pop("cache_views", None)
    if "multiple" in changes or "recipe" not in changes:
        multiple, norm = changes.pop("multiple", AUTO_IGA), changes.get("iga_norm", "l2")
        changes["iga_weight"] = scaled_iga_weight(base.threat.threat, dimensions, multiple, norm)
    return base.model_copy(
        update={
            "loss": LossSettings(**changes, iga_mode="exact"),
            "run": RunSettings(**base.run.model_dump(exclude_unset=True) | run | {"seed": seed}),
            "cache": CacheSettings()
            if views is None
            else CacheSettings(cache_teacher=True, cache_views=views, cache_dir=cache),
        }
    )


def over_seeds(figures: Sequence[float]) -> str:
    """`.512 .530 .521 | .521 +- .023`: each seed's figure, the mean, half the width of its 95% t interval."""
    n = len(figures)
    mean = sum(figures) / n
    spread = math.sqrt(sum((figure - mean) ** 2 for figure in figures) / (n - 1)) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) if n > 1 else math.nan
    return " ".join(f"{figure:.3f}" for figure in figures) + f" | {mean:.3f} +- {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("on", choices=tuple(DIMENSIONS))
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of the study's own")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    base = {"digits": digits, "cifar10": cifar10}[options.on](options.teacher, options.data)
    if options.epochs is not None:
        run = RunSettings(**base.run.model_dump(exclude_unset=True) | {"epochs": options.epochs})
        base = base.model_copy(update={"run": run})
    print("setting | clean, each seed | mean | PGD-10, each seed | mean | last PGD-10 | mean | seconds", flush=True)
    for row in STUDIES[options.study]:
        named = " ".join(f"{name} {value}" for name, value in row.items()) or "default"
        if options.only not in named:
            continue
        records = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                settings = changed(row, base, DIMENSIONS[options.on], seed, Path(folder) / "cache")
                records.append(distill(settings, Path(folder) / "run"))
        clean = over_seeds([record.selected.clean_accuracy for record in records])
        robust = over_seeds([record.selected.robust_accuracy for record in records])
        last = over_seeds([record.last.robust_accuracy for record in records])
        print(
            f"{named} | {clean} | {robust} | {last} | {min(record.cost.seconds for record in records):.0f}", flush=True
        )


if __name__ == "__main__":
    main()
