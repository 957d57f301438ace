"""The check before training: a robust teacher passes, a natural one and one with a softmax do not."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.errors import TeacherError
from kdcompress.settings import TeacherCheckSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.teacher_check import TeacherCheck, are_probabilities, check_teacher

THREAT = ThreatModel("Linf", 8 / 255)


def check(teacher: nn.Module, images: Split, threat: ThreatModel = THREAT, **settings: object) -> TeacherCheck:
    return check_teacher(
        teacher.eval().requires_grad_(False),
        images,
        threat,
        TeacherCheckSettings.of(**settings),
        seed=0,
        device=torch.device("cpu"),
    )


def linear(weight: Tensor) -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    with torch.no_grad():
        net[1].weight.copy_(weight)
    return net


@pytest.fixture
def robust() -> nn.Sequential:
    """Compares the brightness of thirds of the image, gently: eps moves it little, and by what its gradient says."""
    rows = torch.arange(8)
    masks = torch.stack([((rows >= 3 * k) & (rows < 3 * k + 2)).float() for k in range(3)])
    return linear(0.1 * masks[:, :, None].expand(3, 8, 8).flatten(1))


@pytest.fixture
def faint() -> Split:
    """Classes that differ by 4/255 in brightness: half of eps, so every answer can be turned."""
    labels = torch.arange(60) % 2
    pixels = (100 + 4 * labels)[:, None, None, None].expand(60, 1, 8, 8).to(torch.uint8)
    return split_from_pixels(pixels.contiguous(), labels)


@pytest.fixture
def natural() -> nn.Module:
    """Reads those 4/255."""
    net = linear(torch.stack([torch.zeros(64), torch.ones(64)]) * 10)
    net[1].bias = nn.Parameter(torch.tensor([0.0, -640 * 102 / 255]))
    return net


def test_a_robust_teacher_passes_with_its_figures(robust: nn.Module, halves: Split) -> None:
    found = check(robust, halves)
    assert found.problems == ()
    assert (found.clean_accuracy, found.pgd_accuracy, found.images) == (1.0, 1.0, 60)
    assert 0 <= found.remainder < 0.2


def test_a_natural_teacher_is_named_with_its_figures(natural: nn.Module, faint: Split) -> None:
    found = check(natural, faint)
    assert (found.clean_accuracy, found.pgd_accuracy) == (1.0, 0.0)
    assert "0.000" in found.problems[0] and "PGD-20" in found.problems[0] and "8/255" in found.problems[0]


def test_the_same_teacher_passes_where_eps_is_smaller_than_what_it_reads(natural: nn.Module, faint: Split) -> None:
    found = check(natural, faint, ThreatModel("Linf", 0.5 / 255), max_remainder=1.0)
    assert (found.pgd_accuracy, found.problems) == (1.0, ())


@pytest.mark.parametrize(("share", "passes"), [(0.5, True), (0.51, False)])
def test_the_share_that_must_be_kept_counts_from_the_clean_accuracy(
    natural: nn.Module, robust: nn.Module, share: float, passes: bool
) -> None:
    # Half of the images differ by more than eps, half by less: clean 1, under attack one half.
    labels = torch.arange(40) % 2
    far = (torch.arange(40) >= 20).long()
    brightness = 102 + (2 * labels - 1) * (2 + 38 * far)
    pixels = brightness[:, None, None, None].expand(40, 1, 8, 8).to(torch.uint8).contiguous()
    found = check(natural, split_from_pixels(pixels, labels), min_pgd_share=share, max_remainder=10.0)
    assert (found.clean_accuracy, found.pgd_accuracy) == (1.0, 0.5)
    assert (found.problems == ()) is passes


class Rippled(nn.Module):
    """The brightness of a third of the image against another's, and a ripple in it that no gradient foretells."""

    def __init__(self, ripple: float) -> None:
        super().__init__()
        self.ripple = ripple

    def forward(self, x: Tensor) -> Tensor:
        margin = 20 * (x.flatten(1).mean(1, keepdim=True) - 102 / 255)
        return torch.cat([-margin, margin], 1) + self.ripple * torch.sin(40 * margin) * torch.tensor([1.0, -1.0])


@pytest.fixture
def four_in_ten() -> Split:
    """Two classes by brightness: 40% of the images so far from the edge that eps = 8/255 does not turn them."""
    labels = torch.arange(100) % 2
    far = (torch.arange(100) < 40).long()
    brightness = 102 + (2 * labels - 1) * (2 + 38 * far)
    return split_from_pixels(brightness[:, None, None, None].expand(100, 1, 8, 8).to(torch.uint8).contiguous(), labels)


