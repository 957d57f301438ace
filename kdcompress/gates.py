"""Gates: demands on a report that decide the exit code."""

from typing import Literal

from kdcompress.errors import UsageError
from kdcompress.report import Gate, ModelReport, Paired, Rate
from kdcompress.settings import EvaluateSettings, GateSettings

DecidedBy = Literal["point", "bound"]


def refuse_impossible(settings: EvaluateSettings) -> None:
    """Stop before anything is measured where a gate asks for a figure that will not be.

    Raises:
        UsageError: naming the gate and what it needs.
    """
    gates, attacked = settings.gates, settings.evaluation.attack != "none"
    if gates.min_robust_accuracy is not None and not attacked:
        raise UsageError("--min-robust-accuracy needs an attack, got --attack none")
    if gates.max_robust_drop is not None and (settings.student is None or settings.teacher is None or not attacked):
        raise UsageError("--max-robust-drop compares two networks under attack: give a model, --teacher and an attack")


def judge(settings: GateSettings, name: str, model: ModelReport, paired: Paired | None) -> tuple[Gate, ...]:
    """Every gate that was asked for, judged on `model` (called `name`) and on the paired comparison.

    What a gate needs was measured: `refuse_impossible` comes first.
    """
    by = settings.gate_on
    gates = []
    if (least := settings.min_clean_accuracy) is not None:
        gates.append(_at_least("--min-clean-accuracy", name, least, model.clean_accuracy, by))
    if (least := settings.min_robust_accuracy) is not None and model.robust_accuracy is not None:
        gates.append(_at_least("--min-robust-accuracy", name, least, model.robust_accuracy, by))
    if (most := settings.max_robust_drop) is not None and paired is not None:
        gates.append(_at_most("--max-robust-drop", name, most, (paired.drop, paired.low, paired.high), by))
    if (most := settings.max_params) is not None:
        params = float(model.params)
        gates.append(_at_most("--max-params", name, most, (params, params, params), by))
    return tuple(gates)


def _at_least(option: str, model: str, threshold: float, rate: Rate, decided_by: DecidedBy) -> Gate:
    """Met where the value (or the lower end) reaches the threshold."""
    return Gate(
        name=option,
        model=model,
        threshold=threshold,
        value=rate.value,
        low=rate.low,
        high=rate.high,
        decided_by=decided_by,
        met=(rate.value if decided_by == "point" else rate.low) >= threshold,
        undecided=rate.low < threshold <= rate.high,
    )


def _at_most(
    option: str, model: str, threshold: float, estimate: tuple[float, float, float], decided_by: DecidedBy
) -> Gate:
    """Met where the value (or the upper end) does not exceed the threshold."""
    value, low, high = estimate
    return Gate(
        name=option,
        model=model,
        threshold=threshold,
        value=value,
        low=low,
        high=high,
        decided_by=decided_by,
        met=(value if decided_by == "point" else high) <= threshold,
        undecided=low <= threshold < high,
    )
