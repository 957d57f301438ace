import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from kdcompress.maths.norms import dual_exponent, flat_norm, norm_of, steepest
from kdcompress.threat import NORMS, Norm

EXPONENTS = st.sampled_from([1.0, 2.0, math.inf])
EPS32 = float(np.finfo(np.float32).eps)
# Any finite float32 whose sixteen-fold is still finite: the norm of a row must be a number itself.
ENTRIES = st.floats(-(2.0**123), 2.0**123, width=32)
ROWS = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 16)), elements=ENTRIES).map(torch.from_numpy)
MODERATE = arrays(np.float32, (3, 8), elements=st.floats(-100, 100, width=32)).map(torch.from_numpy)


@given(ROWS, EXPONENTS)
def test_norms_and_their_gradients_are_finite_for_every_finite_row(v: Tensor, p: float) -> None:
    v.requires_grad_()
    norm = flat_norm(v, p)
    (gradient,) = torch.autograd.grad(norm.sum(), v)
    assert norm.isfinite().all()
    assert gradient.isfinite().all()
    assert norm.ge(0).all()


@given(ROWS, EXPONENTS)
def test_a_norm_is_zero_exactly_where_the_row_is(v: Tensor, p: float) -> None:
    assert torch.equal(flat_norm(v, p) == 0, (v == 0).all(dim=1))


@given(MODERATE, MODERATE, EXPONENTS)
def test_norms_obey_the_triangle_inequality(v: Tensor, w: Tensor, p: float) -> None:
    both = flat_norm(v, p) + flat_norm(w, p)
    assert flat_norm(v + w, p).le(both * (1 + 16 * EPS32) + 1e-30).all()  # eight additions and a root on each side


@given(MODERATE, EXPONENTS, st.integers(-20, 20))
def test_norms_scale_with_the_row(v: Tensor, p: float, exponent: int) -> None:
    assert torch.allclose(flat_norm(v * 2.0**exponent, p), flat_norm(v, p) * 2.0**exponent, rtol=4 * EPS32, atol=1e-38)


@pytest.mark.parametrize("norm", NORMS)
@given(g=MODERATE, v=MODERATE)
def test_no_direction_in_the_unit_ball_gains_more_than_the_steepest(norm: Norm, g: Tensor, v: Tensor) -> None:
    unit = v / norm_of(v, norm)[:, None].clamp_min(1.0)
    most = flat_norm(g, dual_exponent(norm))
    slack = 32 * EPS32 * most + 1e-30
    assert (g * unit).sum(1).le(most + slack).all()
    assert ((g * steepest(g, norm)).sum(1) - most).abs().le(slack).all()
