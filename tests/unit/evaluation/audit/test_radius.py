"""Radii by attack: exact on linear networks of two classes, upper bounds everywhere."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.audit import radius as module
from kdcompress.evaluation.audit.radius import attacked_radius, broken_points, compared_radii, rival_margin
from kdcompress.maths.norms import norm_of
from kdcompress.maths.radii import first_order_radius
from kdcompress.settings import AuditSettings
from kdcompress.threat import NORMS, Norm, ThreatModel
from tests.unit.evaluation.audit.networks import CPU, curved, first, labelled, linear

SETTINGS = AuditSettings(steps=5, restarts=1, batch_size=4)
GRID: dict[Norm, tuple[float, ...]] = {"Linf": (0.01, 0.03, 0.05), "L2": (0.05, 0.1, 0.2), "L1": (0.1, 0.2, 0.5)}


def halves(seed: int) -> nn.Sequential:
    """Two classes, apart at plain grey: distances of some hundredths on the images of this room."""
    model = linear(seed, classes=2)
    with torch.no_grad():
        model.get_parameter("1.bias").copy_(-0.5 * model.get_parameter("1.weight").sum(1))
    return model


def test_the_rival_margin_is_the_gap_to_the_best_other_class() -> None:
    f = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert rival_margin(f, torch.tensor([0, 1])).tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_radius_of_a_linear_network_of_two_classes_is_its_distance(norm: Norm) -> None:
    model = halves(3)
    images = labelled(model, 12)
    x, y = next(images.batches(12))
    found = attacked_radius(model, x, y, norm, GRID[norm], SETTINGS, purpose="test")
    known = first_order_radius(model, x, y, norm)
    reached = known < GRID[norm][-1]
    assert 3 <= reached.sum() < 12  # both kinds
    torch.testing.assert_close(found[reached], known[reached], rtol=1e-3, atol=1e-5)
    assert found[~reached].isinf().all()


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_found_in_the_ball_lies_in_it_and_is_broken_or_not_as_is_said(norm: Norm) -> None:
    model = curved(0)
    x, y = next(labelled(model, 8).batches(8))
    largest, broken = broken_points(model, x, y, ThreatModel(norm, GRID[norm][-1]), SETTINGS, purpose="test")
    assert torch.equal(broken, model(largest).argmax(1) != y)
    assert norm_of(largest - x, norm).max() <= GRID[norm][-1] * (1 + 1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_there_is_a_misclassified_point_at_the_radius(norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    model = curved(0)
    x, y = next(labelled(model, 8).batches(8))
    seen: list[Tensor] = []
    halved = module._halved

    def remembered(*rest: object) -> Tensor:
        seen.append(halved(*rest))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(module, "_halved", remembered)
    found = attacked_radius(model, x, y, norm, [4 * GRID[norm][-1]], SETTINGS, purpose="test")
    broken = found.isfinite()
    assert broken.any()
    assert (model(seen[0]).argmax(1) != y)[broken].all()
    torch.testing.assert_close(norm_of(seen[0] - x, norm)[broken], found[broken])
    assert seen[0].amin() >= 0 and seen[0].amax() <= 1


def test_a_misclassified_image_has_radius_zero() -> None:
    model = curved(0)
    x, y = next(labelled(model).batches(6))
    assert attacked_radius(model, x, (y + 1) % 4, "L2", (0.1,), SETTINGS, purpose="test").tolist() == [0.0] * 6


def distances(model: nn.Module, images: Split, norm: Norm) -> Tensor:
    return first_order_radius(model, first(images), images.labels, norm)


def test_student_and_teacher_are_compared_image_by_image() -> None:
    teacher, student = halves(3), halves(4)
    images = labelled(teacher, 10)
    found = compared_radii(student, teacher, images, "Linf", GRID["Linf"], SETTINGS, device=CPU)
    s, t = (distances(model, images, "Linf") for model in (student, teacher))
    s, t = (torch.where(known < 0.05, known, torch.inf) for known in (s, t))
    reached = torch.tensor([torch.inf if radius is None else radius for radius in found.student_at_most])
    torch.testing.assert_close(reached, s, rtol=2e-3, atol=1e-5)
    assert found.below.value == pytest.approx(float((s < t).float().mean()))
    assert found.n == 10 and found.largest == 0.05
    assert found.proved_smaller is None and found.teacher_at_least is None


def test_certificates_prove_which_students_lost_radius() -> None:
    teacher, student = halves(3), halves(4)
    images = labelled(teacher, 10)
    certified = 0.9 * distances(teacher, images, "L2")
    found = compared_radii(
        student, teacher, images, "L2", GRID["L2"], SETTINGS, device=CPU, teacher_certified=certified
    )
    lost = distances(student, images, "L2").where(distances(student, images, "L2") < 0.2, torch.inf) < certified
    assert found.proved_smaller is not None
    assert found.proved_smaller.value == pytest.approx(float(lost.float().mean()))
    assert 0 < found.proved_smaller.value < 1


def test_a_certificate_that_an_attack_contradicts_is_an_error() -> None:
    model = halves(3)
    images = labelled(model, 10)
    unsound = 1.5 * distances(model, images, "L2")
    with pytest.raises(ValueError, match=r"student's image .* is certified to .* and broken at"):
        compared_radii(model, model, images, "L2", GRID["L2"], SETTINGS, device=CPU, student_certified=unsound)
