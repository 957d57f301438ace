"""A data set, a teacher and a student, so small that a whole run takes a second."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kdcompress.__main__ import app

EPS = "4/255"
CLASSES = ("east", "north", "south", "west")
SIDE = 8

FACTORY = """
from torch import nn

def linear(classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))

def probabilities(classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes), nn.Softmax(1))
"""


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code, and what it said where."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, and no job summary to write into, wherever the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        yield


@pytest.fixture(scope="session")
def run() -> Run:
    """The command line in this process: arguments -> exit code, stdout, stderr."""

    def command(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
        return Ran(result.exit_code, result.stdout, result.stderr)

    return command


def write_pictures(root: Path, splits: dict[str, int], classes: tuple[str, ...] = CLASSES) -> Path:
    """root/<split>/<class>/NN.png: 8x8 colour images, each class with another quadrant bright, and noise."""
    random = np.random.RandomState(0)
    for split, per_class in splits.items():
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = random.randint(40, 80, (SIDE, SIDE, 3), dtype=np.uint8)
                row, column = divmod(label, 2)
                pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 140
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and test images: 20 and 4 of each class."""
    return write_pictures(tmp_path_factory.mktemp("data") / "quadrants", {"train": 20, "test": 4})


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python file with the teachers' architectures."""
    path = tmp_path_factory.mktemp("factory") / "nets.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch file with a linear teacher's weights: it compares the quadrants' brightness, so eps hardly moves it."""
    quadrant = torch.arange(SIDE) // 4
    where = (2 * quadrant[:, None] + quadrant[None, :]).flatten()
    per_class = torch.stack([torch.where(where == label, 0.03, -0.01) for label in range(4)])
    path = tmp_path_factory.mktemp("teacher") / "robust.pt"
    torch.save({"1.weight": per_class.repeat(1, 3), "1.bias": torch.zeros(4)}, path)
    return path


@pytest.fixture(scope="session")
def teacher(weights: Path, factory: Path) -> list[str]:
    """The options that name the teacher."""
    return ["--teacher", str(weights), "--teacher-arch", f"{factory}:linear", "--teacher-mean", "none"]


@pytest.fixture(scope="session")
def small() -> list[str]:
    """The options of a student and a run that take a moment."""
    return [
        *("--student", "resnet18", "--student-arg", "layers=1,1,1,1", "--student-arg", "channels=4,4,8,8"),
        *("--eps", EPS, "--epochs", "2", "--batch-size", "16", "--device", "cpu"),
    ]


@pytest.fixture(scope="session")
def student(
    run: Run, pictures: Path, teacher: list[str], small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A distilled student's folder."""
    out = tmp_path_factory.mktemp("runs") / "student"
    ran = run("distill", *teacher, *small, "--data", pictures, "--out", out)
    assert ran.code == 0, ran.stderr
    return out
