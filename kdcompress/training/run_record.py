"""What a run leaves beside the weights: student.json."""

from typing import Any, Literal, Self

from kdcompress.models.record import ModelRecord
from kdcompress.progress import Weights
from kdcompress.report import Result


class TeacherRecord(Result):
    """The teacher: its file, its size, and what the check before training measured."""

    path: str
    arch: str
    sha256: str
    params: int
    macs: int
    file_bytes: int
    check: dict[str, Any] | None


class PrunedRecord(Result):
    """The student that channels were taken from.

    Attributes:
        channels: the share that is gone of all layers' together.
    """

    path: str
    sha256: str
    channels: float
    params_before: int
    macs_before: int


class GradientRecord(Result):
    """How the gradient term was computed; see `kdcompress.engine.choice.Choice`."""

    mode: Literal["exact", "compiled", "finite-difference"]
    milliseconds: dict[str, float]
    cosine: float | None


class Compression(Result):
    """The student's size, and how many times smaller than the teacher's it is (None without a teacher).

    Attributes:
        macs: multiply-accumulates of one image's forward.
        file_bytes: of the weights' file.
    """

    params: int
    macs: int
    file_bytes: int
    params_ratio: float | None
    macs_ratio: float | None
    file_ratio: float | None

    @classmethod
    def between(cls, *, params: int, macs: int, file_bytes: int, teacher: TeacherRecord | None) -> Self:
        """The figures of a student, and teacher / student."""
        return cls(
            params=params,
            macs=macs,
            file_bytes=file_bytes,
            params_ratio=None if teacher is None else teacher.params / params,
            macs_ratio=None if teacher is None else teacher.macs / max(macs, 1),
            file_ratio=None if teacher is None else teacher.file_bytes / file_bytes,
        )


class ValidationRecord(Result):
    """A validation on the held-out slice of the training split.

    Attributes:
        weights: whether it is of the averaged weights, see `--average`, or of the raw ones.
        noisy_accuracy: under one draw of N(0, `--noise-sigma`^2) an image; None for a run without noise.
    """

    epoch: int
    weights: Weights
    clean_accuracy: float
    robust_accuracy: float
    images: int
    noisy_accuracy: float | None = None
    attack: Literal["PGD-10"] = "PGD-10"


class LastRecord(ValidationRecord):
    """last.safetensors: the last epoch's weights, averaged unless the run has no average."""

    sha256: str


class Cost(Result):
    """What the run took.

    Attributes:
        skipped: steps that were left out, since their loss or gradient was not finite.
        student_passes, teacher_passes: of one image in one step, each as long as one forward; see
            `kdcompress.training.recipes.passes`. A cached teacher takes none.
    """

    seconds: float
    steps: int
    device: str
    student_passes: float
    teacher_passes: float
    skipped: int = 0


class RunRecord(Result):
    """student.json: what made these weights.

    Attributes:
        sha256: of student.safetensors, the best of the validated weights; `selected` is the validation that chose them.
        iga_weight: the effective weight of eq. 14's gradient term; None for a run without a teacher.
        gradient: None for a run without the gradient term.
        pruned: None for a student that was made fresh.
        started_from: sha256 of the file in --student-weights; None for fresh weights.
    """

    schema_version: Literal["1.0"] = "1.0"
    model: ModelRecord
    sha256: str
    threat_model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    iga_weight: float | None
    gradient: GradientRecord | None
    pruned: PrunedRecord | None = None
    started_from: str | None = None
    teacher: TeacherRecord | None
    compression: Compression
    selected: ValidationRecord
    last: LastRecord
    cost: Cost
    versions: dict[str, str]
