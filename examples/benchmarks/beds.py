"""Where rows of the evidence table can be compared: the data, the teacher and the students."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Student:
    """A timm network; `lr` where the bed's learning rate is not for it, `rates` where a recipe wants another still.

    Attributes:
        epochs: where it takes longer to learn than the bed's others.
    """

    arch: str
    arguments: dict[str, Any]
    stride: int | None = None
    lr: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    epochs: int | None = None

    def rate(self, recipe: str) -> float | None:
        return self.rates.get(recipe, self.lr)


@dataclass(frozen=True)
class Bed:
    """Where rows can be compared: data, teacher, radius, and epochs that fit the machine, the same for every row."""

    data: str | None
    teacher: dict[str, Any]
    eps: str
    epochs: int
    images: int
    students: dict[str, Student]
    train_images: int | None = None
    batch_size: int = 128
    lr: float = 1e-2
    last_by: str = "pgd-50"


SMALL = {
    "layers": [1, 1, 1, 1],
    "stem_type": "deep",
    "stem_width": 8,
    "act_layer": "silu",
    "channels": [16, 24, 32, 40],
}
CIFAR_STATISTICS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [16, 24, 32, 48]}
VIT = {"depth": 4, "embed_dim": 96, "num_heads": 3}

DIGITS = Bed(
    data="digits",
    teacher={"path": ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors"},
    eps="0.15",
    epochs=45,
    images=200,
    students={
        "resnet18": Student("resnet18", SMALL, stride=8),
        "convnext": Student("convnext_atto", CONVNEXT, stride=8, rates={"at": 3e-3}),
        "mobilenetv2": Student("mobilenetv2_035", {}, stride=8, lr=3e-3, rates={"at": 1e-2}, epochs=60),
        "vit": Student("vit_tiny_patch16_224", VIT, lr=3e-3),
    },
    batch_size=64,
)

CIFAR_SMALL = Bed(
    data=None,
    teacher={"arch": f"{ROOT}/examples/cifar10/resnet4b.py:resnet4b", **CIFAR_STATISTICS},
    eps="2/255",
    epochs=8,
    images=200,
    students={"resnet18": Student("resnet18", SMALL, stride=32), "mobilenetv2": Student("mobilenetv2_035", {})},
    train_images=10_000,
)

BEDS = {
    "digits": DIGITS,
    # As `digits`, by a teacher of the same shape that was trained for 200 epochs instead of 60.
    "digits-long": replace(DIGITS, teacher={"path": ROOT / "examples" / "digits" / "long_teacher.safetensors"}),
    "cifar10-small": CIFAR_SMALL,
    # All training images for as many epochs: five times as long.
    "cifar10-whole": replace(CIFAR_SMALL, train_images=None),
    "cifar10": Bed(
        data=None,
        teacher={},
        eps="8/255",
        epochs=100,
        images=1000,
        last_by="autoattack",
        students={
            "resnet18": Student("resnet18", {}),
            "mobilenetv2": Student("mobilenetv2_100", {}),
            "convnext": Student("convnext_atto", {}),
        },
        lr=3e-3,
    ),
}
