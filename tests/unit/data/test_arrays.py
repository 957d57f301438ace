"""Images in memory become a split as they are, or are refused in words."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from kdcompress.data import split_from_arrays
from kdcompress.errors import DataError

X = torch.linspace(0, 1, 5 * 3 * 2 * 2).view(5, 3, 2, 2)
Y = torch.tensor([0, 2, 1, 0, 1])


def everything(split: Any) -> tuple[torch.Tensor, torch.Tensor]:
    (batch,) = split.batches(len(split))
    return batch


def test_floats_stay_what_they_are_to_the_bit() -> None:
    inputs, labels = everything(split_from_arrays((X, Y)))
    assert inputs.equal(X) and inputs.dtype == torch.float32
    assert labels.equal(Y) and labels.dtype == torch.int64


def test_bytes_are_divided_by_255() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    inputs, _ = everything(split_from_arrays((pixels, [0])))
    assert inputs.equal(pixels.float() / 255)


@pytest.mark.parametrize(
    "data",
    [
        (X.numpy(), Y.numpy()),
        (X.numpy().astype(np.float64), Y.tolist()),
        [(X[:2], Y[:2]), (X[2:], Y[2:])],
        ((X[:2], Y[:2]), (X[2:], Y[2:])),
        DataLoader(TensorDataset(X, Y), batch_size=2),
        (batch for batch in DataLoader(TensorDataset(X, Y), batch_size=3)),
    ],
    ids=["numpy", "float64 and a list", "batches", "a tuple of two", "a loader", "a generator"],
)
def test_arrays_batches_and_loaders_give_the_same_split(data: Any) -> None:
    inputs, labels = everything(split_from_arrays(data))
    assert inputs.equal(X) and labels.equal(Y)


def test_a_subset_and_a_seeded_shuffle_go_by_the_names() -> None:
    split = split_from_arrays((X, Y), ids=["a", "b", "c", "d", "e"])
    turned = split_from_arrays((X.flip(0), Y.flip(0)), ids=["e", "d", "c", "b", "a"])
    assert everything(split.shuffled(3, 0))[0].equal(everything(turned.shuffled(3, 0))[0])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((X * 2, Y), r"pixels in \[0,1\].*got 0 to 2.*normalisation"),
        ((X - 1, Y), r"got -1 to 0"),
        ((X.clone().fill_(torch.nan), Y), "got nan"),
        ((X[0], Y), r"\(N, C, H, W\), got \(3, 2, 2\)"),
        ((X[:0], Y[:0]), r"got \(0, 3, 2, 2\)"),
        ((X, Y[:3]), r"one for each image, got \(3,\)"),
        ((X, Y.float()), "integers"),
        ((X, Y - 1), "integers of at least 0, got torch.int64 from -1"),
        ((X, Y == 0), "integers"),
        ([(X, Y), (X[:, :1], Y)], "agree in size"),
        ([(X, Y), (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), [0])], "agree in size and type"),
        ([X, X], "pairs of inputs and labels, got Tensor"),
        (None, r"data must be \(inputs, labels\), or batches of such pairs, got NoneType"),
        ("images", "got str"),
        ((["a"], ["b"]), "inputs must be a tensor, an array or numbers, got list"),
        ([], "no batch"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        split_from_arrays(data)


def test_names_must_be_different() -> None:
    with pytest.raises(DataError, match="a different name"):
        split_from_arrays((X, Y), ids=["a", "a", "b", "c", "d"])
