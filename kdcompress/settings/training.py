"""Everything `distill`, `train` and `bench` are asked for."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdcompress.errors import UsageError
from kdcompress.settings.base import Fraction, Positive, Settings
from kdcompress.settings.inputs import DataSettings, ModelFile, ThreatSettings, refuse_norm
from kdcompress.settings.loss import LossSettings
from kdcompress.settings.run import RunSettings


class TeacherCheckSettings(Settings):
    """When a teacher has nothing to hand on.

    Thresholds: see `kdcompress.training.teacher_check`.
    """

    check_images: Annotated[int, Field(ge=1)] = 300
    min_pgd_share: Fraction = 0.25
    max_remainder: Positive = 0.4
    insist: bool = False


class CacheSettings(Settings):
    """Whether the teacher is asked once, of fixed views; see `kdcompress.training.teacher_cache`."""

    cache_teacher: bool = False
    cache_views: Annotated[int, Field(ge=1)] | None = None
    cache_dir: Path | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.cache_teacher and self.cache_dir is None:
            raise UsageError("--cache-teacher found no home folder to keep its views in; name a --cache-dir")
        for option, value in (("--cache-views", self.cache_views), ("--cache-dir", self.cache_dir)):
            if value is not None and not self.cache_teacher:
                raise UsageError(f"{option} is for --cache-teacher, which is not asked for; add it")
        return self

    @property
    def views(self) -> int:
        """V: as asked, or 8, over which fixed views cost nothing that was seen (examples/benchmarks)."""
        return self.cache_views or 8


class TeachingSettings(Settings):
    """A teacher, and what it teaches a student with, wherever that comes from."""

    teacher: ModelFile
    data: DataSettings
    threat: ThreatSettings
    loss: LossSettings = Field(default_factory=LossSettings)
    run: RunSettings = Field(default_factory=RunSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    check: TeacherCheckSettings = Field(default_factory=TeacherCheckSettings)

    @model_validator(mode="after")
    def _norm_for_training(self) -> Self:
        refuse_norm(self.threat)
        return self

    @model_validator(mode="after")
    def _losses_that_go_together(self) -> Self:
        loss = self.loss
        if loss.inner_attack == "none":
            return self
        if self.run.noise_sigma > 0:
            raise UsageError(
                "--noise-sigma is for losses at x: leave it out, or the inner attack (--inner-attack none)"
            )
        fixed = loss.soft_labels_at == "x" and loss.inner_attack != "adaptive"
        if self.cache.cache_teacher and not (fixed and loss.iga_weight == loss.igdm_weight == 0):
            raise UsageError(
                "--cache-teacher keeps what the teacher says of fixed views, and this loss asks it at inputs that an "
                "inner attack finds anew; leave it out, or take --recipe ard or rslad"
            )
        return self


class DistillSettings(TeachingSettings):
    """Everything `kdcompress distill` was asked for: a fresh timm network as the student."""

    student: str
    student_args: dict[str, Any] = {}
    student_stride: Annotated[int, Field(ge=1)] | None = None
    student_weights: Path | None = None


class PruneSettings(TeachingSettings):
    """Everything `kdcompress prune` was asked for: a trained student with channels taken from it.

    Attributes:
        student: a file that kdcompress wrote.
        ratio: the share of its multiply-accumulates to take.
    """

    student: Path
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5


TRAIN_STEPS = {"at": 7, "trades": 10, "fast": 1, "noise": 0}
"""PGD steps of each recipe's inner attack, as its paper has them for CIFAR-10."""


class TrainSettings(Settings):
    """Everything `kdcompress train` was asked for: a network trained without a teacher.

    Attributes:
        attack_steps: None: the recipe's.
        beta: TRADES's weight of the divergence.
    """

    recipe: Literal["at", "trades", "fast", "noise"] = "at"
    model: str
    model_args: dict[str, Any] = {}
    model_stride: Annotated[int, Field(ge=1)] | None = None
    data: DataSettings
    threat: ThreatSettings
    attack_steps: Annotated[int, Field(ge=1)] | None = None
    beta: Positive = 6.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    run: RunSettings = Field(default_factory=RunSettings)

    @property
    def steps(self) -> int:
        """Of the inner attack."""
        return self.attack_steps or TRAIN_STEPS[self.recipe]

    @model_validator(mode="after")
    def _a_recipe_that_can_be_followed(self) -> Self:
        refuse_norm(self.threat)
        if self.recipe == "noise" and self.run.noise_sigma == 0:
            raise UsageError("--recipe noise trains on noisy images: say how noisy with --noise-sigma, such as 0.25")
        if self.recipe == "noise" and self.attack_steps is not None:
            raise UsageError("--attack-steps is of an inner attack, which --recipe noise has not; leave it out")
        if self.recipe != "trades" and self.beta != TrainSettings.model_fields["beta"].default:
            raise UsageError(f"--beta is of --recipe trades, got --recipe {self.recipe}; leave it out")
        if self.recipe == "fast" and self.steps > 1:
            raise UsageError(f"--recipe fast takes one step, got --attack-steps {self.steps}; --recipe at takes more")
        if self.recipe == "trades" and self.run.noise_sigma > 0:
            raise UsageError("--noise-sigma is for --recipe at, fast and noise; leave it out with trades")
        return self


class PlanSettings(Settings):
    """Everything `kdcompress plan` was asked for.

    Attributes:
        batch_size: of all GPUs together.
        gpu_memory: GiB of one.
        tflops: that one sustains in training; `kdcompress bench` measures it.
        link: GB a second each way between any two, the slowest link that they talk over.
    """

    teacher_arch: str
    teacher_args: dict[str, Any] = {}
    student: str
    student_args: dict[str, Any] = {}
    student_stride: Annotated[int, Field(ge=1)] | None = None
    image_size: Annotated[int, Field(ge=1)] = 224
    classes: Annotated[int, Field(ge=2)] = 1000
    train_images: Annotated[int, Field(ge=1)] = 1_281_167
    loss: LossSettings = Field(default_factory=LossSettings)
    run: RunSettings = Field(default_factory=RunSettings)
    gpus: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 8, 64)
    gpu_memory: Positive = 80.0
    tflops: Positive = 100.0
    link: Positive = 25.0

    @model_validator(mode="after")
    def _equal_parts(self) -> Self:
        for gpus in self.gpus:
            if self.run.batch_size % gpus != 0:
                raise UsageError(
                    f"--batch-size must be a multiple of every number of GPUs, got {self.run.batch_size} for {gpus}"
                )
        if self.train_images < self.run.batch_size:
            raise UsageError(
                f"--train-images must be at least the batch's {self.run.batch_size}, got {self.train_images}"
            )
        return self


class BenchSettings(Settings):
    """Everything `kdcompress bench` was asked for."""

    teacher: ModelFile
    student: str
    student_args: dict[str, Any] = {}
    student_stride: Annotated[int, Field(ge=1)] | None = None
    data: DataSettings
    threat: ThreatSettings
    run: RunSettings = Field(default_factory=RunSettings)
    repeats: Annotated[int, Field(ge=1)] = 7
    compiled: bool = True

    @model_validator(mode="after")
    def _norm_for_training(self) -> Self:
        refuse_norm(self.threat)
        return self
