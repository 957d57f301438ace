"""Reports side by side: frozen results, and the JSON of `kdcompress compare`.

`comparison.schema.json` beside this file is generated from `Comparison` and pinned by a test.
"""

from typing import Any, Literal

from kdcompress.report import DataRecord, Gate, ModelReport, Result, ThreatRecord

COMPARISON_VERSION: Literal["1.0"] = "1.0"


class Column(Result):
    """One report's judged network.

    Attributes:
        label: the file's name, or as much of its path as tells it from the others.
        name: what the network is called in its report.
    """

    label: str
    file: str
    name: str
    threat_model: ThreatRecord
    data: DataRecord
    device: str
    versions: dict[str, str]
    figures: ModelReport


class Drop(Result):
    """An accuracy lost against the baseline: the baseline's minus the other's, with its 95% interval.

    Attributes:
        method: `paired` on the same images, with the interval of Tango (1998), or `unpaired`, of Newcombe (1998).
        baseline_only: images right for the baseline alone; None where unpaired. other_only: for the other alone.
        p_value: exact McNemar test of no difference, two-sided; None where unpaired.
    """

    value: float
    low: float
    high: float
    method: Literal["paired", "unpaired"]
    baseline_only: int | None
    other_only: int | None
    p_value: float | None


class AgainstBaseline(Result):
    """One report against the baseline.

    Attributes:
        clean_drop: None where `not_comparable` says why. robust_drop: the same.
        within: the most robust accuracy that may be lost for robustness to be preserved.
        preserved: whether the whole interval of `robust_drop` says so: its upper end is at most `within`. None where
            that cannot be told: there is no `robust_drop`, or masking checks say that it is not to be trusted.
        ratios: the report's figure over the baseline's: params, macs, file_bytes, and latency_ms of one device.
        not_comparable: why a figure is missing.
        notes: what else differs.
    """

    label: str
    clean_drop: Drop | None
    robust_drop: Drop | None
    within: float
    preserved: bool | None
    ratios: dict[str, float]
    not_comparable: tuple[str, ...]
    notes: tuple[str, ...]


class Comparison(Result):
    """What `kdcompress compare` found. The first column is the baseline."""

    schema_version: Literal["1.0"] = COMPARISON_VERSION
    columns: tuple[Column, ...]
    against_baseline: tuple[AgainstBaseline, ...]
    gates: tuple[Gate, ...] = ()
    settings: dict[str, Any]

    @property
    def gates_met(self) -> bool:
        """Whether every gate was met; true where there is none."""
        return all(gate.met for gate in self.gates)
