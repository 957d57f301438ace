"""Radii by attack: exact on linear networks of two classes, upper bounds everywhere."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
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
    _, found = attacked_radius(model, x, y, images.ids, norm, GRID[norm], SETTINGS)
    found = found.float()
    known = first_order_radius(model, x, y, norm)
    reached = known < GRID[norm][-1]
    assert 3 <= reached.sum() < 12  # both kinds
    torch.testing.assert_close(found[reached], known[reached], rtol=1e-3, atol=1e-5)
    assert found[~reached].isinf().all()


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_found_in_the_ball_lies_in_it_and_is_broken_or_not_as_is_said(norm: Norm) -> None:
    model = curved(0)
    x, y = next(labelled(model, 8).batches(8))
    largest, broken = broken_points(
        model, x, y, "abcdefgh", ThreatModel(norm, GRID[norm][-1]), SETTINGS, purpose="test"
    )
    assert torch.equal(broken, model(largest).argmax(1) != y)
    assert norm_of(largest - x, norm).max() <= GRID[norm][-1] * (1 + 1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_there_is_a_misclassified_point_at_the_radius(norm: Norm) -> None:
    model = curved(0)
    x, y = next(labelled(model, 8).batches(8))
    point, found = attacked_radius(model, x, y, "abcdefgh", norm, [4 * GRID[norm][-1]], SETTINGS)
    broken = found.isfinite()
    assert broken.any()
    assert (model(point).argmax(1) != y)[broken].all()
    torch.testing.assert_close(norm_of(point.double() - x.double(), norm)[broken], found[broken])
    assert point.amin() >= 0 and point.amax() <= 1


def test_a_misclassified_image_has_radius_zero() -> None:
    model = curved(0)
    x, y = next(labelled(model).batches(6))
    point, found = attacked_radius(model, x, (y + 1) % 4, "abcdef", "L2", (0.1,), SETTINGS)
    assert torch.equal(point, x) and found.tolist() == [0.0] * 6


class Level(nn.Module):
    """Equal logits of all four classes, wherever."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :4]


def test_a_tie_is_wrong_where_accuracy_counts_it_wrong() -> None:
    images = labelled(curved(0), 4)
    x, y = first(images), torch.arange(4)
    _, broken = broken_points(Level(), x, y, "abcd", ThreatModel("Linf", 0.1), SETTINGS, purpose="test")
    _, found = attacked_radius(Level(), x, y, "abcd", "Linf", (0.1,), SETTINGS)
    assert broken.tolist() == (Level()(x).argmax(1) != y).tolist() == [False, True, True, True]
    assert found.tolist() == [torch.inf, 0, 0, 0]


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


def test_a_student_that_is_the_teacher_is_nowhere_nearer() -> None:
    model = curved(0)
    found = compared_radii(model, model, labelled(model, 16), "Linf", (0.05, 0.2, 0.4), SETTINGS, device=CPU)
    assert any(radius is not None for radius in found.student_at_most)
    assert found.below.value == 0 and found.student_at_most == found.teacher_at_most


@pytest.mark.parametrize("norm", NORMS)
def test_neither_the_batch_nor_the_memory_nor_the_images_beside_one_change_its_radius(norm: Norm) -> None:
    student, teacher = curved(0), curved(1)
    images = labelled(teacher, 8)
    eps = [4 * radius for radius in GRID[norm]]

    def radii(of: Split, memory: int | None = None, **changes: object) -> list[float]:
        how = SETTINGS.model_copy(update=changes)
        found = compared_radii(student, teacher, of, norm, eps, how, device=CPU, memory=memory)
        return [100.0 if radius is None else radius for radius in (*found.student_at_most, *found.teacher_at_most)]

    one = radii(images)
    for found in (radii(images, batch_size=1), radii(images, batch_size=3), radii(images, memory=1)):
        assert found == pytest.approx(one, rel=1e-3)  # halving ends within a four-thousandth of the way
    assert radii(images.subset([5])) == pytest.approx(one[5::8], rel=1e-3)


def test_a_point_that_float32_alone_misclassifies_inside_the_certified_radius_is_counted_and_no_error() -> None:
    # Linear, so that the certificates are exact; the logits are so large that float32 sees steps of 0.004.
    model = halves(3)
    with torch.no_grad():
        model.get_parameter("1.bias").add_(50_000.0)
    x = first(labelled(model, 40))
    exact = deepcopy(model).double()
    with torch.no_grad():
        y = exact(x.double()).argmax(1)
    images = replace(labelled(model, 40), labels=y)
    certified = first_order_radius(exact, x.double(), y, "Linf")
    found = compared_radii(
        model, model, images, "Linf", GRID["Linf"], SETTINGS, device=CPU, student_certified=certified
    )
    assert found.rounding_student > 0 and found.rounding_teacher == 0
    with pytest.raises(ValueError, match="certified to"):
        compared_radii(
            model, model, images, "Linf", GRID["Linf"], SETTINGS, device=CPU, student_certified=1.5 * certified
        )


def test_certified_radii_are_rounded_down_and_attacked_ones_up() -> None:
    model = halves(3)
    images = labelled(model, 12)
    known = distances(model, images, "L2").double()
    sound = 0.9 * known
    found = compared_radii(model, model, images, "L2", GRID["L2"], SETTINGS, device=CPU, student_certified=sound)
    assert found.student_at_least is not None
    assert all(low <= value for low, value in zip(found.student_at_least, sound.tolist(), strict=True))
    _, reached = attacked_radius(model, *next(images.batches(12)), images.ids, "L2", GRID["L2"], SETTINGS)
    for at_most, value in zip(found.student_at_most, reached.tolist(), strict=True):
        assert at_most is None or at_most >= value
