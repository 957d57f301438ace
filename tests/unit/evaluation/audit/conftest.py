import pytest
from torch import nn

from kdcompress.data import Split
from tests.unit.evaluation.audit.networks import labelled, linear


@pytest.fixture
def teacher() -> nn.Sequential:
    return linear(0)


@pytest.fixture
def images(teacher: nn.Module) -> Split:
    return labelled(teacher)
