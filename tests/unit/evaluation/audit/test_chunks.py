from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.audit import chunks
from kdcompress.evaluation.audit.chunks import Found, over_chunks
from tests.unit.evaluation.audit.networks import CPU, curved


class KilledError(Exception):
    pass


def means(x: Tensor, y: Tensor, names: Sequence[str]) -> Found:
    return {"mean": x.flatten(1).mean(1), "label": y, "name": torch.tensor([int(name) for name in names])}


def over(images: Split, folder: Path | None = None, **changes: object) -> Found:
    how = {"measure": means, "networks": (curved(0), curved(1)), "size": 99, "device": CPU} | changes
    return over_chunks("brightness", how.pop("measure"), images, folder=folder, **how)  # type: ignore[arg-type]


class Counting:
    """`means`, and how many images it was asked for."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, x: Tensor, y: Tensor, names: Sequence[str]) -> Found:
        self.images += len(x)
        return means(x, y, names)


@pytest.fixture(autouse=True)
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 2)


@pytest.mark.parametrize("size", [1, 2, 99])
def test_what_is_found_on_every_chunk_is_put_together_in_order(images: Split, size: int) -> None:
    told: list[tuple[int, int]] = []
    seen: list[int] = []

    def measure(x: Tensor, y: Tensor, names: Sequence[str]) -> Found:
        seen.append(len(x))
        return means(x, y, names)

    found = over(images, measure=measure, size=size, on_progress=lambda done, total: told.append((done, total)))
    assert torch.equal(found["label"], images.labels)
    assert found["name"].tolist() == list(range(6))
    assert told[-1] == (6, 6) and len(told) == len(seen)
    assert max(seen) == min(size, 2) and sum(seen) == 6


def test_a_killed_audit_goes_on_with_the_chunk_that_was_in_work(images: Split, tmp_path: Path) -> None:
    seen: list[str] = []

    def killed(x: Tensor, y: Tensor, names: Sequence[str]) -> Found:
        seen.extend(names)
        if seen.count("5") == 1:
            raise KilledError
        return means(x, y, names)

    with pytest.raises(KilledError):
        over(images, tmp_path / "kept", measure=killed)
    found = over(images, tmp_path / "kept", measure=killed)
    assert seen == ["0", "1", "2", "3", "4", "5", "4", "5"]
    whole = over(images)
    assert found.keys() == whole.keys() and all(torch.equal(found[key], whole[key]) for key in whole)


def test_what_was_kept_is_found_whatever_goes_at_once(images: Split, tmp_path: Path) -> None:
    over(images, tmp_path, size=1)
    count = Counting()
    over(images, tmp_path, size=2, measure=count)
    assert count.images == 0


def test_other_images_are_not_taken_for_those_that_were_kept(images: Split, tmp_path: Path) -> None:
    over(images, tmp_path)
    others = images.subset([3, 2, 1, 0])
    assert torch.equal(over(others, tmp_path)["label"], others.labels)
    renamed = Split(images.labels, tuple(f"1{name}" for name in images.ids), images.pixels, images.rows)
    assert over(renamed, tmp_path)["name"].tolist() == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("change", ["logits", "slope"])
def test_what_was_kept_of_networks_that_answer_otherwise_by_now_is_measured_again(
    place: int, change: str, images: Split, tmp_path: Path
) -> None:
    class Other(nn.Module):
        """The same network under the same name, whose code was changed meanwhile."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.network(x)
            return 1.5 * found if change == "logits" else (found + found.detach()) / 2

    networks = [curved(0), curved(1)]
    over(images, tmp_path, networks=networks)
    changed = [Other(network) if place == at else network for at, network in enumerate(networks)]
    again, count = Counting(), Counting()
    over(images, tmp_path, networks=networks, measure=again)
    over(images, tmp_path, networks=changed, measure=count)
    assert (again.images, count.images) == (0, 6)


def test_a_damaged_file_is_measured_again(images: Split, tmp_path: Path) -> None:
    over(images, tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"no tensors")
    assert torch.equal(over(images, tmp_path)["label"], images.labels)


def test_a_folder_that_cannot_be_written_costs_only_the_memory_of_it(images: Split, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert torch.equal(over(images, tmp_path / "file" / "folder")["label"], images.labels)
