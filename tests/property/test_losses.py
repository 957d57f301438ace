import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from kdcompress.maths.losses import cross_entropy, distillation_kl, gradient_distance

B, K = 4, 5
LOGITS = arrays(np.float64, (B, K), elements=st.floats(-1e3, 1e3)).map(torch.from_numpy)
LABELS = arrays(np.int64, (B,), elements=st.integers(0, K - 1)).map(torch.from_numpy)
GRADIENTS = arrays(np.float64, (B, 1, 2, 3), elements=st.floats(-1e6, 1e6)).map(torch.from_numpy)
TEMPERATURES = st.floats(0.5, 20)


@given(LOGITS, LABELS)
def test_cross_entropy_is_never_negative_and_at_least_the_gap_to_the_largest_logit(f: Tensor, y: Tensor) -> None:
    ce = cross_entropy(f, y)
    gap = f.amax(1) - f.gather(1, y[:, None]).squeeze(1)
    assert ce.ge(gap - 1e-9).all()
    assert ce.le(gap + np.log(K) + 1e-9).all()


@given(LOGITS, LOGITS, TEMPERATURES)
def test_the_kl_is_never_negative_and_finite(f_s: Tensor, f_t: Tensor, T: float) -> None:
    kl = distillation_kl(f_s, f_t, T)
    assert kl.isfinite().all()
    assert kl.ge(-1e-10).all()  # T^2 <= 400 times K terms, each rounded to 2e-16 of logits up to 2e3


@given(LOGITS, TEMPERATURES)
def test_the_kl_is_exactly_zero_when_student_is_teacher(f: Tensor, T: float) -> None:
    assert torch.equal(distillation_kl(f, f.clone(), T), torch.zeros(B, dtype=torch.float64))


@given(LOGITS, LOGITS, TEMPERATURES, st.floats(-100, 100))
def test_the_kl_ignores_a_common_shift(f_s: Tensor, f_t: Tensor, T: float, shift: float) -> None:
    kl = distillation_kl(f_s, f_t, T)
    torch.testing.assert_close(distillation_kl(f_s + shift, f_t - shift, T), kl, rtol=1e-9, atol=1e-9)


@given(GRADIENTS, GRADIENTS, st.sampled_from([1.0, 2.0]), st.permutations(range(B)))
def test_the_distance_is_symmetric_and_each_examples_own(g: Tensor, h: Tensor, p: float, order: list[int]) -> None:
    distance = gradient_distance(g, h, p)
    assert torch.equal(gradient_distance(h, g, p), distance)
    assert torch.equal(gradient_distance(g[order], h[order], p), distance[order])


@given(GRADIENTS, GRADIENTS)
def test_the_dual_norm_of_linf_is_never_below_the_euclidean_one(g: Tensor, h: Tensor) -> None:
    one, two = gradient_distance(g, h, 1), gradient_distance(g, h, 2)
    assert one.ge(two * (1 - 1e-12)).all()
    assert one.le(two * 6**0.5 * (1 + 1e-12)).all()
