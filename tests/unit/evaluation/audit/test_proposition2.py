"""Eq. 26 on networks where its terms are known, and where a term is planted."""

import math
import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.ascent import extremes
from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.evaluation.audit import proposition2 as module
from kdcompress.evaluation.audit.memory import TooLargeError
from kdcompress.evaluation.audit.proposition2 import proposition2
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import cross_entropy
from kdcompress.report import Proposition2
from kdcompress.settings import AuditSettings
from kdcompress.threat import Norm, ThreatModel
from tests.unit.evaluation.audit.networks import CPU, Plus, Turned, curved, first, linear

THREATS = [ThreatModel("Linf", 0.1), ThreatModel("L2", 0.3)]


def evaluated(
    student: nn.Module, teacher: nn.Module, images: Split, threat: ThreatModel, **rest: object
) -> Proposition2:
    outside = {name: rest.pop(name) for name in ("folder", "memory") if name in rest}
    settings = AuditSettings(**({"steps": 5, "batch_size": 64} | rest))  # type: ignore[arg-type]
    return proposition2(student, teacher, images, threat, settings, device=CPU, **outside)  # type: ignore[arg-type]


@pytest.mark.parametrize("threat", THREATS)
def test_a_student_that_is_the_teacher_has_no_gap_and_only_the_remainders_bound_it(
    threat: ThreatModel, images: Split
) -> None:
    model = curved(0)
    found = evaluated(model, model, images, threat)
    assert found.gap == found.losses == found.gradients == (0.0,) * 6
    assert found.remainder_student == found.remainder_teacher
    assert found.bound == pytest.approx([2 * r for r in found.remainder_student], rel=1e-5)
    assert found.exceeded.value == 0 and found.violated == 0
    assert found.n == 6 and found.norm == threat.norm and found.kind == "estimate"


@pytest.mark.parametrize("threat", THREATS)
def test_every_term_is_what_the_equation_says(threat: ThreatModel, images: Split, teacher: nn.Module) -> None:
    student = curved(1)
    found = evaluated(student, teacher, images, threat)
    x, y = next(images.batches(6))
    f_s, g_s = logits_and_input_gradient(student, x, y, create_graph=False)
    f_t, g_t = logits_and_input_gradient(teacher, x, y, create_graph=False)
    losses = (cross_entropy(f_s, y) - cross_entropy(f_t, y)).abs()
    q = 1 if threat.norm == "Linf" else 2
    gradients = threat.eps * torch.linalg.vector_norm((g_s - g_t).flatten(1), ord=q, dim=1)
    assert found.losses == pytest.approx(losses.tolist(), abs=1e-6)  # float32 here
    assert found.losses_of_paper == pytest.approx((cross_entropy(f_s, y) + cross_entropy(f_t, y)).tolist(), rel=1e-5)
    assert found.gradients == pytest.approx(gradients.tolist(), rel=1e-4)
    for bound, losses_term in ((found.bound, found.losses), (found.bound_of_paper, found.losses_of_paper)):
        terms = zip(found.remainder_student, found.remainder_teacher, losses_term, found.gradients, strict=True)
        assert bound == pytest.approx([sum(term) for term in terms], rel=1e-4)
    assert found.median_bound == pytest.approx(statistics.median(found.bound), rel=1e-5)
    assert sum(found.dominant.values()) == 6


@pytest.mark.parametrize("threat", THREATS)
def test_the_gap_never_exceeds_the_bound_after_merging_nor_the_bound_that_of_the_paper(
    threat: ThreatModel, images: Split
) -> None:
    for seed in range(3):
        found = evaluated(curved(seed), curved(seed + 5), images, threat, steps=1, restarts=0)
        assert found.violated == 0
        assert all(
            gap <= bound <= paper
            for gap, bound, paper in zip(found.gap, found.bound, found.bound_of_paper, strict=True)
        )
        assert min(found.gap) > 0


def test_the_gap_of_a_planted_shift_is_found_and_the_loss_term_bounds_it(images: Split, teacher: nn.Module) -> None:
    # The same slopes everywhere but another bias: CE differs, and most of the bound is the loss term.
    student = linear(0)
    with torch.no_grad():
        student.get_parameter("1.bias")[0] += 0.5
    found = evaluated(student, teacher, images, ThreatModel("Linf", 0.01))
    assert found.dominant["losses"] >= 5
    assert all(gap >= loss for gap, loss in zip(found.gap, found.losses, strict=True))  # x is in the ball
    assert all(gap <= 1.1 * loss + 1e-3 for gap, loss in zip(found.gap, found.losses, strict=True))


def test_a_planted_slope_makes_the_gradient_term_dominate(images: Split, teacher: nn.Module) -> None:
    one = images.subset([0])
    A = torch.zeros(4, 6)
    A[int(one.labels)] = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
    found = evaluated(Plus(teacher, Turned(A, first(one))), teacher, one, ThreatModel("Linf", 0.02))
    assert found.dominant["gradients"] == 1
    assert found.losses[0] < 1e-6
    assert found.gap[0] == pytest.approx(found.gradients[0], rel=0.2)  # CE bends little over so small a ball


