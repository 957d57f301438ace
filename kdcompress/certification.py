"""Certificates and audits: frozen results, and the JSON of `kdcompress certify`.

`certification.schema.json` beside this file is generated from `Certification` and pinned by a test.
"""

from typing import Any, Literal

from kdcompress.report import (
    Clever,
    CounterExamples,
    DataRecord,
    FirstOrder,
    Gate,
    Proposition1,
    Proposition2,
    RadiusCompared,
    Rate,
    Result,
    Smoothing,
    ThreatRecord,
    Verified,
)

CERTIFICATION_VERSION: Literal["1.0"] = "1.0"


class CertifiedModel(Result):
    """One network's radii, a field a kind: they promise different things, and are never put together.

    Attributes:
        first_order, clever: estimates; None where not asked for, or the network gives no gradients.
        smoothing: certificates of the smoothed classifier.
        bounds: sound for the network itself, or why there are none; one a radius and its own largest radii.
    """

    arch: str
    params: int
    sha256: str
    clean_accuracy: Rate
    first_order: FirstOrder | None
    clever: Clever | None
    smoothing: Smoothing | None
    bounds: Verified | None


class Audit(Result):
    """What the paper's propositions are worth for this student and this teacher, on the first `n` images.

    Attributes:
        proposition1: one a radius. proposition2: one a radius and norm.
        radii: the student's radius beside the teacher's. counter_examples: of (24) and (25).
        unmeasured: what is missing, because an image of it needs more memory than there is, a sentence each.
    """

    n: int
    proposition1: tuple[Proposition1, ...]
    proposition2: tuple[Proposition2, ...]
    radii: RadiusCompared
    counter_examples: CounterExamples
    unmeasured: tuple[str, ...] = ()


class Certification(Result):
    """What `kdcompress certify` found: every network on the same images.

    Attributes:
        labels: of the images in order, numbers of `data.classes`; empty in reports of a development version.
    """

    schema_version: Literal["1.0"] = CERTIFICATION_VERSION
    threat_model: ThreatRecord
    radii: tuple[float, ...]
    data: DataRecord
    labels: tuple[int, ...] = ()
    device: str
    models: dict[str, CertifiedModel]
    audit: Audit | None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()
    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: float

    @property
    def gates_met(self) -> bool:
        """Whether every gate was met; true where there is none."""
        return all(gate.met for gate in self.gates)
