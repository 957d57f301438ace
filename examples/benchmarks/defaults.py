"""The measurement behind the defaults of the loss: one student, one setting varied at a time, three seeds.

    python examples/benchmarks/defaults.py digits
    python examples/benchmarks/defaults.py cifar10 --teacher resnet4b.pth --data cifar10/

Figures are from the slice held out of the training images (clean, PGD-10), never from the test split. Each row is
printed as it is done: every seed's figure, and the mean with its 95% t interval.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from kdcompress import DataSettings, DistillSettings, LossSettings, ModelFile, RunSettings, ThreatSettings, distill
from kdcompress.training.recipes import scaled_iga_weight

ROOT = Path(__file__).parents[2]
STUDENT = {
    "layers": [1, 1, 1, 1],
    "channels": [16, 24, 32, 40],
    "act_layer": "silu",
    "stem_type": "deep",
    "stem_width": 8,
}
MULTIPLES = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Of eps sqrt(D); 0 is plain KD. Every other row stands at the default, `AUTO_IGA`."""
VARIATIONS = ({"ce_weight": 1.0}, {"iga_ramp": 0.1}, {"iga_ramp": 0.5}, {"input_noise": "none"})


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


def over_seeds(figures: Sequence[float]) -> str:
    """`.512 .530 .521 | .521 +- .023`: each seed's figure, the mean, half the width of its 95% t interval."""
    n = len(figures)
    mean = sum(figures) / n
    spread = math.sqrt(sum((figure - mean) ** 2 for figure in figures) / (n - 1)) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) if n > 1 else math.nan
    return " ".join(f"{figure:.3f}" for figure in figures) + f" | {mean:.3f} +- {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=("digits", "cifar10"))
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    base = {"digits": digits, "cifar10": cifar10}[options.study](options.teacher, options.data)
    dimensions = {"digits": 16 * 16, "cifar10": 3 * 32 * 32}[options.study]
    rows = {
        f"multiple {multiple:g}": {"iga_weight": scaled_iga_weight(base.threat.threat, dimensions, multiple)}
        for multiple in MULTIPLES
    }
    rows |= {" ".join(f"{name} {value}" for name, value in row.items()): row for row in VARIATIONS}
    print("setting | clean, each seed | mean | PGD-10, each seed | mean", flush=True)
    for name, changes in rows.items():
        records = []
        for seed in range(options.seeds):
            run = base.run.model_copy(update={"seed": seed})
            settings = base.model_copy(update={"loss": LossSettings(**changes), "run": run})
            with tempfile.TemporaryDirectory() as folder:
                records.append(distill(settings, Path(folder) / "run").selected)
        clean = over_seeds([record.clean_accuracy for record in records])
        robust = over_seeds([record.robust_accuracy for record in records])
        print(f"{name} | {clean} | {robust}", flush=True)


if __name__ == "__main__":
    main()
