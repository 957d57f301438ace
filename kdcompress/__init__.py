"""kdcompress: robustness-preserving model compression.

The names below are the Python API. They are loaded when first used, so that `import kdcompress` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcompress.certification import Certification
    from kdcompress.comparison import Comparison
    from kdcompress.data import load_data
    from kdcompress.errors import KdcompressError
    from kdcompress.evaluation.baseline import compare
    from kdcompress.evaluation.certify import certify
    from kdcompress.evaluation.evaluate import evaluate
    from kdcompress.evaluation.in_memory import certify_model, evaluate_model
    from kdcompress.export.exporting import export_model
    from kdcompress.models.inspection import inspect
    from kdcompress.models.teachers import LoadedModel, load_model
    from kdcompress.progress import Listener
    from kdcompress.reading import read_report
    from kdcompress.render.progress import show_progress
    from kdcompress.render.results import show
    from kdcompress.report import Report
    from kdcompress.settings import (
        CertifyGates,
        CertifySettings,
        CleverSettings,
        CompareSettings,
        DataSettings,
        DistillSettings,
        EvaluateSettings,
        EvaluationSettings,
        ExportSettings,
        GateSettings,
        LossSettings,
        ModelFile,
        PruneSettings,
        RunSettings,
        TeacherCheckSettings,
        ThreatSettings,
        TrainSettings,
    )
    from kdcompress.threat import ThreatModel
    from kdcompress.training.run_record import RunRecord
    from kdcompress.training.runs import distill, prune, train

_HOMES = {
    "kdcompress.certification": ("Certification",),
    "kdcompress.comparison": ("Comparison",),
    "kdcompress.data": ("load_data",),
    "kdcompress.errors": ("KdcompressError",),
    "kdcompress.evaluation.baseline": ("compare",),
    "kdcompress.evaluation.certify": ("certify",),
    "kdcompress.evaluation.evaluate": ("evaluate",),
    "kdcompress.evaluation.in_memory": ("certify_model", "evaluate_model"),
    "kdcompress.export.exporting": ("export_model",),
    "kdcompress.models.inspection": ("inspect",),
    "kdcompress.models.teachers": ("LoadedModel", "load_model"),
    "kdcompress.progress": ("Listener",),
    "kdcompress.reading": ("read_report",),
    "kdcompress.render.progress": ("show_progress",),
    "kdcompress.render.results": ("show",),
    "kdcompress.report": ("Report",),
    "kdcompress.settings": (
        "CertifyGates",
        "CertifySettings",
        "CleverSettings",
        "CompareSettings",
        "DataSettings",
        "DistillSettings",
        "EvaluateSettings",
        "EvaluationSettings",
        "ExportSettings",
        "GateSettings",
        "LossSettings",
        "ModelFile",
        "PruneSettings",
        "RunSettings",
        "TeacherCheckSettings",
        "ThreatSettings",
        "TrainSettings",
    ),
    "kdcompress.threat": ("ThreatModel",),
    "kdcompress.training.run_record": ("RunRecord",),
    "kdcompress.training.runs": ("distill", "prune", "train"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Certification",
    "CertifyGates",
    "CertifySettings",
    "CleverSettings",
    "CompareSettings",
    "Comparison",
    "DataSettings",
    "DistillSettings",
    "EvaluateSettings",
    "EvaluationSettings",
    "ExportSettings",
    "GateSettings",
    "KdcompressError",
    "Listener",
    "LoadedModel",
    "LossSettings",
    "ModelFile",
    "PruneSettings",
    "Report",
    "RunRecord",
    "RunSettings",
    "TeacherCheckSettings",
    "ThreatModel",
    "ThreatSettings",
    "TrainSettings",
    "certify",
    "certify_model",
    "compare",
    "distill",
    "evaluate",
    "evaluate_model",
    "export_model",
    "inspect",
    "load_data",
    "load_model",
    "prune",
    "read_report",
    "show",
    "show_progress",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("kdcompress")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'kdcompress' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
