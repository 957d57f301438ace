"""The folder of a run: all of it or nothing, and nothing that was there before is lost."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from kdcompress.errors import UsageError
from kdcompress.progress import Listener
from kdcompress.training.checkpoints import unfinished
from kdcompress.training.folder import RUN_FILES, refuse_used, run_folder


def old_run(out: Path) -> Path:
    out.mkdir()
    for name in RUN_FILES:
        (out / name).write_text("old")
    return out


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_finished_block_leaves_the_folder_and_nothing_else(tmp_path: Path) -> None:
    with run_folder(tmp_path / "out", overwrite=True) as making:
        (making / "student.json").write_text("new")
        assert not (tmp_path / "out").exists()
    assert listing(tmp_path) == ["out", "out/student.json"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_or_is_interrupted_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), run_folder(tmp_path / "out", overwrite=True) as making:
        (making / "student.json").write_text("half")
        raise failure
    assert listing(tmp_path) == []


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_an_old_run_survives_a_new_one_that_fails(tmp_path: Path, failure: type[BaseException]) -> None:
    out = old_run(tmp_path / "out")
    before = listing(tmp_path)
    with pytest.raises(failure), run_folder(out, overwrite=True) as making:
        (making / "student.json").write_text("half")
        raise failure
    assert listing(tmp_path) == before
    assert (out / "student.json").read_text() == "old"


def test_an_old_run_survives_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = old_run(tmp_path / "out")
    rename = Path.replace

    def held(self: Path, target: Path) -> Path:
        if target == out and (self / "student.json").read_text() == "new":
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(UsageError, match=r"busy.* lies in") as caught, run_folder(out, overwrite=True) as making:
        (making / "student.json").write_text("new")
    kept = Path(str(caught.value).split(" lies in ")[1])
    assert (kept / "student.json").read_text() == "new"
    assert (out / "student.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, kept.name])


@pytest.mark.parametrize(("overwrite", "name"), [(False, "student.json"), (True, "notes.txt")])
def test_what_came_into_the_folder_during_the_run_stays_and_the_run_is_kept_beside_it(
    tmp_path: Path, overwrite: bool, name: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=f"{name}.* lies in") as caught, run_folder(out, overwrite=overwrite) as making:
        (making / "student.json").write_text("new")
        out.mkdir()
        (out / name).write_text("theirs")
    kept = Path(str(caught.value).split(" lies in ")[1])
    assert (out / name).read_text() == "theirs" and (kept / "student.json").read_text() == "new"
    assert kept.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_moved_is_found_out_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="cannot be written: not writable"):
        refuse_used(tmp_path / "out", overwrite=True)


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="got the current one"):
        refuse_used(Path(), overwrite=False)


def test_a_new_run_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    out = old_run(tmp_path / "out")
    with run_folder(out, overwrite=True) as making:
        (making / "student.json").write_text("new")
        assert (out / "student.json").read_text() == "old"
    assert listing(tmp_path) == ["out", "out/student.json"]
    assert (out / "student.json").read_text() == "new"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    old_run(tmp_path / "disk" / "runs")
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "runs")
    with run_folder(tmp_path / "out", overwrite=True) as making:
        (making / "student.json").write_text("new")
    assert (tmp_path / "out").is_symlink()
    assert listing(tmp_path / "disk") == ["runs", "runs/student.json"]


def test_folders_above_are_made_at_the_end_only(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    refuse_used(out, overwrite=False)
    assert listing(tmp_path) == []
    with run_folder(out, overwrite=True) as making:
        (making / "student.json").write_text("new")
    assert listing(tmp_path) == ["a", "a/b", "a/b/out", "a/b/out/student.json"]


def test_a_new_name_an_empty_folder_and_an_old_run_with_overwrite_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    old_run(tmp_path / "old")
    before = listing(tmp_path)
    refuse_used(tmp_path / "new", overwrite=False)
    refuse_used(tmp_path / "empty", overwrite=False)
    refuse_used(tmp_path / "old", overwrite=True)
    assert listing(tmp_path) == before


def test_a_folder_that_holds_a_run_is_refused_and_overwrite_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"already holds a run .*student\.json.*--overwrite"):
        refuse_used(old_run(tmp_path / "out"), overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_files_of_no_run_is_refused_even_with_overwrite(tmp_path: Path, overwrite: bool) -> None:
    out = old_run(tmp_path / "out")
    (out / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match=r"holds thesis\.tex"):
        refuse_used(out, overwrite=overwrite)
    assert (out / "thesis.tex").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_no_folder(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="--out must be a folder, got the file"):
        refuse_used(tmp_path / "out", overwrite=overwrite)


@pytest.mark.parametrize("name", ["file/out", "x" * 300, "/proc/kdcompress/out"])
def test_a_place_that_cannot_be_written_is_found_out_before_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out .* cannot be written: .*; name another folder"):
        refuse_used(tmp_path / name, overwrite=False)


def test_a_mount_point_is_refused_since_it_cannot_be_renamed() -> None:
    with pytest.raises(UsageError, match="mount point"):
        refuse_used(Path("/proc"), overwrite=True)


def test_what_a_killed_run_had_half_written_goes_with_the_next_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    how: dict[str, Any] = {"resume": True, "overwrite": False, "every": 0.0, "listener": Listener()}
    with unfinished(out, **how):
        block = run_folder(out, overwrite=False)
        making = block.__enter__()  # and never left, as by a process that is killed
        (making / "student.json").write_text("half")
        shutil.copytree(tmp_path / "out.unfinished", tmp_path / "as it was")
    (tmp_path / "as it was").rename(tmp_path / "out.unfinished")
    assert making.exists()
    with unfinished(out, **how):
        assert not making.exists()
    assert listing(tmp_path) == []
