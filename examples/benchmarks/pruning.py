"""Which channels to take, and whether pruning beats a small student made fresh: digits, three seeds.

    python examples/benchmarks/pruning.py

A student is distilled (`--align jacobian`, 45 epochs); a share of its multiply-accumulates is taken in several ways,
and what is left is taught again for 15 epochs with the same loss. `fresh` has the shape that `magnitude` leaves, and
fresh weights; `fresh, as long` is taught for all 60 epochs. Held-out clean and PGD-10 accuracy, never the test split.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from studies import digits, over_seeds

from kdcompress.data import Data
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.shrinking import shrink
from kdcompress.models.students import build_student
from kdcompress.settings import DistillSettings, LossSettings, PruneSettings, RunSettings
from kdcompress.training import pruning, runs
from kdcompress.training.run_record import PrunedRecord, RunRecord

TAUGHT, TAUGHT_AGAIN = 45, 15
Student = tuple[NormalisedModel, ModelRecord, PrunedRecord]
importance = tp.importance
WAYS: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "magnitude, over all layers": {"global_pruning": True, "max_pruning_ratio": 0.9},
    "BatchNorm's scale": {"importance": importance.BNScaleImportance()},
    "by chance": {"importance": importance.RandomImportance()},
    "fresh": {},
    "fresh, as long": {},
}


def taken(way: str, seed: int, settings: PruneSettings, data: Data) -> Student:
    """As `pruned_student`, in one of the ways."""
    torch.manual_seed(seed)
    usual = pruning.without_channels
    pruning.without_channels = partial(usual, **WAYS[way])  # type: ignore[assignment]
    try:
        network, record, told = pruning.pruned_student(settings, data)
    finally:
        pruning.without_channels = usual
    if way.startswith("fresh"):
        fresh = build_student(record)
        assert record.shrunk is not None
        shrink(fresh, record.shrunk)
        network = NormalisedModel(fresh, record.mean, record.std)
    return network, record, told


def run(base: DistillSettings, way: str, ratio: float, seed: int, student: Path, out: Path) -> RunRecord:
    epochs = TAUGHT + TAUGHT_AGAIN if way == "fresh, as long" else TAUGHT_AGAIN
    settings = PruneSettings(
        student=student,
        ratio=ratio,
        teacher=base.teacher,
        data=base.data,
        threat=base.threat,
        loss=base.loss,
        run=RunSettings(**base.run.model_dump(exclude_unset=True) | {"epochs": epochs, "seed": seed}),
    )
    usual: Callable[..., Any] = runs.pruned_student
    runs.pruned_student = partial(taken, way, seed)  # type: ignore[assignment]
    try:
        return runs.prune(settings, out)
    finally:
        runs.pruned_student = usual  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.75])
    options = parser.parse_args()
    plain = digits(None, None)
    base = plain.model_copy(update={"loss": LossSettings(align="jacobian", iga_mode="exact")})
    with tempfile.TemporaryDirectory() as folder:
        whole = []
        for seed in range(options.seeds):
            once = RunSettings(**base.run.model_dump(exclude_unset=True) | {"epochs": TAUGHT, "seed": seed})
            whole.append(runs.distill(base.model_copy(update={"run": once}), Path(folder) / f"whole {seed}"))
        print("taken | parameters | clean, each seed | mean | PGD-10, each seed | mean", flush=True)
        show("nothing", whole)
        for ratio in options.ratios:
            for way in WAYS:
                found = [
                    run(
                        *(base, way, ratio, seed, Path(folder) / f"whole {seed}" / "student.safetensors"),
                        Path(folder) / f"{way} {ratio} {seed}",
                    )
                    for seed in range(options.seeds)
                ]
                show(f"{ratio:g} {way}", found)


def show(row: str, found: list[RunRecord]) -> None:
    clean = over_seeds([record.selected.clean_accuracy for record in found])
    robust = over_seeds([record.selected.robust_accuracy for record in found])
    params = sorted({record.compression.params for record in found})
    print(f"{row} | {' '.join(map(str, params))} | {clean} | {robust}", flush=True)


if __name__ == "__main__":
    main()
