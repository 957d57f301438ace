"""What a run leaves, in a folder that appears whole: the best weights, the last, student.json and metrics.jsonl."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdcompress.data import Data
from kdcompress.models.checkpoints import save_model
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.settings import PruneSettings, TeachingSettings, TrainSettings
from kdcompress.settings.config import as_options, as_toml, besides_options
from kdcompress.threat import ThreatModel
from kdcompress.training.folder import run_folder
from kdcompress.training.ingredients import training_split
from kdcompress.training.loop import Fitted
from kdcompress.training.recipes.passes import Passes
from kdcompress.training.run_record import (
    Compression,
    Cost,
    GradientRecord,
    LastRecord,
    PrunedRecord,
    RunRecord,
    TeacherRecord,
    ValidationRecord,
)
from kdcompress.training.state import Candidate
from kdcompress.versions import versions


def leave(
    out: Path,
    fitted: Fitted,
    record: ModelRecord,
    settings: TeachingSettings | TrainSettings,
    *,
    overwrite: bool,
    threat: ThreatModel,
    data: Data,
    device: str,
    passes: Passes,
    teacher: TeacherRecord | None = None,
    iga_weight: float | None = None,
    gradient: GradientRecord | None = None,
    pruned: PrunedRecord | None = None,
    started_from: str | None = None,
) -> RunRecord:
    """Write both networks, their record and the metrics; the folder appears at once, or not at all.

    Args:
        device: what the run took place on, in words.
    """
    model, last = fitted.best.model.cpu(), fitted.last.model.cpu()
    assert isinstance(model, NormalisedModel) and isinstance(last, NormalisedModel)
    with run_folder(out, overwrite=overwrite) as folder:
        sha256 = save_model(folder / "student.safetensors", model, record)
        last_sha256 = save_model(folder / "last.safetensors", last, record)
        compression = Compression.between(
            params=parameter_count(model),
            macs=macs(model, data.input_size),
            file_bytes=(folder / "student.safetensors").stat().st_size,
            teacher=teacher,
        )
        result = RunRecord(
            model=record,
            sha256=sha256,
            threat_model={"norm": threat.norm, "eps": threat.eps},
            data={
                "name": data.name,
                "train": len(training_split(data)),
                "holdout": len(data.holdout or ()),
                "damaged": len(data.damaged),
            },
            settings=settings.model_dump(mode="json"),
            iga_weight=iga_weight,
            gradient=gradient,
            pruned=pruned,
            started_from=started_from,
            teacher=teacher,
            compression=compression,
            selected=ValidationRecord(**_validated(fitted.best)),
            last=LastRecord(**_validated(fitted.last), sha256=last_sha256),
            cost=Cost(
                seconds=round(fitted.seconds, 1),
                steps=fitted.steps,
                device=device,
                student_passes=passes.student,
                teacher_passes=passes.teacher,
                skipped=sum(epoch.skipped for epoch in fitted.history),
            ),
            versions=versions(),
        )
        (folder / "student.json").write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        options = as_options(settings) | {"out": str(out.resolve())}
        if gradient is not None:  # what was chosen by the clock might be chosen otherwise
            options["iga-mode"] = gradient.mode
        (folder / "run.toml").write_text(
            as_toml(_command(settings), options, besides=besides_options(settings)), encoding="utf-8"
        )
        lines = [json.dumps(asdict(epoch)) for epoch in fitted.history]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return result


def _command(settings: TeachingSettings | TrainSettings) -> str:
    if isinstance(settings, TrainSettings):
        return "train"
    return "prune" if isinstance(settings, PruneSettings) else "distill"


def _validated(kept: Candidate) -> dict[str, Any]:
    return {"epoch": kept.epoch, "weights": kept.weights, **asdict(kept.validation)}
