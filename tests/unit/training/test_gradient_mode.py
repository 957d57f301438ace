"""The way of the gradient term in a run: measured on batches as training has them, and taken over by a rerun."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdcompress.engine import Choice, exact
from kdcompress.progress import Listener
from kdcompress.settings import DistillSettings, LossSettings
from kdcompress.training import gradient_mode, runs

Distilling = Callable[..., DistillSettings]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(mode asked for, images of the batch, steps) of every choice; `auto` becomes `compiled`, which is exact here."""
    seen: list[tuple[str, int, int]] = []
    measured = {"exact": 2.0, "compiled": 1.0}

    def chosen(mode: Any, student: Any, x: Any, target: Any, g_t: Any, *, p: float, steps: int, note: Any) -> Any:
        seen.append((mode, len(x), steps))
        return exact(p), Choice("compiled" if mode == "auto" else mode, "gradient term: so", measured)

    monkeypatch.setattr(gradient_mode, "choose", chosen)
    return seen


def test_a_rerun_takes_over_what_was_chosen_and_says_so(
    distilling: Distilling, tmp_path: Path, asked: list[tuple[str, int, int]]
) -> None:
    notes: list[str] = []
    runs.distill(distilling(), tmp_path / "out")
    runs.distill(distilling(seed=3), tmp_path / "out", overwrite=True, listener=Listener(note=notes.append))
    assert [mode for mode, *_ in asked] == ["auto", "compiled"]
    assert "gradient term: so, as in the run before" in notes


def test_what_was_not_measured_is_not_taken_over(
    distilling: Distilling, tmp_path: Path, asked: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.distill(distilling(LossSettings(iga_mode="exact")), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "student.json").read_text())
    record["settings"]["loss"]["iga_mode"] = "auto"
    record["gradient"] |= {"mode": "exact", "milliseconds": {"exact": 1.0}}  # as after a compiler that failed
    (tmp_path / "out" / "student.json").write_text(json.dumps(record))
    runs.distill(distilling(), tmp_path / "out", overwrite=True)
    assert [mode for mode, *_ in asked] == ["exact", "auto"]


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 3}, {"batch_size": 8}, {"loss": LossSettings(align="jacobian")}],
    ids=["epochs", "batch size", "loss"],
)
def test_a_run_that_differs_where_it_matters_chooses_anew(
    distilling: Distilling, tmp_path: Path, asked: list[tuple[str, int, int]], changes: dict[str, Any]
) -> None:
    runs.distill(distilling(), tmp_path / "out")
    runs.distill(distilling(**changes), tmp_path / "out", overwrite=True)
    assert [mode for mode, *_ in asked] == ["auto", "auto"]


def test_the_batch_tried_has_the_size_of_the_parts_that_training_takes(
    distilling: Distilling, tmp_path: Path, asked: list[tuple[str, int, int]]
) -> None:
    runs.distill(distilling(LossSettings(iga_micro_batch=4)), tmp_path / "out")
    # 9 images in parts of at most 4: three of 3; 27 images are 3 steps, twice.
    assert asked == [("auto", 3, 18)]


def test_where_memory_runs_out_a_smaller_part_is_tried(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def chosen(mode: Any, student: Any, x: Any, *rest: Any, p: float, **more: Any) -> Any:
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return exact(p), Choice("exact", "so", {})

    monkeypatch.setattr(gradient_mode, "choose", chosen)
    runs.distill(distilling(), tmp_path / "out")
    assert sizes == [9, 3]  # 9 // 2 = 4 at most: three parts of equal size
