"""A report read back from a file that anybody may have written."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from kdcompress.errors import ReportError, UsageError
from kdcompress.report import SCHEMA_VERSION, ModelReport, Rate, Report
from kdcompress.threat import ThreatModel

MOST_BYTES = 64_000_000
"""A report holds a character an image and network: ImageNet's 50,000 make 100 KB."""

LARGEST = 10**15
"""For counts and sizes: what is larger is no figure of a network, and would not fit into a double."""


def read_report(path: Path) -> Report:
    """The report in `path`, whole and with figures that can be.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> from kdcompress import *
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
    >>> data = torch.rand(4, 1, 3, 3), [0, 1, 0, 1]
    >>> report = evaluate_model(network, data, eps=0.1, evaluation=EvaluationSettings(attack="none", certify_images=0))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "report.json"
    ...     _ = path.write_text(report.model_dump_json())
    ...     read_report(path) == report
    True

    Raises:
        ReportError: naming the file, what was expected and what was found.
    """
    content = _bytes(path)
    try:
        found = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise ReportError(f"{path}: expected the JSON of kdcompress evaluate --report, found {error}") from None
    version = found.get("schema_version") if isinstance(found, dict) else None
    if isinstance(found, dict) and {"models", "audit", "radii"} <= found.keys():
        raise ReportError(
            f"{path}: expected a report of kdcompress evaluate, found a certification of kdcompress certify"
        )
    if not isinstance(found, dict) or "models" not in found or version is None:
        raise ReportError(f"{path}: expected the report of kdcompress evaluate --report, found other JSON")
    if version != SCHEMA_VERSION:
        raise ReportError(
            f"{path}: expected a report of schema_version {SCHEMA_VERSION}, found {str(version)[:20]}; "
            "evaluate again with this kdcompress"
        )
    try:
        report = Report.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])[:120]
        raise ReportError(f"{path}: expected a whole report, found at {place}: {first['msg']}") from None
    for place, problem in _impossible(report):
        raise ReportError(f"{path}: expected a report's figures, found at {place}: {problem}")
    return report


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ReportError(f"{path}: expected a report, found nothing there; check the path") from None
    except IsADirectoryError:
        raise ReportError(f"{path}: expected a report, found a folder; name the file in it") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: the report cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > MOST_BYTES:
        raise ReportError(f"{path}: expected a report of at most {MOST_BYTES // 1_000_000} MB, found a larger file")
    return content


def _impossible(report: Report) -> Iterator[tuple[str, str]]:
    """Where a figure cannot be, and why: what is computed from a report need not look again."""
    for name, model in report.models.items():
        for place, rate in _rates(model):
            if not (1 <= rate.n <= LARGEST and 0 <= rate.low <= rate.value <= rate.high <= 1):
                n = max(-1, min(rate.n, LARGEST))
                yield f"models.{name}.{place}", f"{rate.value:g} [{rate.low:g}, {rate.high:g}] of {n} images"
        for place in ("params", "macs", "file_bytes", "latency_ms"):
            if not 0 <= getattr(model, place) <= LARGEST:
                yield f"models.{name}.{place}", "a size that no network has"
        if len(model.verdicts) > report.data.images:
            yield f"models.{name}.verdicts", f"{len(model.verdicts)} of {report.data.images} images"
    if not report.models:
        yield "models", "none"
    try:
        ThreatModel(report.threat_model.norm, report.threat_model.eps)
    except UsageError as error:
        yield "threat_model", str(error)


def _rates(model: ModelReport) -> Iterator[tuple[str, Rate]]:
    yield "clean_accuracy", model.clean_accuracy
    if model.robust_accuracy is not None:
        yield "robust_accuracy", model.robust_accuracy
    yield from (("over_eps", rate) for rate in model.over_eps)
    if model.certified is not None and model.certified.smoothing is not None:
        yield from (("certified.smoothing.at", rate) for rate in model.certified.smoothing.at)
