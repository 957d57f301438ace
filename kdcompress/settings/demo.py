"""The demo's networks and budgets."""

from typing import Any

from pydantic import Field

from kdcompress.settings.base import Settings
from kdcompress.settings.evaluation import EvaluationSettings
from kdcompress.settings.inputs import ThreatSettings
from kdcompress.settings.run import RunSettings


class DemoSettings(Settings):
    """The demo's networks and budgets, sized for two CPU cores and six minutes.

    examples/digits has the command that trained the teacher and the measurements behind these figures.
    """

    student: str = "resnet18"
    student_args: dict[str, Any] = {
        "layers": [1, 1, 1, 1],
        "channels": [16, 32, 48, 64],
        "act_layer": "silu",
        "stem_type": "deep",
        "stem_width": 8,
    }
    student_stride: int = 8
    threat: ThreatSettings = Field(default_factory=lambda: ThreatSettings(norm="Linf", eps=0.15))
    run: RunSettings = Field(default_factory=lambda: RunSettings(epochs=45, batch_size=64, lr=1e-2))
    evaluation: EvaluationSettings = Field(default_factory=lambda: EvaluationSettings(images=100, certify_images=0))
