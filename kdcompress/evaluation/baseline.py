"""Any reports against a baseline: what was lost, with its interval, where the two can be compared at all.

Reads reports alone, and imports no torch: this runs in a second in CI.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from kdcompress.comparison import AgainstBaseline, Column, Comparison, Drop
from kdcompress.errors import UsageError, did_you_mean
from kdcompress.evaluation.comparable import (
    other_attack,
    other_circumstances,
    other_data,
    other_device,
    same_images,
)
from kdcompress.gates import at_most, drop_gate, trusted
from kdcompress.maths.intervals import mcnemar, paired_difference, unpaired_difference
from kdcompress.reading import read_report
from kdcompress.report import Gate, Rate, Report
from kdcompress.settings import CompareSettings

Figure = TypeVar("Figure", Drop, float)


def compare(settings: CompareSettings) -> Comparison:
    """Read the reports, set each against the first, judge the gates.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> from kdcompress import *
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
    >>> data = torch.rand(40, 1, 3, 3), torch.arange(40) % 2
    >>> how = EvaluationSettings(attack="none", certify_images=0)
    >>> with TemporaryDirectory() as folder:
    ...     paths = tuple(Path(folder) / name for name in ("main.json", "branch.json"))
    ...     for path in paths:
    ...         _ = path.write_text(evaluate_model(network, data, eps=0.1, evaluation=how).model_dump_json())
    ...     found = compare(CompareSettings(reports=paths, max_clean_drop=0.2))
    >>> found.gates_met, found.against_baseline[0].clean_drop.value
    (True, 0.0)

    Raises:
        KdcompressError: if a file is no report, or a gate asks for a difference that cannot be computed.
    """
    reports = [read_report(path) for path in settings.reports]
    columns = [
        _column(report, path, label, settings.model)
        for report, path, label in zip(reports, settings.reports, labels(settings.reports), strict=True)
    ]
    baseline, *others = columns
    found = [against(baseline, other, settings.within) for other in others]
    return Comparison(
        columns=tuple(columns),
        against_baseline=tuple(found),
        gates=tuple(
            gate
            for other, difference in zip(others, found, strict=True)
            for gate in _judged(settings, baseline, other, difference)
        ),
        settings=settings.model_dump(mode="json"),
    )


def labels(paths: Sequence[Path]) -> list[str]:
    """A name for each file that no other has: its own, else its path, else numbered.

    >>> labels([Path("a/r.json"), Path("b/r.json"), Path("s.json"), Path("a/r.json")])
    ['a/r.json (1)', 'b/r.json', 's.json', 'a/r.json (4)']
    """
    names, whole = Counter(path.name for path in paths), Counter(str(path) for path in paths)
    return [
        path.name if names[path.name] == 1 else str(path) if whole[str(path)] == 1 else f"{path} ({number})"
        for number, path in enumerate(paths, start=1)
    ]


def against(baseline: Column, other: Column, within: float) -> AgainstBaseline:
    """One network against the baseline's. No difference is taken across data, threat models or attacks."""
    a, b = baseline.figures, other.figures
    data, attack, device = (found(baseline, other) for found in (other_data, other_attack, other_device))
    drops: dict[str, Drop | None] = {"clean": None, "robust": None}
    if not data:
        drops["clean"] = _drop(baseline, other, a.clean_accuracy, b.clean_accuracy, right)
    if not data and not attack and a.robust_accuracy is not None and b.robust_accuracy is not None:
        drops["robust"] = _drop(baseline, other, a.robust_accuracy, b.robust_accuracy, stood)
    robust = drops["robust"]
    flagged = any(figures.masking is not None and figures.masking.reasons for figures in (a, b))
    figures = ("params", "macs", "file_bytes", *(() if device else ("latency_ms",)))
    return AgainstBaseline(
        label=other.label,
        clean_drop=drops["clean"],
        robust_drop=robust,
        within=within,
        preserved=None if robust is None or flagged else robust.high <= within,
        ratios={figure: getattr(b, figure) / getattr(a, figure) for figure in figures if getattr(a, figure) > 0},
        not_comparable=(*data, *attack, *device),
        notes=(*_unpaired(baseline, other, drops), *other_circumstances(baseline, other)),
    )


def right(verdicts: str) -> list[bool]:
    """Which images were classified rightly, of `ModelReport.verdicts`.

    >>> right("x.0?")
    [False, True, True, True]
    """
    return [verdict != "x" for verdict in verdicts]