def test_an_ascent_that_finds_nothing_is_exceeded_by_the_attack_and_mended_by_merging(
    images: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lazy(r: object, inputs: Tensor, *rest: object, **more: object) -> list[Tensor]:
        asked.append(1)
        if len(asked) == 1:  # the attack on the gap, which comes first
            return extremes(r, inputs, *rest, **more)  # type: ignore[arg-type]
        return [inputs] * 4

    asked: list[int] = []
    monkeypatch.setattr(module, "extremes", lazy)
    # The teacher is flat, the student its equal at x but for a strong bend.
    x = first(images.subset([0]))

    class Bent(nn.Module):
        def forward(self, at: Tensor) -> Tensor:
            f = torch.zeros(len(at), 4, dtype=at.dtype)
            f[:, 0] = 50 * (at - x.to(at.dtype)).flatten(1).square().sum(1)
            return f

    class Flat(nn.Module):
        def forward(self, at: Tensor) -> Tensor:
            return at.flatten(1)[:, :4] * 0

    found = evaluated(Bent(), Flat(), images.subset([0]), ThreatModel("Linf", 0.1), steps=10)
    assert (found.exceeded.value, found.raised.value, found.violated) == (1.0, 1.0, 0)
    assert found.gap[0] > 0.1


def test_what_float32_gets_wrong_is_measured_and_small(images: Split) -> None:
    found = evaluated(curved(0), curved(1), images, ThreatModel("Linf", 0.1))
    assert 0 < found.rounding < 1e-5  # logits of a few units, some ten roundings of 1e-7 each


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_same_seed_gives_the_same_record_and_another_other_starts(norm: Norm, images: Split) -> None:
    threat = ThreatModel(norm, 0.4)
    one, again, other = (evaluated(curved(3), curved(4), images, threat, steps=1, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one.remainder_student != other.remainder_student or one.remainder_teacher != other.remainder_teacher


class Dented(nn.Module):
    """Logits (0, height * max(x_place - 0.5, 0)^2): level where x is 0.5, bent along one entry alone."""

    def __init__(self, place: int, height: float) -> None:
        super().__init__()
        self.place, self.height = place, height

    def forward(self, x: Tensor) -> Tensor:
        away = (x.flatten(1)[:, self.place] - 0.5).clamp_min(0).square()
        return torch.stack([0 * away, self.height * away], 1) + 0 * x.flatten(1)[:, :1]


@pytest.mark.parametrize(
    ("by_search", "exceeded", "raised"),
    [
        ({"loss gap": 0, "student's remainder": 0, "teacher's remainder": 1}, False, False),
        ({"loss gap": 0, "student's remainder": 1, "teacher's remainder": 1}, True, True),  # missed the student's
        ({"loss gap": 1, "student's remainder": 0, "teacher's remainder": 0}, False, True),  # its sum is still enough
        ({"loss gap": 1, "student's remainder": 1, "teacher's remainder": 0}, True, True),  # each finds the other's
        ({"loss gap": 1, "student's remainder": 1, "teacher's remainder": 1}, False, False),
    ],
)
def test_remainders_are_those_of_each_networks_own_ascent_until_the_points_are_merged(
    by_search: dict[str, int], exceeded: bool, raised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The student bends along entry 0, by 3 at the end of the ball, the teacher along entry 1, by 1.
    eps = 0.1
    student, teacher = Dented(0, 3 / eps**2), Dented(1, 1 / eps**2)
    grey = split_from_pixels(torch.full((1, 1, 2, 3), 128, dtype=torch.uint8), torch.tensor([0]))

    def by_hand(search: str, pair: object, x: Tensor, *rest: object) -> list[Tensor]:
        point = x.clone()
        point.flatten(1)[:, by_search[search]] += eps
        return [point]

    monkeypatch.setattr(module, "searched", by_hand)
    found = evaluated(student, teacher, grey, ThreatModel("Linf", eps))
    assert (bool(found.exceeded.value), bool(found.raised.value), found.violated) == (exceeded, raised, 0)
    places = set(by_search.values())
    log2 = math.log(2)
    wanted = [math.log1p(math.exp(bend)) - log2 if place in places else 0.0 for place, bend in ((0, 3), (1, 1))]
    assert [found.remainder_student[0], found.remainder_teacher[0]] == pytest.approx(wanted, abs=0.1)  # grey is 128/255


@pytest.mark.parametrize("threat", THREATS)
def test_neither_the_batch_nor_the_memory_nor_the_images_beside_one_change_its_figures(
    threat: ThreatModel, images: Split
) -> None:
    student, teacher = curved(0), curved(1)

    def numbers(found: Proposition2) -> list[float]:
        return [value for term in (found.gap, found.remainder_student, found.remainder_teacher) for value in term]

    one = numbers(evaluated(student, teacher, images, threat))
    for changes in ({"batch_size": 1}, {"batch_size": 4}, {"memory": 3000}):
        # A rounding of float32 may turn the sign of a gradient, and with it a step: not in so few entries.
        found = numbers(evaluated(student, teacher, images, threat, **changes))
        assert found == pytest.approx(one, rel=1e-4, abs=1e-5)
    alone = numbers(evaluated(student, teacher, images.subset([3]), threat))
    assert alone == pytest.approx(one[3::6], rel=1e-4, abs=1e-5)


def test_where_one_image_does_not_fit_it_is_told_how_much_it_needs(images: Split) -> None:
    with pytest.raises(TooLargeError, match="needs 1 MiB for one image"):
        evaluated(curved(0), curved(1), images, ThreatModel("Linf", 0.1), memory=1000)


def test_a_kept_audit_is_read_back_and_gives_the_same_record(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threat = ThreatModel("Linf", 0.1)
    one = evaluated(curved(0), curved(1), images, threat, folder=tmp_path, batch_size=2)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(module, "examined", None)
    assert evaluated(curved(0), curved(1), images, threat, folder=tmp_path, batch_size=2) == one


def test_the_networks_are_left_as_they_were(images: Split) -> None:
    student, teacher = curved(0), curved(1)
    evaluated(student, teacher, images, ThreatModel("Linf", 0.1))
    assert all(p.dtype == torch.float32 and p.grad is None for m in (student, teacher) for p in m.parameters())
