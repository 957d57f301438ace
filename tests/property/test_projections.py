import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from kdcompress.attacks.pgd import into_ball
from kdcompress.maths.norms import norm_of, project
from kdcompress.threat import NORMS, Norm, ThreatModel

SHAPE = (3, 2, 2, 2)
DELTAS = arrays(np.float64, SHAPE, elements=st.floats(-10, 10)).map(torch.from_numpy)
IMAGES = arrays(np.float64, SHAPE, elements=st.floats(0, 1)).map(torch.from_numpy)
RADII = st.floats(1e-3, 1.0)


def length(delta: Tensor, norm: Norm) -> Tensor:
    return norm_of(delta, norm)


@pytest.mark.parametrize("norm", NORMS)
@given(delta=DELTAS, eps=RADII)
def test_projections_are_in_the_ball_and_project_onto_themselves(norm: Norm, delta: Tensor, eps: float) -> None:
    threat = ThreatModel(norm, eps)
    projected = project(delta, threat)
    # float64's rounding; L1 subtracts from a sum of up to 80.
    assert length(projected, norm).le(eps * (1 + 1e-14) + (1e-13 if norm == "L1" else 0)).all()
    torch.testing.assert_close(project(projected, threat), projected, rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("norm", NORMS)
@given(delta=DELTAS, other=DELTAS, eps=RADII)
def test_projections_are_the_nearest_points(norm: Norm, delta: Tensor, other: Tensor, eps: float) -> None:
    """The variational inequality: P is nearest if and only if <delta - P, z - P> <= 0 for every z in the ball."""
    threat = ThreatModel(norm, eps)
    P, z = project(delta, threat), project(other, threat)
    obtuse = ((delta - P) * (z - P)).flatten(1).sum(1)
    assert obtuse.le(1e-12).all()  # eight products of sizes under 20, in float64


@pytest.mark.parametrize("norm", NORMS)
@given(x=IMAGES, delta=DELTAS, eps=RADII)
def test_what_is_brought_into_the_ball_is_in_zero_to_one_as_well(
    norm: Norm, x: Tensor, delta: Tensor, eps: float
) -> None:
    found = into_ball(x, delta, ThreatModel(norm, eps))
    assert found.ge(0).all()
    assert found.le(1).all()
    assert length(found - x, norm).le(eps + 1e-13).all()


@pytest.mark.parametrize("norm", NORMS)
@given(x=IMAGES, other=IMAGES)
def test_what_is_in_the_ball_already_is_left_alone(norm: Norm, x: Tensor, other: Tensor) -> None:
    threat = ThreatModel(norm, 3.0 if norm == "L1" else 1.0)
    inside = into_ball(x, (other - x) / 3, threat)  # eight entries under 1/3: an L2 norm under 1, an L1 norm under 3
    torch.testing.assert_close(inside, x + (other - x) / 3, rtol=0, atol=1e-15)