def stood(verdicts: str) -> list[bool]:
    """Which images stood the attack.

    >>> stood("x.0")
    [False, True, False]
    """
    return [verdict == "." for verdict in verdicts]


def _column(report: Report, path: Path, label: str, wanted: str | None) -> Column:
    names = list(report.models)
    name = wanted or ("student" if "student" in names else names[0])
    if name not in names:
        raise UsageError(f"--model {name}: {label} has {', '.join(names)}{did_you_mean(name, names)}")
    if wanted is None and name != "student" and len(names) > 1:
        raise UsageError(f"{label} has {', '.join(names)}; choose one with --model")
    return Column(
        label=label,
        file=str(path),
        name=name,
        threat_model=report.threat_model,
        data=report.data,
        device=report.device,
        versions=report.versions,
        figures=report.models[name],
    )


def _drop(baseline: Column, other: Column, first: Rate, second: Rate, kept: Callable[[str], list[bool]]) -> Drop:
    """Paired where the verdicts on the very same images are there, and are those that were counted."""
    a, b = kept(baseline.figures.verdicts), kept(other.figures.verdicts)
    counted = (len(a), sum(a)) == (first.n, _successes(first)) and (len(b), sum(b)) == (second.n, _successes(second))
    value = first.value - second.value
    if not (same_images(baseline, other) and counted and first.n == second.n):
        low, high = unpaired_difference(_successes(first), first.n, _successes(second), second.n)
        return Drop(
            value=value, low=low, high=high, method="unpaired", baseline_only=None, other_only=None, p_value=None
        )
    pairs = list(zip(a, b, strict=True))
    a_only, b_only = pairs.count((True, False)), pairs.count((False, True))
    low, high = paired_difference(a_only, b_only, first.n)
    return Drop(
        value=value,
        low=low,
        high=high,
        method="paired",
        baseline_only=a_only,
        other_only=b_only,
        p_value=mcnemar(a_only, b_only),
    )


def _successes(rate: Rate) -> int:
    return round(rate.value * rate.n)


def _unpaired(baseline: Column, other: Column, drops: Mapping[str, Drop | None]) -> list[str]:
    """Why differences are not paired, where they are not."""
    loose = [kind for kind, drop in drops.items() if drop is not None and drop.method == "unpaired"]
    if not loose:
        return []
    if same_images(baseline, other):
        return [f"unpaired ({' and '.join(loose)}): a report does not say which images it counted"]
    (a, b) = (baseline.data, other.data)
    return [
        f"unpaired: judged on other images ({b.images}, seed {b.seed}) than the baseline ({a.images}, seed {a.seed})"
    ]


def _judged(settings: CompareSettings, baseline: Column, other: Column, found: AgainstBaseline) -> list[Gate]:
    """Drops are judged by the interval's upper end, as `kdcompress evaluate` judges them."""
    gates = []
    if (most := settings.max_clean_drop) is not None:
        drop = _found("--max-clean-drop", found, found.clean_drop)
        gates.append(
            drop_gate(
                "--max-clean-drop",
                other.label,
                most,
                (drop.value, drop.low, drop.high),
                paired_on(drop, other.figures.clean_accuracy),
            )
        )
    if (most := settings.max_robust_drop) is not None:
        drop = _found("--max-robust-drop", found, found.robust_drop)
        gate = drop_gate(
            "--max-robust-drop",
            other.label,
            most,
            (drop.value, drop.low, drop.high),
            paired_on(drop, other.figures.robust_accuracy),
        )
        models = {column.label: column.figures for column in (baseline, other)}
        gates.append(trusted(gate, models, settings.allow_untrusted))
    if (most := settings.max_latency_ratio) is not None:
        ratio = _found("--max-latency-ratio", found, found.ratios.get("latency_ms"))
        gates.append(at_most("--max-latency-ratio", other.label, most, (ratio, ratio, ratio), "point"))
    return gates


def paired_on(drop: Drop, rate: Rate | None) -> int | None:
    """The images of a paired difference; None of an unpaired one."""
    return rate.n if rate is not None and drop.method == "paired" else None


def _found(option: str, against_baseline: AgainstBaseline, figure: Figure | None) -> Figure:
    if figure is None:
        reasons = "; ".join(against_baseline.not_comparable) or "the baseline's is zero"
        raise UsageError(f"{option} cannot be judged for {against_baseline.label}: {reasons}")
    return figure
