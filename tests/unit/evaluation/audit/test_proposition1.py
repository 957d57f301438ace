"""Premises that hold, premises that are planted not to, and an inequality that is exact for linear networks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.evaluation.audit import proposition1 as module
from kdcompress.evaluation.audit.memory import TooLargeError
from kdcompress.evaluation.audit.proposition1 import nearest_rivals, proposition1
from kdcompress.maths.jacobian import off_target
from kdcompress.report import Proposition1
from kdcompress.settings import AuditSettings
from kdcompress.threat import ThreatModel
from tests.unit.evaluation.audit.networks import CPU, D, K, Plus, Turned, curved, first, labelled, linear

THREATS = [ThreatModel("Linf", 0.1), ThreatModel("L2", 0.3)]
TINY = ThreatModel("Linf", 0.001)
PREMISES = ("gradients", "logits", "student", "teacher")


def audited(
    student: nn.Module, teacher: nn.Module, images: Split, threat: ThreatModel, *, classes: int = K, **rest: object
) -> Proposition1:
    outside = {name: rest.pop(name) for name in ("folder", "teacher_certified", "memory") if name in rest}
    settings = AuditSettings(**({"steps": 5, "batch_size": 64} | rest))  # type: ignore[arg-type]
    return proposition1(student, teacher, images, threat, settings, classes=classes, device=CPU, **outside)  # type: ignore[arg-type]


def held(found: Proposition1) -> dict[str, float]:
    """The share of images for which each premise holds to a tenth."""
    return {name: premise.held[0].value for name, premise in zip(PREMISES, found.premises, strict=True)}


def jacobian(teacher: nn.Module) -> Tensor:
    return teacher.get_parameter("1.weight").detach()


@pytest.mark.parametrize("threat", THREATS)
def test_where_the_student_is_a_linear_teacher_every_premise_holds_and_no_margin_is_lost(
    threat: ThreatModel, teacher: nn.Module, images: Split
) -> None:
    found = audited(teacher, teacher, images, threat)
    assert held(found) == dict.fromkeys(PREMISES, 1.0)
    assert found.right.value == 1
    assert found.gradient_cosine == (1.0,) * 6
    assert found.terms.logits == found.terms.gradients == (0.0,) * 6
    assert max(found.terms.remainder_student + found.terms.remainder_teacher) < 1e-14
    assert found.terms.guaranteed == pytest.approx(found.terms.teacher_margin, abs=1e-13)
    assert found.terms.guaranteed == pytest.approx(found.terms.student_margin, abs=1e-13)
    assert found.all_hold[0].value == found.constant.value == found.stood.value
    assert found.directions.free == (None,) * 6 and found.directions.median_free is None
    assert (found.exceeded.value, found.violated) == (0, 0)


@pytest.mark.parametrize("threat", THREATS)
def test_the_least_margins_of_linear_networks_are_the_known_ones(
    threat: ThreatModel, teacher: nn.Module, images: Split
) -> None:
    student = linear(1)
    found = audited(student, teacher, images, threat)
    q = 1 if threat.norm == "Linf" else 2
    x, y = next(images.batches(6))
    for i in range(6):
        f, W = student(x)[i], jacobian(student)
        known = [
            float(f[y[i]] - f[k]) - threat.eps * float(torch.linalg.vector_norm(W[y[i]] - W[k], ord=q))
            for k in range(K)
            if k != y[i]
        ]
        assert found.terms.student_margin[i] == pytest.approx(min(known), abs=1e-5)  # float32 here
    assert found.stood.value == sum(margin > 0 for margin in found.terms.student_margin) / 6


@pytest.mark.parametrize("threat", THREATS)
def test_the_inequality_is_tight_where_the_student_falls_behind_along_the_teachers_own_slope(
    threat: ThreatModel, teacher: nn.Module, images: Split
) -> None:
    # f^s = f^t + (f^t - f^t(x)): twice the slope, the same logits at x, so both margins are least at the same d.
    one = images.subset([0])
    student = Plus(teacher, Turned(jacobian(teacher), first(one)))
    found = audited(student, teacher, one, threat)
    assert found.terms.logits[0] < 1e-6
    assert found.terms.guaranteed[0] == pytest.approx(found.terms.student_margin[0], abs=1e-5)
    assert found.terms.gradients[0] > 0.01


@pytest.mark.parametrize("threat", THREATS)
def test_no_point_violates_the_inequality_and_the_student_keeps_at_least_what_it_guarantees(
    threat: ThreatModel, images: Split
) -> None:
    for seed in range(3):
        found = audited(curved(seed), curved(seed + 5), images, threat, steps=1, restarts=0)
        assert found.violated == 0
        terms = found.terms
        for i in range(6):
            lost = terms.logits[i] + terms.gradients[i] + terms.remainder_student[i] + terms.remainder_teacher[i]
            assert terms.guaranteed[i] == pytest.approx(terms.teacher_margin[i] - lost, abs=1e-4)
            assert terms.guaranteed[i] <= terms.student_margin[i] + 1e-6
        assert found.kept.value == sum(margin > 0 for margin in terms.guaranteed) / 6


def test_a_student_with_a_turned_gradient_is_flagged_for_its_gradient_alone(teacher: nn.Module, images: Split) -> None:
    one = images.subset([0])
    turned = Turned(torch.randn(K, D, generator=torch.Generator().manual_seed(0)), first(one))
    found = audited(Plus(teacher, turned), teacher, one, TINY)
    assert held(found) == {"gradients": 0.0, "logits": 1.0, "student": 1.0, "teacher": 1.0}
    assert found.premises[0].values[0] > 0.5  # type: ignore[operator]
    assert found.gradient_cosine[0] < 0.95
    assert found.all_hold[0].value == 0


def test_a_student_turned_in_a_free_direction_passes_every_premise_and_is_broken(
    teacher: nn.Module, images: Split
) -> None:
    # The step after eq. 21 says that this cannot be.
    one = images.subset([0])
    u = off_target(teacher(first(one)), one.labels)[0]
    v = torch.randn(K, generator=torch.Generator().manual_seed(0))
    v = v - v.mean()
    v = v - u * (u @ v) / (u @ u)
    planted = Turned(torch.outer(v, torch.ones(D)), first(one))
    found = audited(Plus(teacher, planted), teacher, one, TINY)
    assert held(found) == dict.fromkeys(PREMISES, 1.0)
    assert found.all_hold[0].value == 1
    assert found.directions.free[0] == pytest.approx(1, abs=1e-6)
    assert found.directions.difference[0] > 0.5  # type: ignore[operator]
    assert found.terms.gradients[0] > 0.2 * TINY.eps * D
    # At a radius where the teacher stands, this student does not.
    distance = ThreatModel("Linf", 0.01)
    assert audited(teacher, teacher, one, distance).stood.value == 1
    strong = Plus(teacher, Turned(100 * torch.outer(v, torch.ones(D)), first(one)))
    broken = audited(strong, teacher, one, distance)
    assert (broken.all_hold[0].value, broken.constant.value, broken.stood.value) == (1, 1, 0)


def test_a_student_of_other_logits_is_flagged_for_its_logits_alone(teacher: nn.Module, images: Split) -> None:
    class Shift(nn.Module):
        def __init__(self, by: Tensor) -> None:
            super().__init__()
            self.by = nn.Parameter(by, requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.by.expand(len(x), K)

    other = audited(Plus(teacher, Shift(torch.tensor([0.3, 0.0, 0.0, 0.0]))), teacher, images, TINY)
    assert held(other)["logits"] == 0 and held(other)["student"] == held(other)["teacher"] == 1
    common = audited(Plus(teacher, Shift(torch.full((K,), 3.0))), teacher, images, TINY)
    assert held(common) == dict.fromkeys(PREMISES, 1.0)  # softmax ignores a common shift


@pytest.mark.parametrize("bent", ["student", "teacher"])
def test_a_network_that_bends_is_flagged_for_its_linearity_alone(bent: str, teacher: nn.Module, images: Split) -> None:
    one = images.subset([0])
    x = first(one)

    class Bend(nn.Module):
        def forward(self, at: Tensor) -> Tensor:
            away = (at - x.to(at.dtype)).flatten(1).square().sum(1)
            return torch.stack([50 * away, *[0 * away] * (K - 1)], 1)

    bending = Plus(teacher, Bend())
    pair = (bending, teacher) if bent == "student" else (teacher, bending)
    found = audited(*pair, one, ThreatModel("Linf", 0.1))
    assert held(found) == dict.fromkeys(PREMISES, 1.0) | {bent: 0.0}


def test_the_constancy_of_the_teacher_is_certified_or_tried_or_falsified(teacher: nn.Module, images: Split) -> None:
    W, x, y = jacobian(teacher), first(images), images.labels
    f = teacher(x)
    distances = torch.stack(
        [min(((f[i, y[i]] - f[i, k]) / (W[y[i]] - W[k]).abs().sum()) for k in range(K) if k != y[i]) for i in range(6)]
    ).sort()
    eps = float(distances.values[2:4].mean())
    certified = torch.zeros(6)
    certified[distances.indices[5]] = eps * 1.01
    found = audited(teacher, teacher, images, ThreatModel("Linf", eps), teacher_certified=certified)
    wanted = ["."] * 6
    wanted[int(distances.indices[5])] = "c"
    for i in distances.indices[:3].tolist():
        wanted[i] = "x"
    assert found.teacher_constant == "".join(wanted)
    assert found.constant.value == 0.5
    assert found.certified is not None and found.certified.value == pytest.approx(1 / 6)
    assert found.certified_tried == 6
    assert "margin ascent" in found.attack
    alone = audited(teacher, teacher, images, ThreatModel("Linf", eps))
    assert alone.certified is None and "c" not in alone.teacher_constant


def test_a_certificate_that_a_search_contradicts_is_an_error(teacher: nn.Module, images: Split) -> None:
    with pytest.raises(ValueError, match="the certificates are not sound"):
        audited(teacher, teacher, images, ThreatModel("Linf", 0.3), teacher_certified=torch.ones(6))


def test_an_image_that_one_network_sees_wrongly_breaks_premise_17(teacher: nn.Module, images: Split) -> None:
    student = linear(1)
    agree = student(first(images)).argmax(1) == images.labels
    found = audited(student, teacher, images, TINY)
    assert 0 < agree.sum() < 6
    assert found.right.value == pytest.approx(float(agree.float().mean()))
    assert found.stood.value <= found.right.value


def test_only_images_that_the_teacher_sees_rightly_count_as_tried_for_a_certificate(images: Split) -> None:
    teacher = linear(1)
    right = int((teacher(first(images)).argmax(1) == images.labels).sum())
    found = audited(linear(0), teacher, images, TINY, teacher_certified=torch.zeros(6))
    assert 0 < right < 6
    assert found.certified_tried == right
    assert audited(linear(0), teacher, images, TINY).certified_tried is None


def test_two_classes_leave_no_direction_free() -> None:
    teacher = linear(0, classes=2)
    found = audited(curved(1, classes=2), teacher, labelled(teacher), ThreatModel("Linf", 0.1), classes=2)
    assert max(share for share in found.directions.free if share is not None) < 1e-13  # float64
    assert found.rivals == 1


@pytest.mark.parametrize("seed", range(5))
def test_fewer_rivals_are_those_nearest_by_either_networks_logits(seed: int) -> None:
    f_s, f_t = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(7)
    for M in (2, 4, 11):
        rivals = nearest_rivals(f_s, f_t, y, M)
        assert all(
            len(set(row)) == M and label not in row for row, label in zip(rivals.tolist(), range(7), strict=True)
        )
        for f in (f_s, f_t):
            nearest = f.scatter(1, y[:, None], -torch.inf).topk(M // 2, 1).indices
            assert (nearest[:, :, None] == rivals[:, None]).any(2).all()


def test_a_student_broken_towards_a_class_far_from_the_teacher_keeps_no_margin() -> None:
    # Twenty classes; the last is the teacher's least likely everywhere, and the student's next and steep.
    classes = 20
    teacher = linear(0, classes)
    with torch.no_grad():
        teacher.get_parameter("1.bias")[0] += 3
        teacher.get_parameter("1.bias")[-1] -= 30
    images = labelled(teacher)
    student = linear(0, classes)
    with torch.no_grad():
        student.load_state_dict(teacher.state_dict())
        x = first(images.subset([0]))
        steep = 60.0 * torch.tensor([1, -1, 1, -1, 1, -1])
        student.get_parameter("1.weight")[-1] = steep
        student.get_parameter("1.bias")[-1] = teacher(x).amax() - 0.5 - steep @ x.flatten()
    one = images.subset([0])
    assert student(first(one)).argmax(1) == one.labels
    found = audited(student, teacher, one, ThreatModel("Linf", 0.05), classes=classes)
    assert (found.stood.value, found.kept.value) == (0, 0)
    assert found.terms.rival == (classes - 1,)
    assert (found.rivals, found.classes) == (18, 20)
    assert found.terms.student_margin[0] < 0


def test_the_students_least_margin_is_over_all_classes_looked_at_or_not() -> None:
    # The steepest class is the last at x: the search for the first one's least margin comes across it.
    model = linear(0)
    images = labelled(model, 1)
    slope = torch.ones(D)
    with torch.no_grad():
        weight = model.get_parameter("1.weight")
        weight.copy_(torch.stack([0 * slope, 0.1 * slope, 0.1 * slope, 10 * slope]))
        level = torch.tensor([0.0, -0.1, -0.2, -0.3])
        model.get_parameter("1.bias").copy_(level - weight @ first(images).flatten())
    found = audited(model, model, replace(images, labels=torch.tensor([0])), ThreatModel("Linf", 0.05), rivals=1)
    assert (found.rivals, found.terms.rival, found.stood.value) == (2, (1,), 0)
    assert found.terms.student_margin[0] == pytest.approx(0.3 - 10 * 0.05 * D, abs=1e-4)  # float32
    assert found.terms.guaranteed[0] == pytest.approx(0.1 - 0.1 * 0.05 * D, abs=1e-4)


def test_an_ascent_that_finds_nothing_is_exceeded_and_mended_by_merging(
    images: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lazy(r: object, inputs: Tensor, *rest: object, **more: object) -> list[Tensor]:
        return [inputs] * 4

    student, teacher = curved(0), curved(1)
    threat = ThreatModel("Linf", 0.3)
    assert audited(student, teacher, images, threat, steps=20).exceeded.value == 0
    monkeypatch.setattr(module, "extremes", lazy)
    found = audited(student, teacher, images, threat, steps=20)
    assert found.exceeded.value > 0 and found.violated == 0
    assert min(found.terms.remainder_student) > 0  # what the search for least margins came across


class Dented(nn.Module):
    """Logits (0, -0.5, -0.6, height * max(x_place - 0.5, 0)^2 - 1): bent along one entry alone, for the last class."""

    def __init__(self, place: int, height: float) -> None:
        super().__init__()
        self.place, self.height = place, height

    def forward(self, x: Tensor) -> Tensor:
        away = (x.flatten(1)[:, self.place] - 0.5).clamp_min(0).square()
        level = 0 * x.flatten(1)[:, 0]
        return torch.stack([level, level - 0.5, level - 0.6, self.height * away - 1], 1)


@pytest.mark.parametrize(
    ("of_student", "of_teacher", "exceeded"),
    [
        (0, 1, False),  # each ascent finds its own network's largest
        (0, 0, True),  # the teacher's ascent finds the student's alone
        (1, 1, True),
        (1, 0, True),  # each finds the other's: nothing of its own
    ],
)
def test_remainders_are_those_of_each_networks_own_ascent_until_the_points_are_merged(
    of_student: int, of_teacher: int, exceeded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The student's logit rises along entry 0, by 2 at the end of the ball, the teacher's falls along entry 1, by 1: at
    # both ends at once the inequality is an equality, and any remainder that is missing breaks it.
    eps = 0.1
    student, teacher = Dented(0, 2 / eps**2), Dented(1, -1 / eps**2)
    grey = split_from_pixels(torch.full((1, 1, 2, 3), 128, dtype=torch.uint8), torch.tensor([0]))
    ends = {module.SEARCHES[0]: [of_student], module.SEARCHES[1]: [of_teacher], module.SEARCHES[2]: [0, 1]}

    def by_hand(
        search: str, pair: object, x: Tensor, y: Tensor, names: object, rivals: Tensor, *rest: object
    ) -> object:
        points = x[:, None].repeat(1, rivals.shape[1], 1, 1, 1)
        for place in ends.get(search, []):  # for the class that bends, and for no other
            points.flatten(2)[:, :, place] += eps * (rivals == 3)
        return [x[:, None].expand_as(points), points]

    monkeypatch.setattr(module, "searched", by_hand)
    for batch_size in (1, 64):  # rivals one by one, and together
        found = audited(student, teacher, grey, ThreatModel("Linf", eps), batch_size=batch_size)
        assert (bool(found.exceeded.value), found.violated) == (exceeded, 0)
        assert found.terms.rival == (3,)
        assert found.terms.remainder_student[0] == pytest.approx(2, rel=1e-4)  # x is float32
        assert found.terms.remainder_teacher[0] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("threat", THREATS)
def test_neither_the_batch_nor_the_memory_nor_the_images_beside_one_change_its_figures(
    threat: ThreatModel, images: Split
) -> None:
    student, teacher = curved(0), curved(1)
    one = numbers(audited(student, teacher, images, threat))
    needed = 2**18
    for changes in ({"batch_size": 1}, {"batch_size": 4}, {"memory": needed}):
        # A rounding of float32 may turn the sign of a gradient, and with it a step: not in so few entries.
        assert numbers(audited(student, teacher, images, threat, **changes)) == pytest.approx(one, rel=1e-4, abs=1e-5)
    alone = numbers(audited(student, teacher, images.subset([3]), threat))
    assert alone == pytest.approx(one[3::6], rel=1e-4, abs=1e-5)


def numbers(found: Proposition1) -> list[float]:
    """Of every image, term by term."""
    terms = found.terms
    searched = (terms.teacher_margin, terms.remainder_student, terms.remainder_teacher, terms.student_margin)
    return [value for term in (*searched, found.gradient_cosine) for value in term]


def test_where_one_rival_of_one_image_does_not_fit_it_is_told_how_much_it_needs(images: Split) -> None:
    with pytest.raises(TooLargeError, match="needs 1 MiB for one image"):
        audited(curved(0), curved(1), images, TINY, memory=1000)


def test_the_same_seed_gives_the_same_record_and_a_kept_one_is_read_back(
    images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = curved(0), curved(1)
    threat = ThreatModel("L2", 0.3)
    one = audited(student, teacher, images, threat, batch_size=6, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert audited(student, teacher, images, threat, batch_size=6) == one
    assert audited(student, teacher, images, threat, batch_size=6, seed=1) != one
    monkeypatch.setattr(module, "examined", None)
    assert audited(student, teacher, images, threat, batch_size=6, folder=tmp_path) == one
