"""What is kept on the disk, and what is removed from it."""

import os
from pathlib import Path

import pytest
import torch

from kdcompress.evaluation.kept import FORGOTTEN, Chunk, Kept, forget_old

FOLDER = "0123456789abcdef01234567"
FILE = "chunk-00000-0123456789abcdef.safetensors"
LONG_AGO = 1e9


def aged(path: Path, *, old: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    for touched in (path, path.parent):
        os.utime(touched, (LONG_AGO, LONG_AGO) if old else None)
    return path


def test_a_chunk_comes_back_as_it_was(tmp_path: Path) -> None:
    chunk = Chunk(
        predicted=torch.tensor([1, 2]),
        verdict=torch.tensor([-1, 0], dtype=torch.int16),
        shown=torch.rand(1, 1, 2, 2),
        probe=torch.rand(2, 3),
        slope=torch.full((2, 1, 2, 2), torch.nan),
        done=3,
        warnings=("zero gradient!", "Umlaut: ä"),
    )
    Kept(tmp_path).save(FILE, chunk)
    found = Kept(tmp_path).load(FILE)
    assert found is not None
    assert (found.done, found.warnings) == (3, ("zero gradient!", "Umlaut: ä"))
    for name in ("predicted", "verdict", "shown", "probe", "slope"):
        torch.testing.assert_close(getattr(found, name), getattr(chunk, name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("file", [FILE, f"votes-{FOLDER}.safetensors", f"verified-{FOLDER}.safetensors"])
def test_what_was_last_written_long_ago_is_forgotten(file: str, tmp_path: Path) -> None:
    old, fresh = aged(tmp_path / FOLDER / file), aged(tmp_path / FOLDER[::-1] / FILE, old=False)
    forget_old(tmp_path)
    assert not old.parent.exists()
    assert fresh.exists()
    forget_old(tmp_path, now=fresh.stat().st_mtime + FORGOTTEN + 1)
    assert not fresh.exists()


@pytest.mark.parametrize(
    "name", ["models/model.safetensors", f"{FOLDER}/model.safetensors", f"models/{FILE}", FILE, f"{FOLDER}/{FILE}.d/x"]
)
def test_what_has_not_our_names_stays_however_old(name: str, tmp_path: Path) -> None:
    file = aged(tmp_path / name)
    forget_old(tmp_path)
    assert file.exists()


@pytest.mark.parametrize("root", ["nowhere", "file"])
def test_where_there_is_no_folder_there_is_nothing_to_forget(root: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    forget_old(tmp_path / root)
