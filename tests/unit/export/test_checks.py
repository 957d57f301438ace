"""What is written must answer as the network does."""

import pytest
import torch
from torch import Tensor

from kdcompress.data.splits import Split, split_from_pixels
from kdcompress.errors import ExportError
from kdcompress.export.checks import TOLERANCE, compared, refuse_difference, refuse_runtime

SIZE = (1, 2, 2)


@pytest.fixture
def images() -> Split:
    return split_from_pixels(torch.randint(0, 256, (20, *SIZE), dtype=torch.uint8), torch.zeros(20, dtype=torch.int64))


def logits(x: Tensor) -> Tensor:
    over = 10 * (x.flatten(1).mean(1) - 0.5)
    return torch.stack([-over, over], 1)


def test_equal_functions_do_not_differ(images: Split) -> None:
    real, random = compared(logits, logits, images, SIZE)
    assert (real.largest, real.mean, real.labels_differ, real.n) == (0, 0, 0, 20)
    assert (random.on, random.n) == ("random", 10)
    assert refuse_difference((real, random), "it") == TOLERANCE * max(1, real.logit, random.logit)


def test_a_logit_beyond_the_tolerance_is_refused_with_the_figures(images: Split) -> None:
    found = compared(logits, lambda x: logits(x) + 0.01, images, SIZE)
    with pytest.raises(ExportError, match=r"20 real images logits differ by up to 0\.01 .* 0 labels; it was not kept"):
        refuse_difference(found, "it")


def test_a_label_that_differs_is_refused_however_near_the_logits(images: Split) -> None:
    def tied(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 2)

    found = compared(tied, lambda x: tied(x) + torch.tensor([0.0, 1e-6]), images, SIZE)
    with pytest.raises(ExportError, match="20 labels"):
        refuse_difference(found, "it")


def test_answers_that_are_no_numbers_are_refused(images: Split) -> None:
    with pytest.raises(ExportError, match="NaN or infinity"):
        compared(logits, lambda x: logits(x) / 0, images, SIZE)


@pytest.mark.parametrize(("times", "refused"), [(1.0, False), (3.0, True)])
def test_a_runtime_may_move_logits_as_far_as_rounding_does_and_not_much_farther(
    images: Split, times: float, refused: bool
) -> None:
    rounding = compared(logits, lambda x: logits(x) + 0.05, images, SIZE)[0]
    found = compared(logits, lambda x: logits(x) + 0.05 * times, images, SIZE)
    if not refused:
        refuse_runtime(found, rounding, "it")
        return
    with pytest.raises(ExportError, match="leave out --int8"):
        refuse_runtime(found, rounding, "it")
