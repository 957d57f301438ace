"""Small trees of images on the disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteTree = Callable[..., Path]


def _write_image(path: Path, number: int, size: tuple[int, int], mode: str) -> None:
    """Noise, another one for every number, stored without loss."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    noise = np.random.RandomState(number).randint(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise[:, :, 0] if mode == "L" else noise).save(path)


@pytest.fixture
def write_image() -> Callable[[Path, int, tuple[int, int], str], None]:
    return _write_image


@pytest.fixture
def write_tree(tmp_path: Path) -> WriteTree:
    """root/<split>/<class>/NNNN.png with `per_class` images each; returns the root."""

    def write(
        root: str = "pictures",
        *,
        splits: tuple[str, ...] = ("train", "test"),
        classes: tuple[str, ...] = ("ant", "bee"),
        per_class: int = 5,
        size: tuple[int, int] = (6, 4),
        mode: str = "RGB",
    ) -> Path:
        number = 0
        for split in splits:
            for name in classes:
                for i in range(per_class):
                    _write_image(tmp_path / root / split / name / f"{i:04d}.png", number, size, mode)
                    number += 1
        return tmp_path / root

    return write
