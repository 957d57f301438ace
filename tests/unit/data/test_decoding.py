import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdcompress.data import decoding
from kdcompress.data.decoding import common_size, decoded
from kdcompress.data.items import Items
from kdcompress.data.tree import folder_tree
from kdcompress.errors import DataError


def items(*images: Image.Image | Path) -> Items:
    """Items that open copies of images, or files."""

    def opened(position: int) -> Image.Image:
        source = images[position]
        return Image.open(source) if isinstance(source, Path) else source.copy()

    return Items(("a", "b"), tuple(f"a/{i}" for i in range(len(images))), (0,) * len(images), opened, "train/")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8))


def one(image: Image.Image, image_size: int | None = None) -> torch.Tensor:
    source = items(image)
    return decoded(source, common_size([source], image_size), image_size, [0])[0]


def test_pixels_come_as_channels_height_width() -> None:
    image = noise(5, 3)
    assert torch.equal(one(image), torch.from_numpy(np.array(image)).permute(2, 0, 1))


@pytest.mark.parametrize("threads", [1, 4])
def test_images_come_in_the_order_asked_for_across_tasks(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_threads", lambda *_: threads)
    source = items(*(Image.new("RGB", (1, 1), (i, 0, 0)) for i in range(256)), Image.new("RGB", (1, 1), (9, 9, 9)))
    order = [256, *range(255, -1, -1)]  # more than one task
    told: list[int] = []
    pixels = decoded(source, (3, 1, 1), None, order, told.append)
    assert pixels[:, 0, 0, 0].tolist() == [9, *range(255, -1, -1)]
    assert told == sorted(told)
    assert told[-1] == len(order)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_images_have_one_channel(mode: str) -> None:
    image = noise(4, 4).convert(mode)
    assert torch.equal(one(image)[0], torch.from_numpy(np.array(image.convert("L"))))


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "LA", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = noise(4, 4).convert("L" if mode == "LA" else "RGB").convert(mode)
    assert one(image).shape == (3, 4, 4)


def test_one_colour_image_among_grey_ones_makes_all_rgb() -> None:
    greys = [Image.new("L", (2, 2), 7)] * 40
    source = items(*greys, noise(2, 2))
    assert common_size([source], None) == (3, 2, 2)
    assert common_size([items(*greys), items(noise(2, 2))], None) == (3, 2, 2)
    assert decoded(source, (3, 2, 2), None, [0])[0].unique().tolist() == [7]


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0] * 256)
    image.save(tmp_path / "p.png", transparency=bytes([0] * 256))
    assert decoded(items(tmp_path / "p.png"), (3, 2, 2), None, [0])[0, 0].unique().tolist() == [255]


def test_sixteen_bit_images_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"train/a/0: expected 8 bits a channel, found PIL mode I;16"):
        one(Image.new("I;16", (2, 2)))


@pytest.mark.parametrize(("width", "height"), [(40, 30), (30, 40), (32, 32), (33, 100)])
def test_resizing_scales_the_shorter_side_and_cuts_the_centre(width: int, height: int) -> None:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = (127 + 120 * np.stack([np.sin(5 * x), np.cos(4 * y), np.sin(3 * x + 2 * y)], 2)).astype(np.uint8)
    image = Image.fromarray(waves)
    scale = 16 / min(width, height)
    scaled = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (scaled.width - 16) / 2, (scaled.height - 16) / 2
    two_steps = np.array(scaled.crop((int(left), int(top), int(left) + 16, int(top) + 16)), dtype=int)
    # The two-step way rounds the size and the corner to whole pixels: half a pixel of a wave that changes by at most
    # 120 * 5 / 16 levels a pixel.
    assert np.abs(one(image, 16).permute(1, 2, 0).numpy().astype(int) - two_steps).max() <= 20


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    image = noise(16, 16)
    assert torch.equal(one(image, 16), one(image))


def test_resizing_down_is_antialiased() -> None:
    board = Image.fromarray(((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8))
    values = one(board, 8).float()
    # A checkerboard of single pixels is grey from afar; picking single pixels would give 0 or 255.
    assert values.sub(127.5).abs().max() < 10


def test_another_size_names_the_file_and_both_sizes_and_the_option() -> None:
    with pytest.raises(DataError, match=r"train/a/1 is 3x4 pixels, the first image is 5x3: .*--image-size") as caught:
        decoded(items(noise(5, 3), noise(3, 4)), (3, 3, 5), None, [0, 1])
    assert "\n" not in str(caught.value)


def test_a_program_is_never_run_whatever_an_image_says_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL hands PostScript to Ghostscript."""
    ran = tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    image = Items(("a", "b"), ("a/x",), (0,), lambda i: folder_tree(tmp_path).open("x.png"), "train/")
    with pytest.raises(DataError, match=r"^train/a/x: expected an image, found a damaged or foreign"):
        decoded(image, (3, 8, 8), None, [0])
    assert not ran.exists()


def test_colour_can_be_asked_for_where_all_is_grey() -> None:
    grey = items(Image.new("L", (4, 3), 7))
    assert common_size([grey], None) == (1, 3, 4)
    assert common_size([grey], None, colour=True) == (3, 3, 4)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_damaged_image_is_named(
    tmp_path: Path, suffix: str, kept: float, write_image: Callable[[Path, int, tuple[int, int], str], None]
) -> None:
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    write_image(good, 0, (32, 32), "RGB")
    content = good.read_bytes()
    bad.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(DataError, match=r"^train/a/1: expected an image, found a damaged") as caught:
        decoded(items(good, bad), (3, 32, 32), None, [0, 1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [1, 4])
def test_of_two_damaged_images_the_first_in_order_is_named(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_threads", lambda *_: threads)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<html>")
    images: list[Image.Image | Path] = [Image.new("RGB", (1, 1))] * 400
    images[150] = images[390] = bad
    with pytest.raises(DataError, match="train/a/150:"):
        decoded(items(*images), (3, 1, 1), None, range(400))


def test_small_images_are_not_shared_among_threads_and_none_need_no_image() -> None:
    small, large = items(Image.new("RGB", (32, 32))), items(Image.new("RGB", (300, 200)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert decoding._threads(small, [0]) == 1
    assert decoding._threads(large, [0]) == min(8, cores)
    assert decoded(small, (3, 32, 32), None, []).shape == (0, 3, 32, 32)
