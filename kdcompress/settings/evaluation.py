"""Everything `evaluate` and `compare` are asked for."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kdcompress.errors import UsageError
from kdcompress.settings.base import Device, Eps, Fraction, Positive, Settings
from kdcompress.settings.gates import PRESERVED_WITHIN, GateSettings
from kdcompress.settings.inputs import DataSettings, ModelFile, ThreatSettings
from kdcompress.threat import ThreatModel


class EvaluationSettings(Settings):
    """What is measured of a network, and on how many images.

    chunk: the images an attack sees at once, which decide what it draws: a figure's chunk is recorded with it. None:
    1,000 on CUDA, where larger batches are faster, else 250, the attack package's own default; 50 for a gate that stops
    early; fewer for large images, whose copies an attack holds a dozen of.

    smoothing, n: the sequential test with at most 3,000 draws costs what 1,000 draws for every image cost, certifies
    more, and reaches 2.74 sigma; a published table needs `fixed` and n = 100,000. On 40 held-out digits, with a network
    trained at sigma .5, draws an image and certified accuracy over the L2 radius (2026-11-23,
    `examples/benchmarks/smoothing.py --split holdout`):

    | method     | n      | draws an image | 0     | .25  | .5   | .75  | 1    | 1.25 |
    |------------|--------|----------------|-------|------|------|------|------|------|
    | fixed      | 10,000 | 10,100         | 1.000 | .950 | .850 | .650 | .325 | .025 |
    | fixed      | 1,000  | 1,100          | 1.000 | .925 | .850 | .550 | .225 |      |
    | sequential | 1,000  | 671            | 1.000 | .900 | .850 | .525 | .150 |      |
    | sequential | 2,000  | 925            | 1.000 | .950 | .850 | .575 | .300 | .000 |
    | sequential | 3,000  | 1,099          | 1.000 | .950 | .850 | .575 | .300 | .000 |
    | sequential | 5,000  | 1,505          | 1.000 | .950 | .850 | .600 | .300 | .025 |
    | sequential | 10,000 | 2,128          | 1.000 | .950 | .850 | .650 | .300 | .025 |
    """

    attack: Annotated[
        str,
        Field(
            pattern=r"^(autoattack(-plus|-rand)?|apgd|square|screen|pgd-[1-9]\d{0,4}|none)$",
            description="autoattack, autoattack-plus, autoattack-rand, apgd, square, screen, pgd-N or none",
        ),
    ] = "autoattack"
    images: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: Device = "auto"
    chunk: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    keep_dir: Path | None = None
    masking: bool = True
    smoothing: Literal["sequential", "fixed", "adaptive"] = "sequential"
    sigma: Positive = 0.25
    n0: Annotated[int, Field(ge=1)] = 100
    n: Annotated[int, Field(ge=1)] = 3000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    certify_images: Annotated[int, Field(ge=0)] = 100

    @property
    def forward_size(self) -> int:
        """Images a forward where no attack is at work."""
        return self.batch_size or 250


class EvaluateSettings(Settings):
    """Everything `kdcompress evaluate` was asked for.

    Attributes:
        threat: the ball that gates and comparison are about.
        more_eps: further radii, of the same norm.
        surrogate: what white-box attacks are made on for a model without gradients.
    """

    student: ModelFile | None
    teacher: ModelFile | None
    surrogate: ModelFile | None = None
    data: DataSettings
    threat: ThreatSettings
    more_eps: tuple[Eps, ...] = ()
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    gates: GateSettings = Field(default_factory=GateSettings)

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> Self:
        if self.student is None and self.teacher is None:
            raise UsageError("evaluate needs a model file, or --teacher FILE, or both")
        if self.surrogate is not None and self.student is None:
            raise UsageError("--surrogate is for MODEL, which is not given")
        if self.more_eps and self.evaluation.attack == "none":
            raise UsageError("--eps takes one radius where nothing is attacked, got several and --attack none")
        for eps in self.more_eps:
            _ = ThreatModel(self.threat.norm, eps)
        return self

    @property
    def radii(self) -> tuple[float, ...]:
        """Every radius asked for, ascending."""
        return tuple(sorted({self.threat.eps, *self.more_eps}))


class CompareSettings(Settings):
    """Everything `kdcompress compare` was asked for; the first report is the baseline."""

    reports: tuple[Path, ...]
    model: str | None = None
    max_clean_drop: Fraction | None = None
    max_robust_drop: Fraction | None = None
    max_latency_ratio: Positive | None = None
    allow_untrusted: bool = False

    @model_validator(mode="after")
    def _something_to_compare(self) -> Self:
        if len(self.reports) < 2:
            raise UsageError(f"compare needs a baseline's report and another, got {len(self.reports)}")
        return self

    @property
    def within(self) -> float:
        """How much robust accuracy may be lost for robustness to be preserved."""
        return PRESERVED_WITHIN if self.max_robust_drop is None else self.max_robust_drop
