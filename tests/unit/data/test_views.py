import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcompress.data import augment, epoch_order


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_views(image: Tensor, padding: int, flips: bool) -> dict[tuple[int, int, bool], Tensor]:
    """Every view of (C, H, W), by a loop: pad, cut, flip."""
    H, W = image.shape[-2:]
    padded = F.pad(image, [padding] * 4)
    shifts = range(2 * padding + 1)
    return {
        (top, left, flip): view.flip(-1) if flip else view
        for top, left, flip in itertools.product(shifts, shifts, (False, True) if flips else (False,))
        for view in [padded[:, top : top + H, left : left + W]]
    }


@pytest.mark.parametrize(("padding", "flips"), [(1, True), (1, False), (2, False), (0, True)])
def test_the_views_are_exactly_the_padded_crops_and_flips(padding: int, flips: bool) -> None:
    image = torch.rand(3, 5, 4, generator=generator())
    views = all_views(image, padding, flips)
    # A view missed by 1,000 draws from at most 25: probability under 1e-15; a view that is none: never.
    found = augment(image.expand(1000, 3, 5, 4), generator=generator(1), flips=flips, crop_padding=padding)
    seen = {name for one in found for name, view in views.items() if torch.equal(one, view)}
    assert seen == set(views)
    assert all(any(torch.equal(one, view) for view in views.values()) for one in found[:50])


def test_flips_come_half_the_time_and_independently_of_the_image() -> None:
    inputs = torch.tensor([0.0, 1.0]).expand(4000, 1, 1, 2)
    flipped = augment(inputs, generator=generator(), flips=True, crop_padding=0)[:, 0, 0, 0]
    # Four standard deviations of a fair coin thrown 4,000 times: 4 * .5 / sqrt(4000) = .032.
    assert abs(flipped.mean().item() - 0.5) < 0.032


def test_each_image_keeps_its_place_in_the_batch() -> None:
    inputs = torch.arange(1, 65).float().view(64, 1, 1, 1).expand(64, 2, 3, 3)
    views = augment(inputs, generator=generator(), flips=True, crop_padding=1)
    assert views.amax((1, 2, 3)).tolist() == list(range(1, 65))


def test_without_padding_and_flips_nothing_changes_and_nothing_is_drawn() -> None:
    inputs, source = torch.rand(2, 1, 3, 3), generator()
    before = source.get_state()
    assert augment(inputs, generator=source, flips=False, crop_padding=0) is inputs
    assert torch.equal(source.get_state(), before)


def test_the_same_generator_state_gives_the_same_views() -> None:
    inputs = torch.rand(8, 3, 6, 6)
    first, again, other = (augment(inputs, generator=generator(s), flips=True, crop_padding=2) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU")
def test_every_device_sees_the_same_views() -> None:
    inputs = torch.rand(8, 3, 6, 6)
    here = augment(inputs, generator=generator(), flips=True, crop_padding=2)
    there = augment(inputs.cuda(), generator=generator(), flips=True, crop_padding=2)
    assert torch.equal(here, there.cpu())


def test_an_epoch_order_is_a_permutation_given_by_the_generator() -> None:
    assert sorted(epoch_order(50, generator()).tolist()) == list(range(50))
    assert torch.equal(epoch_order(50, generator(1)), epoch_order(50, generator(1)))
    assert not torch.equal(epoch_order(50, generator(1)), epoch_order(50, generator(2)))
