import pytest

from kdcompress.bounds.graph import Network, trace
from tests.bounded import Residual, perceptron, seeded


@pytest.fixture(scope="session")
def residual() -> Network:
    """Of 1 x 6 x 6 images, 3 classes."""
    return trace(seeded(Residual), (1, 6, 6))


@pytest.fixture(scope="session")
def flat() -> Network:
    """`perceptron()`: of 1 x 1 x 4 images, 3 classes."""
    return trace(perceptron(), (1, 1, 4))