@pytest.mark.parametrize(("ripple", "passes"), [(0.0, True), (1.0, False)])
def test_between_a_quarter_and_a_half_a_teacher_must_be_near_to_linear(
    four_in_ten: Split, ripple: float, passes: bool
) -> None:
    found = check(Rippled(ripple), four_in_ten)
    assert 0.25 < found.pgd_accuracy / found.clean_accuracy < 0.5
    assert (found.remainder <= 0.4, found.problems == ()) == (passes, passes)
    assert passes or f"misses {found.remainder:.3f}" in found.problems[0]


def test_a_robust_teacher_passes_however_its_loss_bends(robust: nn.Sequential, halves: Split) -> None:
    with torch.no_grad():
        robust[1].weight.mul_(60)  # sure of every image: CE is flat at x and rises only near the ball's edge
    found = check(robust, halves)
    assert (found.pgd_accuracy, found.problems) == (1.0, ())
    assert found.remainder > 0.4


def test_logits_so_large_that_ce_has_no_gradient_do_not_hide_a_natural_teacher(
    natural: nn.Module, faint: Split
) -> None:
    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = 1e4 * natural(x)
            return logits

    found = check(Steep(), faint)
    assert (found.clean_accuracy, found.pgd_accuracy) == (1.0, 0.0)
    assert "PGD-20" in found.problems[0]


@pytest.mark.parametrize("sound_batches", [0, 1])
def test_a_teacher_whose_outputs_overflow_is_refused_even_if_the_first_batch_is_sound(
    robust: nn.Module, halves: Split, monkeypatch: pytest.MonkeyPatch, sound_batches: int
) -> None:
    monkeypatch.setattr("kdcompress.training.teacher_check.BATCH", 30)

    class Overflowing(nn.Module):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            logits: Tensor = robust(x)
            return logits * (torch.inf if self.passes > 45 * sound_batches else 1.0)  # 45 passes a batch

    with pytest.raises(TeacherError, match="not finite"):
        check(Overflowing(), halves, insist=True)


@pytest.mark.parametrize("wrong", ["classes in another order", "constant"])
def test_a_teacher_that_knows_nothing_of_the_data_is_told_what_to_look_at(
    robust: nn.Sequential, halves: Split, wrong: str
) -> None:
    with torch.no_grad():
        robust[1].weight.copy_(robust[1].weight.roll(1, 0) if wrong.startswith("classes") else torch.zeros(3, 192 // 3))
    found = check(robust, halves)
    assert "no better than chance" in found.problems[0] and "normalisation" in found.problems[0]


@pytest.mark.parametrize(("share", "learnt"), [(0.7, True), (0.52, False)])
def test_of_two_classes_a_teacher_need_not_be_right_three_times_of_four(share: float, learnt: bool) -> None:
    """Classes told apart by brightness, by far, with some labels wrong."""
    y = torch.arange(300) % 2
    pixels = torch.where(y == 1, 200, 50)[:, None, None, None].expand(300, 1, 4, 4).to(torch.uint8)
    wrong = torch.arange(300) >= round(300 * share)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval().requires_grad_(False)
    with torch.no_grad():
        teacher[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 16))
        teacher[1].bias.copy_(torch.tensor([8.0, -8.0]))
    found = check(teacher, split_from_pixels(pixels, torch.where(wrong, 1 - y, y)))
    assert found.clean_accuracy == pytest.approx(share)
    assert (not found.problems) if learnt else ("no better than chance" in found.problems[0])


def test_a_teacher_that_returns_probabilities_is_refused_whatever_its_accuracy(
    robust: nn.Sequential, halves: Split
) -> None:
    with pytest.raises(TeacherError, match=r"logits.*probabilities.*softmax"):
        check(nn.Sequential(robust, nn.Softmax(1)), halves, insist=True)


@pytest.mark.parametrize(
    ("outputs", "are"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], True),
        ([[0.2, 0.8], [0.6, 0.6]], False),  # sums to 1.2
        ([[0.2, 0.8], [1.5, -0.5]], False),  # outside [0, 1]
        ([[2.0, -1.0], [0.3, 0.1]], False),
        ([[0.0, 0.0], [0.0, 0.0]], False),
    ],
)
def test_probabilities_are_rows_in_the_unit_interval_that_sum_to_one(outputs: list[list[float]], are: bool) -> None:
    assert are_probabilities(torch.tensor(outputs)) is are


def test_the_figures_do_not_depend_on_how_images_fall_into_batches(
    robust: nn.Module, halves: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A linear network's worst corner is the same from every start, so only the averaging can differ.
    whole = check(robust, halves)
    monkeypatch.setattr("kdcompress.training.teacher_check.BATCH", 7)
    parts = check(robust, halves)
    assert (parts.clean_accuracy, parts.pgd_accuracy) == (whole.clean_accuracy, whole.pgd_accuracy)
    assert parts.remainder == pytest.approx(whole.remainder, rel=1e-4)  # float32 sums
