"""Same outputs on the data, different ones in the ball: planted, and found."""

import pytest
import torch
from torch import nn

from kdcompress.data import Split
from kdcompress.evaluation.audit.counter_example import counter_examples
from kdcompress.maths.norms import norm_of
from kdcompress.settings import AuditSettings
from kdcompress.threat import ThreatModel
from tests.unit.evaluation.audit.networks import CPU, K, Plus, Turned, first, labelled, linear

NAMES = ("ant", "bee", "cat", "dog")
SETTINGS = AuditSettings(steps=5, restarts=1, batch_size=4, agreement=0.1)
BALL = ThreatModel("Linf", 0.01)


def confident() -> nn.Sequential:
    """Robust on the images: large margins over small slopes."""
    model = linear(0)
    with torch.no_grad():
        model.get_parameter("1.weight").mul_(0.3)
        model.get_parameter("1.bias").copy_(torch.tensor([0.0, 1.0, 0.5, 0.0]))
    return model


def steep(teacher: nn.Module, images: Split, at: int) -> nn.Module:
    """The teacher at image `at`, and far steeper there."""
    A = 100 * torch.randn(K, 6, generator=torch.Generator().manual_seed(0))
    return Plus(teacher, Turned(A, first(images.subset([at]))))


@pytest.fixture
def images() -> Split:
    return labelled(confident())


def test_a_student_equal_at_one_image_and_steep_around_it_is_found_there(images: Split) -> None:
    teacher = confident()
    student = steep(teacher, images, 4)
    found = counter_examples(student, teacher, images, BALL, SETTINGS, names=NAMES, device=CPU)
    record = found.record
    assert record.images == (4,)  # elsewhere the outputs differ already
    assert record.difference[0] < 1e-6
    assert record.agreed.value == pytest.approx(1 / 6)
    assert record.found is not None and record.found.value == 1
    assert torch.equal(found.inputs, first(images.subset([4])))
    assert norm_of(found.moved - found.inputs, "Linf").item() <= BALL.eps * (1 + 1e-5)
    y = images.labels[4]
    assert teacher(found.inputs).argmax(1) == teacher(found.moved).argmax(1) == student(found.inputs).argmax(1) == y
    assert student(found.moved).argmax(1) == found.student != y
    assert record.teacher == (NAMES[int(y)],) and record.student == (NAMES[int(found.student)],)


def test_nothing_is_found_where_student_is_teacher(images: Split) -> None:
    teacher = confident()
    for eps in (0.01, 0.3):
        found = counter_examples(teacher, teacher, images, ThreatModel("Linf", eps), SETTINGS, names=NAMES, device=CPU)
        assert found.record.images == () and len(found.inputs) == 0
        if eps == 0.01:
            assert found.record.agreed.value == 1 and found.record.found is not None
            assert found.record.found.value == 0


def test_where_the_teacher_falls_too_there_is_no_counter_example() -> None:
    teacher = linear(0)  # margins of some hundredths
    images = labelled(teacher)
    found = counter_examples(
        steep(teacher, images, 4), teacher, images, ThreatModel("Linf", 0.3), SETTINGS, names=NAMES, device=CPU
    )
    assert found.record.images == ()
    assert found.record.agreed.value == 0 and found.record.found is None


def test_the_most_alike_come_first(images: Split) -> None:
    teacher = confident()
    student = steep(teacher, images, 2)
    loose = SETTINGS.model_copy(update={"agreement": 1e6})
    found = counter_examples(student, teacher, images, BALL, loose, names=NAMES, device=CPU).record
    assert list(found.difference) == sorted(found.difference)
    assert found.images[0] == 2
