"""A real network on real images: the built-in digits' robust teacher."""

from pathlib import Path

import pytest

import kdcompress
from kdcompress.data import Data, load_data
from kdcompress.models.teachers import LoadedModel, load_model

TEACHER = Path(kdcompress.__file__).parent / "assets" / "digits_teacher.safetensors"


@pytest.fixture(scope="session")
def digits() -> Data:
    return load_data("digits", image_size=16)


@pytest.fixture(scope="session")
def robust() -> LoadedModel:
    return load_model(TEACHER)
