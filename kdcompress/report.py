"""The report: frozen results with their intervals, the JSON that CI reads, and the gates that decide an exit code.

`report.schema.json` beside this file is generated from `Report` and pinned by a test.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from kdcompress.files import legible
from kdcompress.threat import Norm

SCHEMA_VERSION: Literal["1.1"] = "1.1"


class Result(BaseModel):
    """Frozen; unknown keys are errors; text is such that JSON can hold it, whatever a file is called."""

    # The schema tells readers that a key with a default is always written.
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, values: Any) -> Any:
        return _legible(values)


def _legible(value: Any) -> Any:
    """All text in plain containers made `legible`."""
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, dict):
        return {_legible(key): _legible(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_legible, value))
    return value


class Rate(Result):
    """A fraction of n images with its 95% Clopper-Pearson interval, unless `RobustRate.interval` says otherwise."""

    value: float
    low: float
    high: float
    n: int


class RobustRate(Rate):
    """Accuracy under the named attack: an upper bound on robust accuracy.

    Attributes:
        attack: what ran, as `AutoAttack standard`; a reduced set says so.
        stages: its parts, in order, as `apgd-ce`.
        chunk: images the attack sees at once; chunk number b has seed `seed + b`.
        interval: `anytime-valid` where a gate was free to stop early, when a Clopper-Pearson interval would not hold.
        confidence: of the interval.
        surrogate: what white-box attacks were made on, where the network itself has no gradients.
    """

    attack: str
    stages: tuple[str, ...]
    chunk: int
    interval: Literal["Clopper-Pearson", "anytime-valid"] = "Clopper-Pearson"
    confidence: float = 0.95
    surrogate: str | None = None


class RobustAt(Rate):
    """Robust accuracy at one of several radii: share of images that stood the attack at this and every smaller one."""

    eps: float


class ClassRate(Result):
    """One class's share of its own images."""

    name: str
    clean: Rate
    robust: Rate | None


class MaskingCheck(Result):
    """One sign of gradient masking, looked for.

    Attributes:
        name: what is looked for, as `zero gradients`.
        statistic: None where the check does not apply.
        threshold: the statistic at which the flag goes up.
        flagged: whether the robust accuracy is not to be believed.
        finding: what was measured and what it says, in a sentence.
        source: who describes the sign.
    """

    name: str
    statistic: float | None
    threshold: float
    flagged: bool
    finding: str
    source: str


class Masking(Result):
    """The masking checks of one network, on its first n images."""

    checks: tuple[MaskingCheck, ...]
    n: int
    seconds: float

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the robust accuracy is not to be trusted; empty where it is."""
        return tuple(check.finding for check in self.checks if check.flagged)


class CertifiedRate(Rate):
    """Share of images classified rightly with a certified radius of at least `radius`."""

    radius: float


class FirstOrder(Result):
    """Median first-order radius. An estimate: it bounds nothing. Infinite radii are counted as such."""

    kind: Literal["estimate"] = "estimate"
    norm: Norm
    median: float | None
    n: int


class Smoothing(Result):
    """Randomized smoothing: L2, with probability 1 - alpha an image, for the SMOOTHED classifier.

    `cap` is the largest radius that n draws can certify.
    """

    kind: Literal["certificate of the smoothed classifier"] = "certificate of the smoothed classifier"
    norm: Literal["L2"] = "L2"
    sigma: float
    n0: int
    n: int
    alpha: float
    cap: float
    abstained: int
    at: tuple[CertifiedRate, ...]


class Certified(Result):
    """The kinds of radius, never in one column. `first_order` is None for a network without gradients."""

    first_order: FirstOrder | None
    smoothing: Smoothing | None


class ModelReport(Result):
    """One network: what it is, what it costs, how accurate and how robust it is.

    Attributes:
        macs: multiply-accumulates of one image's forward.
        file_bytes: the size of its file.
        latency_ms: median forward of one image on the report's device, timed side by side with the other models.
        sha256: of its file.
        over_eps: where `--eps` named several radii, ascending.
        classes: class by class, in the order of the labels; classes without images are left out.
        masking: None where it was not asked for, or nothing was attacked.
        verdicts: a character an image, in the seeded order: `x` wrong as it is, `.` stood, `?` not attacked, else the
            index in `robust_accuracy.stages` of the attack that broke it. Without an attack: `x` wrong, `?` right.
    """

    arch: str
    params: int
    macs: int
    file_bytes: int
    latency_ms: float
    sha256: str
    clean_accuracy: Rate
    robust_accuracy: RobustRate | None
    over_eps: tuple[RobustAt, ...] = ()
    classes: tuple[ClassRate, ...] = ()
    certified: Certified | None
    masking: Masking | None = None
    verdicts: str = ""


class Paired(Result):
    """Teacher and student on the same images, under the same attack: counts, and the drop with its 95% interval.

    Attributes:
        drop: the teacher's robust accuracy minus the student's; interval of Tango (1998).
        p_value: exact McNemar test of no difference, two-sided.
        within: the most robust accuracy that may be lost for robustness to be preserved (`--max-robust-drop`, or .03).
        preserved: whether the whole interval says so: `high` is at most `within`. None where the `masking` of one of
            the two has a flag: it cannot be told then.
    """

    both_kept: int
    teacher_only: int
    student_only: int
    both_lost: int
    drop: float
    low: float
    high: float
    p_value: float
    within: float
    preserved: bool | None
    n: int


class Gate(Result):
    """A demand on a figure, and whether it was met.

    Attributes:
        name: the option, as typed.
        decided_by: the number compared with the threshold: the point estimate, or the conservative end of the interval.
        undecided: the threshold lies inside the interval: more images could turn the verdict.
        why: what decided where it was not the figure: masking, or a test that could not decide.
        caution: what a reader should know of the figure, although it decided nothing.
    """

    name: str
    model: str
    threshold: float
    value: float
    low: float
    high: float
    decided_by: Literal["point", "bound"]
    met: bool
    undecided: bool
    why: str | None = None
    caution: str | None = None


class DataRecord(Result):
    """Which images were used, in a seeded order; `sha256` is of their names, labels and pixels in that order."""

    name: str
    split: Literal["test"] = "test"
    images: int
    of: int
    seed: int
    classes: tuple[str, ...]
    sha256: str


class ThreatRecord(Result):
    """The threat model."""

    norm: Norm
    eps: float


class Report(Result):
    """What `kdcompress evaluate` and `kdcompress demo` found."""

    schema_version: Literal["1.1"] = SCHEMA_VERSION
    threat_model: ThreatRecord
    data: DataRecord
    device: str
    models: dict[str, ModelReport]
    paired: Paired | None = None
    ratios: dict[str, float] = {}
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()
    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: float

    @property
    def gates_met(self) -> bool:
        """Whether every gate was met; true where there is none."""
        return all(gate.met for gate in self.gates)
