"""The measurement behind the defaults of the loss: held-out accuracy of one student, several settings, three seeds.

    python examples/benchmarks/defaults.py digits
    python examples/benchmarks/defaults.py cifar10 --teacher resnet4b.pth --data cifar10/

Figures are from the slice held out of the training images (PGD-10), never from the test split.
"""

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

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
MULTIPLES = (0.0, 1.0, 2.0, 4.0, 6.0)
CE_WEIGHTS = (0.0, 1.0)


def digits(teacher: Path | None, data: str | None) -> DistillSettings:
    return DistillSettings(
        teacher=ModelFile(path=teacher or ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors"),
        student="resnet18",
        student_args=STUDENT,
        student_stride=8,
        data=DataSettings(data="digits"),
        threat=ThreatSettings(eps=0.15),
        run=RunSettings(epochs=60, batch_size=64, lr=1e-2),
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
        data=DataSettings(data=data, train_images=20_000),
        threat=ThreatSettings(eps="2/255"),
        run=RunSettings(epochs=6, lr=1e-2),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=("digits", "cifar10"))
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--multiples", type=float, nargs="+", default=MULTIPLES)
    parser.add_argument("--ce-weights", type=float, nargs="+", default=CE_WEIGHTS)
    options = parser.parse_args()
    base = {"digits": digits, "cifar10": cifar10}[options.study](options.teacher, options.data)
    dimensions = {"digits": 16 * 16, "cifar10": 3 * 32 * 32}[options.study]
    print(
        "ce weight | multiple | iga weight | held-out clean, each seed | held-out PGD-10, each seed | mean PGD-10",
        flush=True,
    )
    for ce, multiple in itertools.product(options.ce_weights, options.multiples):
        weight = scaled_iga_weight(base.threat.threat, dimensions, multiple)
        records = []
        for seed in range(options.seeds):
            loss = LossSettings(ce_weight=ce, iga_weight=weight)
            settings = base.model_copy(update={"loss": loss, "run": base.run.model_copy(update={"seed": seed})})
            with tempfile.TemporaryDirectory() as folder:
                records.append(distill(settings, Path(folder) / "run").selected)
        clean = " ".join(f"{record.clean_accuracy:.3f}" for record in records)
        robust = " ".join(f"{record.robust_accuracy:.3f}" for record in records)
        mean = statistics.mean(record.robust_accuracy for record in records)
        print(f"{ce:g} | {multiple:g} | {weight:.2f} | {clean} | {robust} | {mean:.3f}", flush=True)


if __name__ == "__main__":
    main()
