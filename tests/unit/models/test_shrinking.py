"""What pruning left is built again from the record, and a record can take but never add."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kdcompress.errors import CheckpointError, UsageError
from kdcompress.models.checkpoints import save_model
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord, Shrunk
from kdcompress.models.shrinking import same_function, shrink, shrunk_from
from kdcompress.models.students import create_student
from kdcompress.models.teachers import load_model


def pair() -> tuple[nn.Sequential, nn.Sequential]:
    return tuple(  # type: ignore[return-value]
        nn.Sequential(nn.Conv2d(3, wide, 3), nn.BatchNorm2d(wide), nn.Flatten(), nn.Linear(wide * 36, 2))
        for wide in (8, 5)
    )


def test_a_network_is_taken_down_to_what_is_left_of_it() -> None:
    whole, left = pair()
    shrunk = shrunk_from(whole, left)
    assert shrunk.sizes == {"0": {"out_channels": 5}, "1": {"num_features": 5}, "3": {"in_features": 180}}
    shrink(whole, shrunk)
    whole.load_state_dict(left.state_dict())
    assert same_function(whole.eval(), left.eval(), torch.rand(2, 3, 8, 8))


class Told(nn.Module):
    """A layer in a shell that tells of its width, as timm's ConvNormAct does, and cannot be told."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, wide, 3)

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels


def test_what_a_module_only_tells_of_an_inner_one_is_left_to_follow() -> None:
    whole, left = Told(8), Told(5)
    shrunk = shrunk_from(whole, left)
    assert shrunk.sizes == {"conv": {"out_channels": 5}}
    shrink(whole, shrunk)
    assert whole.out_channels == 5
    with pytest.raises(UsageError, match="cannot be pruned as it says"):
        shrink(whole, Shrunk(sizes={"": {"out_channels": 4}}, shapes={}))


def test_equal_networks_have_nothing_taken() -> None:
    assert shrunk_from(pair()[0], pair()[0]) == Shrunk(sizes={}, shapes={})


@pytest.mark.parametrize(
    "shrunk",
    [
        Shrunk(sizes={"0": {"out_channels": 9}}, shapes={}),
        Shrunk(sizes={"nowhere": {"out_channels": 1}}, shapes={}),
        Shrunk(sizes={"0": {"padding_mode": 1}}, shapes={}),
        Shrunk(sizes={"0": {"kernel_size": (1, 1)}}, shapes={}),
        Shrunk(sizes={}, shapes={"0.weight": (9, 3, 3, 3)}),
        Shrunk(sizes={}, shapes={"0.weight": (8, 3, 3)}),
        Shrunk(sizes={}, shapes={"0.wait": (1,)}),
    ],
)
def test_a_record_cannot_add_nor_set_what_is_no_width(shrunk: Shrunk) -> None:
    with pytest.raises(UsageError, match="cannot be pruned as it says"):
        shrink(pair()[0], shrunk)


def test_a_file_whose_record_lies_about_it_is_refused_in_words(tmp_path: Path) -> None:
    args = {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8)}
    model, record = create_student(
        "resnet18", args, classes="ab", input_size=(3, 8, 8), mean=(0.5,) * 3, std=(1.0,) * 3
    )
    path = tmp_path / "lies.safetensors"
    lies = record.model_copy(update={"shrunk": Shrunk(sizes={"fc": {"out_features": 5}}, shapes={})})
    assert isinstance(model, NormalisedModel) and isinstance(lies, ModelRecord)
    save_model(path, model, lies)
    with pytest.raises(CheckpointError, match=r"its record cannot be followed: it cannot be pruned as it says: fc\."):
        load_model(path)
