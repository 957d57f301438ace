from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdcompress.data import Split
from kdcompress.evaluation.audit.chunks import Found, over_chunks

CPU = torch.device("cpu")


class KilledError(Exception):
    pass


def means(x: Tensor, y: Tensor, number: int) -> Found:
    return {"mean": x.flatten(1).mean(1), "label": y, "number": torch.full((len(x),), number)}


@pytest.mark.parametrize("size", [1, 4, 6, 99])
def test_what_is_found_on_every_chunk_is_put_together_in_order(images: Split, size: int) -> None:
    told: list[tuple[int, int]] = []
    found = over_chunks(
        means, images, size=size, device=CPU, on_progress=lambda done, total: told.append((done, total))
    )
    assert torch.equal(found["label"], images.labels)
    assert found["number"].tolist() == [i // size for i in range(6)]
    assert told[-1] == (6, 6) and len(told) == -(-6 // size)


def test_a_killed_audit_goes_on_with_the_chunk_that_was_in_work(images: Split, tmp_path: Path) -> None:
    seen: list[int] = []

    def killed(x: Tensor, y: Tensor, number: int) -> Found:
        seen.append(number)
        if number == 2 and seen.count(2) == 1:
            raise KilledError
        return means(x, y, number)

    with pytest.raises(KilledError):
        over_chunks(killed, images, size=2, device=CPU, folder=tmp_path / "kept")
    found = over_chunks(killed, images, size=2, device=CPU, folder=tmp_path / "kept")
    assert seen == [0, 1, 2, 2]
    whole = over_chunks(means, images, size=2, device=CPU)
    assert found.keys() == whole.keys() and all(torch.equal(found[key], whole[key]) for key in whole)


def test_other_images_are_not_taken_for_those_that_were_kept(images: Split, tmp_path: Path) -> None:
    over_chunks(means, images, size=2, device=CPU, folder=tmp_path)
    others = images.subset([3, 2, 1, 0])
    found = over_chunks(means, others, size=2, device=CPU, folder=tmp_path)
    assert torch.equal(found["label"], others.labels)


def test_a_damaged_file_is_measured_again(images: Split, tmp_path: Path) -> None:
    over_chunks(means, images, size=99, device=CPU, folder=tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"no tensors")
    assert torch.equal(over_chunks(means, images, size=99, device=CPU, folder=tmp_path)["label"], images.labels)


def test_a_folder_that_cannot_be_written_costs_only_the_memory_of_it(images: Split, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = over_chunks(means, images, size=2, device=CPU, folder=tmp_path / "file" / "folder")
    assert torch.equal(found["label"], images.labels)
