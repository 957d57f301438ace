"""Everything `export` is asked for."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kdcompress.errors import UsageError
from kdcompress.settings.base import Fraction, Settings
from kdcompress.settings.evaluation import EvaluationSettings
from kdcompress.settings.gates import PRESERVED_WITHIN
from kdcompress.settings.inputs import DataSettings, ModelFile, ThreatSettings


class ExportSettings(Settings):
    """A network, the file that is wanted of it, and how it is checked.

    opset: 18 is the oldest that the exporter writes without converting, so that the most runtimes read it.

    calibration_images: with 64, 256 and 1,024 of them the rounded teacher of `examples/cifar10` moves its logits by
    .040, .041 and .040 on average and 6 of 300 labels each, the digits' by .019, .018 and .018 and none (held-out
    images, 2026-11-24): more than 256 buy nothing, and fewer save seconds.

    images: of the test split, on which logits are compared, and which are attacked where `int8` asks for it. 500 show
    that no more than 3 points were lost, at 95%, where the two differ on up to 10 each (interval -1.9 to 1.9).

    Attributes:
        threat: the ball in which the int8 network's robust accuracy is measured.
        max_robust_drop: the most that int8 may lose against its float parent, by the interval's upper end.
    """

    model: ModelFile
    data: DataSettings
    format: Literal["onnx", "torch-export"] = "onnx"
    opset: Annotated[int, Field(ge=18, le=23)] = 18
    int8: bool = False
    calibration_images: Annotated[int, Field(ge=1)] = 256
    threat: ThreatSettings | None = None
    evaluation: EvaluationSettings = Field(default_factory=lambda: EvaluationSettings(images=500, certify_images=0))
    max_robust_drop: Fraction | None = None

    @model_validator(mode="after")
    def _int8_is_attacked(self) -> Self:
        if self.int8 and self.threat is None and self.evaluation.attack != "none":
            raise UsageError(
                "--int8 asks what rounding does to the robustness: name --eps, such as 8/255, or say --attack none"
            )
        if not self.int8 and self.max_robust_drop is not None:
            raise UsageError("--max-robust-drop is for --int8: without it the file is the network itself")
        if self.max_robust_drop is not None and self.evaluation.attack == "none":
            raise UsageError("--max-robust-drop needs an attack, got --attack none")
        return self

    @property
    def within(self) -> float:
        """How much robust accuracy may be lost for robustness to be preserved."""
        return PRESERVED_WITHIN if self.max_robust_drop is None else self.max_robust_drop
