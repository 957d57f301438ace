import pytest
import torch
from sklearn.datasets import load_digits

from kdcompress.data import load_data


def test_the_split_has_the_fixed_sizes_and_every_image_once() -> None:
    data = load_data("digits")
    assert data.train and data.holdout and data.test
    assert (len(data.train), len(data.holdout), len(data.test)) == (1197, 240, 360)
    assert len({*data.train.ids, *data.holdout.ids, *data.test.ids}) == 1797
    assert (data.input_size, data.flips, data.crop_padding) == ((1, 16, 16), False, 1)


def test_the_split_does_not_depend_on_the_seed() -> None:
    first, second = load_data("digits", seed=0), load_data("digits", seed=1)
    for split in ("train", "holdout", "test"):
        assert getattr(first, split).ids == getattr(second, split).ids


def test_the_split_is_the_published_one() -> None:
    data = load_data("digits")
    assert data.train and data.test
    # NumPy has frozen RandomState: these can change only if the split does, and then every figure on digits moves.
    assert data.train.ids[:3] == ("2/1081", "8/1707", "2/0927")
    assert data.test.ids[-1] == "8/0684"


def test_identifiers_labels_and_pixels_belong_together() -> None:
    source = load_digits()
    data = load_data("digits", image_size=8)
    assert data.test
    inputs, labels = next(data.test.batches(360))
    for i in range(0, 360, 40):
        label, number = data.test.ids[i].split("/")
        assert int(label) == labels[i] == source.target[int(number)]
        # Bytes: half a step of 1/255.
        assert torch.allclose(inputs[i, 0].double(), torch.from_numpy(source.images[int(number)] / 16), atol=0.5 / 255)


def test_images_are_resized_bilinearly() -> None:
    small, large = (load_data("digits", image_size=side, splits=("test",)).test for side in (8, 16))
    assert small and large
    x, y = (next(split.batches(1))[0][0, 0] for split in (small, large))
    # An inner pixel of the doubled image lies a quarter of a step from the nearest: weights 3/4 and 1/4 in each
    # direction; both sides are rounded to bytes.
    expected = (9 * x[3, 4] + 3 * x[4, 4] + 3 * x[3, 5] + x[4, 5]) / 16
    assert y[7, 9].item() == pytest.approx(expected.item(), abs=1 / 255)
    assert not torch.equal(x[3, 4], x[4, 5])


def test_thinning_the_training_split_keeps_the_classes_balanced_and_the_other_splits_whole() -> None:
    data = load_data("digits", train_images=100)
    assert data.train and data.holdout and data.test
    assert torch.bincount(data.train.labels).tolist() == [10] * 10
    assert (len(data.holdout), len(data.test)) == (240, 360)


def test_only_the_splits_asked_for_are_there() -> None:
    data = load_data("digits", splits=("test",))
    assert data.train is None
    assert data.holdout is None
    assert data.test is not None
