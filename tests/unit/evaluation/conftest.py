"""A linear network, whose robust accuracy is known exactly, and its images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.teachers import LoadedModel


class Bright(nn.Module):
    """Class 1 where the mean of a grey image exceeds one half: the Linf distance to the other class is |mean - 1/2|."""

    def __init__(self, slope: float = 20.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x: Tensor) -> Tensor:
        over = self.slope * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-over, over], 1)


@pytest.fixture
def bright() -> nn.Module:
    return Bright().eval().requires_grad_(False)


@pytest.fixture
def greys() -> Split:
    """25 even images of brightness 91, 94, ..., 163 of 255, of class 1 where over one half; the last label is wrong."""
    levels = torch.arange(91, 166, 3)
    labels = (levels > 127).long()
    labels[-1] = 0
    return split_from_pixels(levels.to(torch.uint8)[:, None, None, None].expand(25, 1, 3, 3).contiguous(), labels)


@pytest.fixture
def loaded(bright: nn.Module, tmp_path: Path) -> LoadedModel:
    path = tmp_path / "bright.pt"
    path.write_bytes(b"12345")
    record = ModelRecord(
        source="factory", arch="f.py:bright", input_size=(1, 3, 3), classes=("dark", "bright"), mean=None, std=None
    )
    return LoadedModel(NormalisedModel(bright, None, None).eval(), record, "abc", path, ("a note",))
