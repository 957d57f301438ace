"""The digits, the shipped robust teacher, and a network trained on them in seconds: natural, sure of itself."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import kdcompress
from kdcompress.data import Split, load_data
from kdcompress.models.teachers import load_model
from tests.defences import plain_cnn, trained


@pytest.fixture(scope="session")
def train() -> Split:
    found = load_data("digits", splits=("train",)).train
    assert found is not None
    return found


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """60 images of the test split."""
    found = load_data("digits", splits=("test",)).test
    assert found is not None
    return next(found.batches(60))


@pytest.fixture(scope="session")
def teacher() -> nn.Module:
    """Robust at Linf .15."""
    return load_model(Path(kdcompress.__file__).parent / "assets" / "digits_teacher.safetensors").model


@pytest.fixture(scope="session")
def natural(train: Split) -> nn.Module:
    torch.manual_seed(0)
    return trained(plain_cnn(train), train, epochs=10)
