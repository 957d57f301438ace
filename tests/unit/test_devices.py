"""What is done where a device's memory runs out."""

import pytest
import torch

from kdcompress.devices import within_memory


def short_of_memory(most: int, tried: list[int]) -> int:
    if tried[-1] > most:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return tried[-1]


def test_fewer_images_at_once_until_they_fit() -> None:
    notes: list[str] = []
    tried: list[int] = []
    assert within_memory(lambda images: short_of_memory(70, [*tried, images]), 250, notes.append) == 62
    assert notes == [f"out of memory: again, {images} images at a time" for images in (125, 62)]


def test_one_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(lambda images: short_of_memory(0, [images]), 4, lambda note: None)


def test_other_errors_are_not_taken_for_it() -> None:
    def broken(images: int) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(broken, 4, lambda note: None)
