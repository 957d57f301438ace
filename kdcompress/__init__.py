"""kdcompress: robustness-preserving model compression.

The names below are the Python API. They are loaded when first used, so that `import kdcompress` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcompress.data import load_data
    from kdcompress.evaluation.evaluate import evaluate
    from kdcompress.models.teachers import load_model
    from kdcompress.progress import Listener
    from kdcompress.report import Report
    from kdcompress.settings import (
        DataSettings,
        DistillSettings,
        EvaluateSettings,
        EvaluationSettings,
        GateSettings,
        LossSettings,
        ModelFile,
        RunSettings,
        ThreatSettings,
        TrainSettings,
    )
    from kdcompress.threat import ThreatModel
    from kdcompress.training.runs import distill, train

_HOMES = {
    "kdcompress.data": ("load_data",),
    "kdcompress.evaluation.evaluate": ("evaluate",),
    "kdcompress.models.teachers": ("load_model",),
    "kdcompress.progress": ("Listener",),
    "kdcompress.report": ("Report",),
    "kdcompress.settings": (
        "DataSettings",
        "DistillSettings",
        "EvaluateSettings",
        "EvaluationSettings",
        "GateSettings",
        "LossSettings",
        "ModelFile",
        "RunSettings",
        "ThreatSettings",
        "TrainSettings",
    ),
    "kdcompress.threat": ("ThreatModel",),
    "kdcompress.training.runs": ("distill", "train"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DataSettings",
    "DistillSettings",
    "EvaluateSettings",
    "EvaluationSettings",
    "GateSettings",
    "Listener",
    "LossSettings",
    "ModelFile",
    "Report",
    "RunSettings",
    "ThreatModel",
    "ThreatSettings",
    "TrainSettings",
    "distill",
    "evaluate",
    "load_data",
    "load_model",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'kdcompress' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
