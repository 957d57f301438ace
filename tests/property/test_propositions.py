"""Both inequalities, at whatever points of the ball, between whatever networks; and what the audit makes of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdcompress.data.splits import split_from_pixels
from kdcompress.evaluation.audit.points import Pair, judged
from kdcompress.evaluation.audit.proposition1 import proposition1
from kdcompress.evaluation.audit.proposition2 import proposition2
from kdcompress.maths.jacobian import logits_and_jacobian, loss_gradient
from kdcompress.maths.loss_gap import Loss, gaps, loss_bound
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.margins import Network, kept_margin, margin_gradients, margins, slack
from kdcompress.maths.norms import norm_of
from kdcompress.settings import AuditSettings
from kdcompress.threat import NORMS, Norm, ThreatModel

B, K, SHAPE = 3, 4, (1, 2, 2)
SEEDS = st.integers(0, 2**31 - 1)
SCALES = st.sampled_from([0.1, 1.0, 30.0])
EPS = st.sampled_from([0.01, 0.2, 0.9])


def network(seed: int, scale: float) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, K))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(scale)
    return layers.eval().requires_grad_(False)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=40)
@given(seeds=st.tuples(SEEDS, SEEDS, SEEDS), scale=SCALES, eps=EPS)
def test_both_inequalities_hold_at_every_point_that_is_merged(
    norm: Norm, seeds: tuple[int, int, int], scale: float, eps: float
) -> None:
    ball = ThreatModel(norm, eps)
    pair = Pair.of(network(seeds[0], scale), network(seeds[1], 1.0), 64)
    x, y = numbers(seeds[2], B, *SHAPE), torch.arange(B)
    wild = [x + 4 * numbers(seeds[2] + i, B, *SHAPE) - 2 for i in range(3)]  # mostly far outside
    points = judged(pair, x, [x, *wild], ball)
    for place in range(4):
        assert norm_of(points.delta[:, place], norm).le(eps * (1 + 1e-12)).all()
        moved = x.double().flatten(1) + points.delta[:, place]
        assert moved.amin() >= -1e-15 and moved.amax() <= 1 + 1e-15

    s, t = (logits_and_jacobian(model, x.double()) for model in (pair.exact_student, pair.exact_teacher))
    rivals = (y[:, None] + torch.arange(1, K)) % K
    of_margins, of_losses = [], []
    for (f, jacobian), logits in ((s, points.student), (t, points.teacher)):
        gradient = margin_gradients(jacobian, y, rivals)
        of_margins.append(Network(margins(f, y, rivals), gradient, margins(logits, y, rivals)))
        losses = cross_entropy(logits.flatten(0, 1), y.repeat_interleave(4)).view(B, 4)
        of_losses.append(Loss(cross_entropy(f, y), loss_gradient(f, jacobian, y), losses))
    kept = kept_margin(*of_margins, points.delta, ball)
    size = 1 + kept.lost.max().item()
    assert slack(*of_margins, kept).min() >= -1e-12 * size  # float64, some hundred operations
    bound = loss_bound(*of_losses, points.delta, ball)
    assert (gaps(*of_losses) <= bound.tight[:, None] + 1e-12 * (1 + bound.tight.max())).all()
    assert (bound.tight <= bound.of_paper * (1 + 1e-12)).all()


@settings(max_examples=15)
@given(seeds=st.tuples(SEEDS, SEEDS, SEEDS), scale=SCALES, eps=EPS, norm=st.sampled_from(["Linf", "L2"]))
def test_no_audit_ends_with_a_violation(seeds: tuple[int, int, int], scale: float, eps: float, norm: Norm) -> None:
    student, teacher = network(seeds[0], scale), network(seeds[1], 1.0)
    pixels = (255 * numbers(seeds[2], B, *SHAPE)).to(torch.uint8)
    images = split_from_pixels(pixels, torch.arange(B))
    budget = AuditSettings(steps=1, restarts=0, batch_size=64)
    ball, cpu = ThreatModel(norm, eps), torch.device("cpu")
    first = proposition1(student, teacher, images, ball, budget, classes=K, device=cpu)
    second = proposition2(student, teacher, images, ball, budget, device=cpu)
    assert first.violated == second.violated == 0
    assert all(
        low <= high + 1e-5 * (1 + abs(high)) for low, high in _sides(first.terms.guaranteed, first.terms.student_margin)
    )
    assert all(low <= high for low, high in _sides(second.gap, second.bound))


def _sides(low: tuple[float, ...], high: tuple[float, ...]) -> list[tuple[float, float]]:
    return list(zip(low, high, strict=True))
