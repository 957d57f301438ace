"""Images, teachers and settings so small that a run takes a fraction of a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.models.checkpoints import save_model
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.students import create_student
from kdcompress.settings import (
    DataSettings,
    DistillSettings,
    LossSettings,
    ModelFile,
    RunSettings,
    TeacherCheckSettings,
    ThreatSettings,
    TrainSettings,
)

TINY = {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8), "drop_rate": 0.2}  # dropout draws in training
DEFAULT, INSIST = LossSettings(), TeacherCheckSettings(insist=True)


@pytest.fixture(scope="session")
def halves() -> Split:
    """60 grey 8x8 images of 3 classes: another third of the rows is bright, and noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    pixels = torch.randint(40, 80, (60, 1, 8, 8), generator=random)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[:, 3 * label : 3 * label + 2] += 150
    return split_from_pixels(pixels.to(torch.uint8), labels)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training split alone: 30 colour images of 3 classes. There is no test split to look at."""
    root = tmp_path_factory.mktemp("data") / "thirds"
    random = np.random.RandomState(0)
    for label in range(3):
        (root / "train" / str(label)).mkdir(parents=True)
        for number in range(10):
            pixels = random.randint(40, 80, (8, 8, 3), dtype=np.uint8)
            pixels[3 * label : 3 * label + 2] += 150
            Image.fromarray(pixels).save(root / "train" / str(label) / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network in a file of ours: what a run does with it does not depend on what it knows."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(7)
    args = {"layers": (1, 1, 1, 1), "channels": (4, 8, 8, 16)}
    statistics = {"mean": (0.3, 0.3, 0.3), "std": (0.2, 0.2, 0.2)}
    model, record = create_student("resnet18", args, classes="012", input_size=(3, 8, 8), **statistics)
    save_model(path, model, record)
    return path


@pytest.fixture(scope="session")
def distilling(folder: Path, teacher_file: Path) -> Callable[..., DistillSettings]:
    """Settings of a run of a second; keywords change the run, `loss` and `check` the rest."""

    def settings(loss: LossSettings = DEFAULT, check: TeacherCheckSettings = INSIST, **run: object) -> DistillSettings:
        chosen = {"epochs": 2, "batch_size": 9, "device": "cpu", "lr": 0.01} | run
        return DistillSettings(
            teacher=ModelFile(path=teacher_file),
            student="resnet18",
            student_args=TINY,
            data=DataSettings(data=str(folder)),
            threat=ThreatSettings(eps=0.03),
            loss=loss,
            run=RunSettings.of(**chosen),
            check=check,
        )

    return settings


@pytest.fixture(scope="session")
def training(folder: Path) -> Callable[..., TrainSettings]:
    """The same without a teacher."""

    def settings(**run: object) -> TrainSettings:
        return TrainSettings(
            model="resnet18",
            model_args=TINY,
            data=DataSettings(data=str(folder)),
            threat=ThreatSettings(eps=0.03),
            attack_steps=2,
            run=RunSettings.of(**({"epochs": 1, "batch_size": 9, "device": "cpu"} | run)),
        )

    return settings


@pytest.fixture
def saved() -> Callable[[Path, NormalisedModel, ModelRecord], Path]:
    """Writes a model file."""

    def write(path: Path, model: NormalisedModel, record: ModelRecord) -> Path:
        save_model(path, model, record)
        return path

    return write
