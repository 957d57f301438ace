"""Gates: demands on a report that decide the exit code."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Literal

from kdcompress.certification import CertifiedModel
from kdcompress.errors import UsageError
from kdcompress.maths.sequential import decide
from kdcompress.maths.sequential_radius import cap_of
from kdcompress.report import CertifiedRate, Gate, ModelReport, Paired, Rate, RobustRate, Smoothing, Verified
from kdcompress.settings import CertifySettings, EvaluateSettings, EvaluationSettings, GateSettings

Z = 1.959964
"""Of a two-sided 95% interval."""
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
    if gates.confidence is not None and gates.min_robust_accuracy is None:
        raise UsageError("--confidence stops as soon as a --min-robust-accuracy is decided; give one")
    if gates.confidence is not None and gates.max_robust_drop is not None:
        raise UsageError(
            "--confidence stops early, which the interval of --max-robust-drop does not allow for; give one of the two"
        )
    if gates.min_certified_accuracy is not None:
        _refuse_radius(gates.min_certified_accuracy[0], settings.evaluation)


def refuse_uncertifiable(settings: CertifySettings) -> None:
    """The same for a certification.

    Raises:
        UsageError: naming the gate and what it needs.
    """
    for option, demand, kind in (
        ("--min-verified-accuracy", settings.gates.min_verified_accuracy, "bounds"),
        ("--min-certified-accuracy", settings.gates.min_certified_accuracy, "smoothing"),
    ):
        if demand is not None and kind not in settings.kinds:
            raise UsageError(f"{option} needs {kind} among --kinds, got {','.join(settings.kinds)}")
    if settings.gates.min_certified_accuracy is not None:
        _refuse_radius(settings.gates.min_certified_accuracy[0], settings.evaluation)


def _refuse_radius(radius: float, settings: EvaluationSettings) -> None:
    if settings.certify_images == 0:
        raise UsageError("--min-certified-accuracy needs images to certify, got --certify-images 0")
    cap = cap_of(settings.smoothing, sigma=settings.sigma, n=settings.n, alpha=settings.alpha)
    if radius > cap:
        raise UsageError(
            f"--min-certified-accuracy asks for radius {radius:g}, but --n {settings.n} draws at --sigma "
            f"{settings.sigma:g} certify {cap:.3f} at most ({settings.smoothing}); raise --n or --sigma"
        )


def decided(settings: GateSettings) -> Callable[[int, int], bool] | None:
    """(images standing, images tried) -> whether the gate that may stop early is decided; None where none may."""
    least, confidence = settings.min_robust_accuracy, settings.confidence
    if least is None or confidence is None:
        return None
    return lambda standing, tried: decide(standing, tried, least, confidence) is not None


def judge(
    settings: GateSettings, name: str, models: Mapping[str, ModelReport], paired: Paired | None
) -> tuple[Gate, ...]:
    """Every gate that was asked for, judged on the model called `name` and on the paired comparison.

    What a gate needs was measured: `refuse_impossible` comes first.
    """
    by, model = settings.gate_on, models[name]
    gates = []
    if (least := settings.min_clean_accuracy) is not None:
        gates.append(at_least("--min-clean-accuracy", name, least, model.clean_accuracy, by))
    if (least := settings.min_robust_accuracy) is not None and (found := model.robust_accuracy) is not None:
        gate = at_least("--min-robust-accuracy", name, least, found, by)
        gate = gate if settings.confidence is None else _decided(gate, found, settings.confidence)
        gates.append(trusted(gate, {name: model}, settings.allow_untrusted))
    if (demand := settings.min_certified_accuracy) is not None:
        radius, least = demand
        at = _certified_at(model, radius)
        gates.append(at_least(f"--min-certified-accuracy {radius:g}:{least:g}", name, least, at, by))
    if (most := settings.max_robust_drop) is not None and paired is not None:
        # By the bound whatever --gate-on says: an estimate alone says nothing about what was preserved.
        gate = drop_gate("--max-robust-drop", name, most, (paired.drop, paired.low, paired.high), paired.n)
        gates.append(trusted(gate, models, settings.allow_untrusted))
    for option, limit, figure in (
        ("--max-params", settings.max_params, model.params),
        ("--max-macs", settings.max_macs, model.macs),
        ("--max-latency-ms", settings.max_latency_ms, model.latency_ms),
    ):
        if limit is not None:
            gates.append(at_most(option, name, limit, (figure, figure, figure), by))
    return tuple(gates)


def certification_gates(settings: CertifySettings, name: str, model: CertifiedModel) -> tuple[Gate, ...]:
    """Every gate of a certification, judged on the model called `name`."""
    gates, by = [], settings.gates.gate_on
    if (least := settings.gates.min_verified_accuracy) is not None:
        gates.append(_verified_gate(name, least, model.bounds, settings.threat.eps, by))
    if (demand := settings.gates.min_certified_accuracy) is not None:
        radius, least = demand
        at = _at_radius(model.smoothing, radius)
        gates.append(at_least(f"--min-certified-accuracy {radius:g}:{least:g}", name, least, at, by))
    return tuple(gates)


def _verified_gate(name: str, least: float, bounds: Verified | None, eps: float, by: DecidedBy) -> Gate:
    for point in () if bounds is None else bounds.at:
        if point.eps == eps:
            return at_least("--min-verified-accuracy", name, least, point, by)
    # A gate that is quietly left out counts as met, and one on nothing has no figure.
    raise LookupError(f"expected a verified accuracy at {eps:g}, found none in the report")


def at_least(option: str, model: str, threshold: float, rate: Rate, decided_by: DecidedBy) -> Gate:
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


def at_most(
    option: str, model: str, threshold: float, estimate: tuple[float, float, float], decided_by: DecidedBy
) -> Gate:
    """Met where the value (or the upper end) does not exceed the threshold. `estimate` is (value, low, high)."""
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


def drop_gate(option: str, model: str, most: float, estimate: tuple[float, float, float], n: int | None) -> Gate:
    """By the interval's upper end, with a caution where equal networks would miss it on so few images.

    Args:
        n: images, where the interval is paired.
    """
    gate = at_most(option, model, most, estimate, "bound")
    if gate.met or n is None or n >= (needed := images_needed(most)):
        return gate
    can = f"{needed} can" if most > 0 else "no number can"
    return gate.model_copy(update={"caution": f"{n} images cannot show it where nothing differs, {can}"})


def images_needed(most: float) -> int:
    """The least n with which Tango's interval of no difference at all ends, at z^2 / (n + z^2), by `most`.

    >>> images_needed(0.03), images_needed(0.01)
    (125, 381)
    """
    return math.ceil(Z**2 * (1 / most - 1)) if most > 0 else sys.maxsize


def trusted(gate: Gate, models: Mapping[str, ModelReport], allow_untrusted: bool) -> Gate:
    """The gate, missed where the masking checks say that a robust accuracy it rests on is not to be believed.

    Where nobody looked for masking the gate says so, and no more: who switched the checks off knows what they do.
    """
    reasons = [
        f"{name}: {reason}"
        for name, model in models.items()
        if model.masking is not None
        for reason in model.masking.reasons
    ]
    unchecked = [name for name, model in models.items() if model.masking is None]
    if unchecked:
        cautions = (gate.caution, f"not checked for masking: {', '.join(unchecked)}")
        gate = gate.model_copy(update={"caution": "; ".join(filter(None, cautions))})
    if not reasons or allow_untrusted:
        return gate
    return gate.model_copy(update={"met": False, "why": f"not to be trusted: {'; '.join(reasons)}"})


def _decided(gate: Gate, rate: RobustRate, confidence: float) -> Gate:
    """The gate by the test that may stop early; missed where all the images could not decide."""
    verdict = decide(round(rate.value * rate.n), rate.n, gate.threshold, confidence)
    why = (
        f"not decided at {confidence:.4g} confidence after all {rate.n} images, which counts as missed"
        if verdict is None
        else f"decided at {confidence:.4g} confidence after {rate.n} images (one-sided; the interval is two-sided)"
    )
    return gate.model_copy(
        update={"decided_by": "bound", "met": verdict == "met", "undecided": verdict is None, "why": why}
    )


def _certified_at(model: ModelReport, radius: float) -> CertifiedRate:
    return _at_radius(None if model.certified is None else model.certified.smoothing, radius)


def _at_radius(found: Smoothing | None, radius: float) -> CertifiedRate:
    for point in () if found is None else found.at:
        if point.radius == radius:
            return point
    # A gate that is quietly left out counts as met.
    raise LookupError(f"expected a certified accuracy at radius {radius:g}, found none in the report")
