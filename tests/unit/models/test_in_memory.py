"""A network that came from no file: copied, counted, named."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.errors import CheckpointError
from kdcompress.models.in_memory import loaded_from

SIZE = (1, 3, 3)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def test_a_copy_is_judged_and_the_network_stays_as_it_is() -> None:
    mine = network().train()
    loaded = loaded_from(mine, 2, SIZE)
    assert mine.training and all(weight.requires_grad for weight in mine.parameters())
    assert not any(module.training for module in loaded.model.modules())
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert int(mine[2].num_batches_tracked) == 0  # type: ignore[index,arg-type]


def test_what_a_report_says_of_it() -> None:
    loaded = loaded_from(network(), ["a", "b", "c", "d"], SIZE)
    assert (loaded.record.arch, loaded.record.classes, loaded.record.input_size) == ("Sequential", tuple("abcd"), SIZE)
    assert loaded.file_bytes == sum(tensor.nbytes for tensor in network().state_dict().values())


class Shifted(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.register_buffer("by", torch.tensor(by), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + self.by


def test_the_hash_sees_buffers_that_no_file_has() -> None:
    assert loaded_from(Shifted(0.0), 2, SIZE).sha256 != loaded_from(Shifted(1.0), 2, SIZE).sha256


def test_the_hash_goes_by_weights_and_structure() -> None:
    mine = network()
    assert loaded_from(mine, 4, SIZE).sha256 == loaded_from(mine, 4, SIZE).sha256
    other = loaded_from(nn.Sequential(*mine, nn.Identity()), 4, SIZE).sha256
    before = loaded_from(mine, 4, SIZE).sha256
    with torch.no_grad():
        mine[1].bias[0] += 1e-3  # type: ignore[index]
    assert len({before, other, loaded_from(mine, 4, SIZE).sha256}) == 3


class Answers(nn.Module):
    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer


class NoCopy(nn.Module):
    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("one of a kind")


@pytest.mark.parametrize(
    ("module", "classes", "said"),
    [
        (network(), 5, "4 logits, and the data 5 classes"),
        (network(), ["a", "b", "c"], "4 logits, and the data 3 classes"),
        (nn.Linear(9, 4), 2, "does not take images of 1x3x3"),
        (Answers(torch.zeros(2, 3, 3)), 2, r"got \(2, 3, 3\)"),
        (Answers(torch.full((2, 3), torch.nan)), 2, "finite"),
        (Answers((1, 2)), 2, "got tuple"),
        (NoCopy(), 2, "cannot be copied"),
    ],
)
def test_what_is_no_classifier_of_such_images_is_refused(module: nn.Module, classes: object, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        loaded_from(module, classes, SIZE)  # type: ignore[arg-type]
