"""The report: frozen results with their intervals, the JSON that CI reads, and the gates that decide an exit code.

`report.schema.json` beside this file is generated from `Report` and pinned by a test.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kdcompress.threat import Norm

SCHEMA_VERSION: Literal["1.0"] = "1.0"


class Result(BaseModel):
    """Frozen; unknown keys are errors."""

    # The schema tells readers that a key with a default is always written.
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Rate(Result):
    """A fraction of n images with its 95% Clopper-Pearson interval."""

    value: float
    low: float
    high: float
    n: int


class RobustRate(Rate):
    """Accuracy under the named attack: an upper bound on robust accuracy."""

    attack: str


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
    """The kinds of radius, never in one column."""

    first_order: FirstOrder
    smoothing: Smoothing | None


class ModelReport(Result):
    """One network: what it is, what it costs, how accurate and how robust it is.

    Attributes:
        macs: multiply-accumulates of one image's forward.
        file_bytes: the size of its file.
        latency_ms: median forward of one image on the report's device, timed side by side with the other models.
        sha256: of its file.
    """

    arch: str
    params: int
    macs: int
    file_bytes: int
    latency_ms: float
    sha256: str
    clean_accuracy: Rate
    robust_accuracy: RobustRate | None
    certified: Certified | None


class Paired(Result):
    """Teacher and student on the same images, under the same attack: counts, and the drop with its 95% interval.

    `drop` is the teacher's robust accuracy minus the student's; interval of Tango (1998).
    """

    both_kept: int
    teacher_only: int
    student_only: int
    both_lost: int
    drop: float
    low: float
    high: float
    n: int


class Gate(Result):
    """A demand on a figure, and whether it was met.

    Attributes:
        name: the option, as typed.
        decided_by: the number compared with the threshold: the point estimate, or the conservative end of the interval.
        undecided: the threshold lies inside the interval: more images could turn the verdict.
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


class DataRecord(Result):
    """Which images were used."""

    name: str
    split: Literal["test"] = "test"
    images: int
    of: int
    seed: int
    classes: tuple[str, ...]


class ThreatRecord(Result):
    """The threat model."""

    norm: Norm
    eps: float


class Report(Result):
    """What `kdcompress evaluate` and `kdcompress demo` found."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
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
