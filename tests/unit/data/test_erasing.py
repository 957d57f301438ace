"""Rectangles of zeros: their size, where they lie, and that nothing else is touched."""

import pytest
import torch
from torch import Tensor

from kdcompress.data.erasing import cutout, random_erasing

N = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def extent(views: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns that hold zeros, of each image of ones: (B, H), (B, W)."""
    zeros = views[:, 0] == 0
    return zeros.any(2), zeros.any(1)


@pytest.mark.parametrize("how", [cutout, random_erasing])
def test_what_is_erased_is_one_whole_rectangle_the_same_in_every_channel(how: object) -> None:
    views = how(torch.ones(200, 3, 12, 10), generator=generator())  # type: ignore[operator]
    rows, columns = extent(views)
    for view, r, c in zip(views, rows, columns, strict=True):
        assert torch.equal(view == 0, (r[:, None] & c[None, :]).expand(3, -1, -1))
        for line in (r, c):  # without gaps
            at = line.nonzero()[:, 0]
            assert len(at) == 0 or int(at[-1] - at[0]) == len(at) - 1


def test_a_cutout_is_half_as_high_as_the_image_and_centred_on_any_pixel_alike() -> None:
    rows, columns = extent(cutout(torch.ones(N, 1, 8, 8), generator=generator()))
    for line in (rows, columns):
        # A side of 4 from 2 above its centre: inside for 5 of 8 centres, cut to 2 and 3 at the top, 3 at the bottom.
        sides, counts = line.sum(1).unique(return_counts=True)
        assert sides.tolist() == [2, 3, 4]
        for count, share in zip(counts.tolist(), (1 / 8, 2 / 8, 5 / 8), strict=True):
            assert abs(count / N - share) < 4 * (share * (1 - share) / N) ** 0.5  # four deviations
    assert abs(float((rows[:, 0] & columns[:, 0]).float().mean()) - 9 / 64) < 0.025  # centres 0, 1 and 2, twice


def test_random_erasing_takes_every_second_image_and_a_share_and_shape_of_the_paper() -> None:
    rows, columns = extent(random_erasing(torch.ones(N, 1, 40, 40), generator=generator()))
    h, w = rows.sum(1).double(), columns.sum(1).double()
    erased = h > 0
    assert abs(float(erased.double().mean()) - 0.5) < 4 * (0.25 / N) ** 0.5
    share, aspect = (h * w)[erased] / 1600, (h / w)[erased]
    # Rounding moves a side by half a pixel, of 3 at least.
    assert 0.015 < float(share.min()) < 0.03 and 0.31 < float(share.max()) < 0.35
    assert abs(float(share.mean()) - 0.175) < 0.01
    assert (
        abs(float(aspect.log().mean())) < 0.06 and 0.25 < float(aspect.min()) < 0.35 and 2.9 < float(aspect.max()) < 4
    )
    assert all(bool(line[:, end].any()) for line in (rows, columns) for end in (0, -1))
    assert float((h[erased] - w[erased]).abs().min()) == 0


@pytest.mark.parametrize("how", [cutout, random_erasing])
def test_what_is_left_is_what_it_was_and_the_inputs_too(how: object) -> None:
    inputs = torch.rand(50, 3, 8, 8, generator=generator(1)) + 0.1
    before = inputs.clone()
    views = how(inputs, generator=generator())  # type: ignore[operator]
    assert torch.equal(inputs, before)
    assert ((views == inputs) | (views == 0)).all() and not torch.equal(views, inputs)


@pytest.mark.parametrize("how", [cutout, random_erasing])
def test_the_generator_decides_and_no_other(how: object) -> None:
    inputs = torch.ones(50, 1, 8, 8)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, again, other = (how(inputs, generator=generator(s)) for s in (1, 1, 2))  # type: ignore[operator]
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("how", [cutout, random_erasing])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_images_pass(how: object, side: int) -> None:
    assert how(torch.ones(20, 1, side, side), generator=generator()).shape == (20, 1, side, side)  # type: ignore[operator]
