"""Which small students sound bounds can certify, at which eps, and where it stops.

    python examples/benchmarks/certifiable.py digits
    python examples/benchmarks/certifiable.py cifar10 --teacher resnet4b.pth --data cifar10/

ResNet-18s of one block a stage with ReLUs, of several widths, each trained on plain cross-entropy, by KDIGA, and
adversarially; the teacher last. For each eps: verified accuracy, then accuracy under PGD-20, on the same images of the
test split's seeded shuffle; then the median of the largest certified eps of an image; then seconds an image, on one
thread. No setting is chosen by these figures.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from kdcompress import (
    DataSettings,
    DistillSettings,
    LossSettings,
    ModelFile,
    RunSettings,
    ThreatSettings,
    TrainSettings,
    distill,
    load_data,
    load_model,
    train,
)
from kdcompress.data import Split
from kdcompress.evaluation.verified import prepared, verified
from kdcompress.models.cost import parameter_count
from kdcompress.models.teachers import LoadedModel
from kdcompress.report import Verified
from kdcompress.threat import parse_eps

ROOT = Path(__file__).parents[2]
WIDTHS = ([4, 8, 8, 16], [8, 12, 16, 24], [16, 24, 32, 40])
RECIPES = ("cross-entropy", "KDIGA", "adversarial")
EPS = {"digits": "0.15", "cifar10": "2/255"}
RADII = {"digits": "0.005,0.01,0.02,0.04,0.08", "cifar10": "0.25/255,0.5/255,1/255,2/255"}
STRIDE = {"digits": 8, "cifar10": 32}


def teacher_file(on: str, path: Path | None) -> ModelFile:
    if on == "digits":
        return ModelFile(path=path or ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors")
    if path is None:
        raise SystemExit("cifar10 needs --teacher and --data")
    return ModelFile(
        path=path,
        arch=f"{ROOT}/examples/cifar10/resnet4b.py:resnet4b",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2471, 0.2435, 0.2616),
    )


def trained(
    on: str, recipe: str, channels: Sequence[int], teacher: ModelFile, data: DataSettings, epochs: int, out: Path
) -> LoadedModel:
    """The student, from the folder that its training left."""
    shape = {
        "layers": [1, 1, 1, 1],
        "channels": list(channels),
        "act_layer": "relu",
        "stem_type": "deep",
        "stem_width": 8,
        "replace_stem_pool": True,  # bounds cannot pass max-pooling
    }
    run = RunSettings(epochs=epochs, batch_size=64, lr=1e-2)
    threat = ThreatSettings(eps=EPS[on])
    if recipe == "adversarial":
        train(
            TrainSettings(
                model="resnet18",
                model_args=shape,
                model_stride=STRIDE[on],
                data=data,
                threat=threat,
                run=run,
                attack_steps=5,
            ),
            out,
        )
    else:
        plain = LossSettings(ce_weight=1.0, kl_weight=0.0, iga_weight=0.0, input_noise="none")
        distill(
            DistillSettings(
                teacher=teacher,
                student="resnet18",
                student_args=shape,
                student_stride=STRIDE[on],
                data=data,
                threat=threat,
                run=run,
                loss=LossSettings() if recipe == "KDIGA" else plain,
            ),
            out,
        )
    return load_model(out / "student.safetensors")


def line(name: str, loaded: LoadedModel, images: Split, radii: Sequence[float], keep: Path | None) -> str:
    with torch.no_grad():
        clean = sum(int((loaded.model(x).argmax(1) == y).sum()) for x, y in images.batches(100)) / len(images)
    C, H, W = next(images.batches(1))[0].shape[1:]
    subject = prepared(loaded.model, (C, H, W))
    found: Verified = verified(subject, images, "Linf", radii, device=torch.device("cpu"), folder=keep)
    size = f"{parameter_count(loaded.model) / 1000:.0f}k"
    if found.unsupported is not None:
        return f"| {name} | {size} | {clean:.2f} | {found.unsupported} |"
    rates = " | ".join(f"{at.value:.2f} / {1 - (at.broken + at.wrong) / at.n:.2f}" for at in found.at)
    return f"| {name} | {size} | {clean:.2f} | {rates} | {found.median:.4f} | {found.seconds / found.n:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("on", choices=tuple(EPS))
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--train-images", type=int, default=5000)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--keep-dir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    teacher, name = teacher_file(options.on, options.teacher), options.data or "digits"
    data = load_data(name, splits=["test"])
    assert data.test is not None
    images = data.test.shuffled(options.images, options.seed)
    radii = [parse_eps(text) for text in RADII[options.on].split(",")]
    few = DataSettings(data=name, train_images=None if options.on == "digits" else options.train_images)
    print(f"{options.on}, {len(images)} images, {time.strftime('%Y-%m-%d')}")
    print(f"| network | parameters | clean | {' | '.join(RADII[options.on].split(','))} | median | seconds |")
    print("|---" * (len(radii) + 5) + "|", flush=True)
    for channels in WIDTHS:
        for recipe in RECIPES:
            row = f"{'-'.join(map(str, channels))}, {recipe}"
            if options.only in row:
                with tempfile.TemporaryDirectory() as folder:
                    student = trained(
                        options.on, recipe, channels, teacher, few, options.epochs, Path(folder) / "student"
                    )
                    print(line(row, student, images, radii, options.keep_dir), flush=True)
    if options.only in "teacher":
        loaded = load_model(
            teacher.path,
            arch=teacher.arch,
            mean=teacher.mean,
            std=teacher.std,
            classes=data.classes,
            input_size=data.input_size,
        )
        print(line("the teacher", loaded, images, radii, options.keep_dir), flush=True)


if __name__ == "__main__":
    main()
