"""IDBH's parts beside torchvision's functions image by image, and the views as a whole."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from kdcompress.data.idbh import KINDS, color_or_shape, crop_shift, idbh, mixed, moved, rotations, shears

NEAREST = InterpolationMode.NEAREST


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(n, channels, side, side, generator=generator(9))


@pytest.mark.parametrize(
    "adjust",
    [
        transforms.adjust_saturation,
        transforms.adjust_brightness,
        transforms.adjust_contrast,
        transforms.adjust_sharpness,
    ],
)
def test_mixing_with_factor_zero_is_torchvisions_adjustment_of_each_image(adjust: object) -> None:
    x, factor = images(6), torch.tensor([0.1, 0.5, 0.9, 1.0, 1.4, 1.9])
    found = mixed(x, adjust(x, 0.0), factor)  # type: ignore[operator]
    for one, image, f in zip(found, x, factor.tolist(), strict=True):
        torch.testing.assert_close(one, adjust(image, f), rtol=0, atol=1e-6)  # type: ignore[operator]


@pytest.mark.parametrize("degrees", [-10.0, -3.3, 1.0, 7.7, 45.0, 90.0])
def test_a_rotation_is_torchvisions(degrees: float) -> None:
    x = images(1, side=32)
    found = moved(x, rotations(torch.deg2rad(torch.tensor([degrees]))))
    expected = transforms.rotate(x, degrees, interpolation=NEAREST, fill=0)
    assert float((found == expected).float().mean()) > 0.99  # the nearest of two at equal distance may differ


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("slope", [-0.15, 0.05, 0.3])
def test_a_shear_is_torchvisions(slope: float, across: bool) -> None:
    x = images(1, side=32)
    found = moved(x, shears(torch.tensor([slope]), torch.tensor([across])))
    degrees = -math.degrees(math.atan(slope))
    shear = [-degrees, 0.0] if across else [0.0, -degrees]
    expected = transforms.affine(x, 0.0, [0, 0], 1.0, shear, interpolation=NEAREST, fill=0)
    assert float((found == expected).float().mean()) > 0.99


def test_motions_keep_to_pixels_where_images_are_not_square() -> None:
    x = torch.zeros(1, 1, 9, 15)
    x[0, 0, 4, 2:13] = 1  # a bar through the centre, upright after a quarter turn
    turned = moved(x, rotations(torch.tensor([math.pi / 2])))
    assert turned[0, 0, :, 7].sum() == 9 and turned.sum() == 9


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_color_or_shape_is_drawn_about_as_often(channels: int) -> None:
    n = 1600
    x = images(1, channels).expand(n, -1, -1, -1)
    views = color_or_shape(x, generator=generator())
    for wanted in (transforms.autocontrast(x[0]), transforms.equalize(x[0])):  # the two that have no strength
        share = float((views - wanted).abs().flatten(1).amax(1).lt(1e-6).float().mean())
        assert abs(share - 1 / len(KINDS)) < 0.035  # four deviations
    # Strengths are each image's own: of four adjustments, three where grey stays grey, and of the larger motions.
    assert len(views.flatten(1).unique(dim=0)) > (0.4 if channels == 1 else 0.55) * n


def test_a_shifted_crop_is_a_window_of_the_image_among_zeros() -> None:
    n = 3000
    x = torch.arange(1.0, 257).view(1, 1, 16, 16)
    views = crop_shift(x.expand(n, -1, -1, -1), generator=generator())
    lost = []
    for view in views[:, 0]:
        rows, columns = ((view > 0).any(axis).nonzero()[:, 0] for axis in (1, 0))
        window = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        r, c = divmod(int(window[0, 0]) - 1, 16)
        assert torch.equal(window, x[0, 0, r : r + len(rows), c : c + len(columns)])
        assert len(rows) == window.shape[0] and len(columns) == window.shape[1] and (view > 0).sum() == window.numel()
        lost.append(32 - len(rows) - len(columns))
    counts = torch.tensor(lost).bincount()
    assert len(counts) == 6  # 0 to 10/32 of 16
    assert float((counts / n - 1 / 6).abs().max()) < 4 * (5 / 36 / n) ** 0.5


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (3, 16)])
def test_views_stay_in_the_unit_interval_and_the_inputs_what_they_were(channels: int, side: int) -> None:
    x = images(300, channels, side)
    before = x.clone()
    views = idbh(x, generator=generator(), flips=True)
    assert views.shape == x.shape and views.dtype == x.dtype
    assert float(views.min()) >= 0 and float(views.max()) <= 1
    assert torch.equal(x, before) and not torch.equal(views, x)


def test_the_generator_decides_and_no_other() -> None:
    x = images(40)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, again, other = (idbh(x, generator=generator(s), flips=True) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("flips", [False, True])
def test_images_are_flipped_only_where_they_may_be(flips: bool) -> None:
    x = torch.zeros(400, 1, 16, 16)
    x[..., :8] = torch.linspace(0.2, 0.8, 8)  # brighter towards the middle, then dark
    views = idbh(x, generator=generator(), flips=flips)
    left, right = views[..., :8].mean((1, 2, 3)), views[..., 8:].mean((1, 2, 3))
    mirrored = float((right > left).float().mean())
    # Unflipped, the window moves by 5 of 16 columns at most, and erasing may take one side.
    assert (mirrored > 0.35) if flips else (mirrored < 0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_the_same_views_but_for_rounding() -> None:
    x = images(64)
    here, there = idbh(x, generator=generator(), flips=True), idbh(x.cuda(), generator=generator(), flips=True)
    assert float(((here - there.cpu()).abs() < 1e-5).float().mean()) > 0.99
