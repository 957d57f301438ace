"""Every network on the same images: what it costs, how accurate, how robust, and whether that is to be believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdcompress.attacks.autoattack import is_dynamic, refuse_shape
from kdcompress.attacks.plans import Plan, plan_of, with_surrogates, without_gradients
from kdcompress.attacks.straight_through import StraightThrough
from kdcompress.data import Split
from kdcompress.devices import device_name
from kdcompress.evaluation.accuracy import (
    Verdicts,
    by_class,
    over_eps,
    predicted,
    rate,
    robust_rate,
)
from kdcompress.evaluation.attacking import Conditions, Enough, under_attack
from kdcompress.evaluation.certificates import first_order
from kdcompress.evaluation.kept import Kept, key_of
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.evaluation.masking.look import check_masking
from kdcompress.evaluation.smoothing.certified import smoothing
from kdcompress.evaluation.smoothing.kept import KeptVotes
from kdcompress.evaluation.smoothing.votes import Noise
from kdcompress.models.code import code_of
from kdcompress.models.cost import latencies_ms, macs, parameter_count
from kdcompress.models.teachers import LoadedModel
from kdcompress.processes import by_leader
from kdcompress.progress import Listener
from kdcompress.report import Certified, Masking, ModelReport
from kdcompress.settings import EvaluationSettings
from kdcompress.threat import Norm, ThreatModel
from kdcompress.versions import versions

MASKING_IMAGES = 100
STOPPING_CHUNK = 50


@dataclass(frozen=True, eq=False)
class Subject:
    """What the networks are measured on.

    Attributes:
        classes: names, in the order of the labels.
        radii: ascending; `eps`, one of them, is the one that gates and comparison are about.
    """

    images: Split
    input_size: tuple[int, int, int]
    classes: tuple[str, ...]
    norm: Norm
    radii: tuple[float, ...]
    eps: float


@dataclass(frozen=True, eq=False)
class Measured:
    """One network's part of the report, and what it was made from; `verdicts` is None where nothing was attacked."""

    report: ModelReport
    model: nn.Module
    predicted: torch.Tensor
    verdicts: Verdicts | None
    notes: tuple[str, ...] = ()


def measure(
    models: Mapping[str, LoadedModel],
    subject: Subject,
    settings: EvaluationSettings,
    device: torch.device,
    listener: Listener,
    *,
    surrogates: Mapping[str, Sequence[LoadedModel]] | None = None,
    stop: Enough | None = None,
    certified_radii: Sequence[float] = (),
) -> dict[str, Measured]:
    """Measure the models one after the other.

    Args:
        surrogates: by the name of the model that they stand in for, the likest first.
        stop: ends the first model's attack after a chunk; the others are then attacked on the same images.
        certified_radii: where certified accuracy is wanted beside the usual grid.
    """
    for model in (*models.values(), *chain.from_iterable((surrogates or {}).values())):
        model.model.to(device)
    latency = by_leader(
        lambda: latencies_ms({name: model.model for name, model in models.items()}, subject.input_size, device)
    )
    found: dict[str, Measured] = {}
    first: int | None = None
    for name, loaded in models.items():
        stand_ins = (surrogates or {}).get(name, ())
        verdicts, chunk, described, notes = None, 0, None, tuple[str, ...]()
        if settings.attack != "none":
            verdicts, chunk, described = _attacked(
                name, loaded, stand_ins, subject, settings, device, listener, stop=stop, first=first
            )
            first = verdicts.attacked
            if verdicts.batch_size is not None and verdicts.batch_size < settings.forward_size:  # memory ran out
                settings = settings.model_copy(update={"batch_size": verdicts.batch_size})
            notes = _notes(name, loaded.model, verdicts, subject, device)
        seen = (
            predicted(loaded.model, subject.images, batch_size=settings.forward_size, device=device)
            if verdicts is None
            else verdicts.predicted
        )
        right = seen == subject.images.labels
        others = [other.model for key, other in models.items() if key != name]
        transfer_from = stand_ins[0].model if stand_ins else others[0] if others else None
        found[name] = Measured(
            ModelReport(
                arch=loaded.record.arch,
                params=parameter_count(loaded.model),
                macs=macs(loaded.model, subject.input_size),
                file_bytes=loaded.file_bytes,
                latency_ms=latency[name],
                sha256=loaded.sha256,
                clean_accuracy=rate(right),
                robust_accuracy=None
                if verdicts is None
                else robust_rate(verdicts, subject.eps, chunk=chunk, surrogate=described, stops=stop is not None),
                over_eps=() if verdicts is None else over_eps(verdicts, stops=stop is not None),
                classes=by_class(
                    subject.images.labels, right, verdicts, subject.eps, subject.classes, stops=stop is not None
                ),
                certified=_certified(name, loaded, subject, settings, device, listener, certified_radii),
                masking=None
                if verdicts is None or not settings.masking
                else by_leader(
                    partial(masking_of, name, loaded.model, subject, settings, device, listener, transfer_from)
                ),
                verdicts="".join("?" if ok else "x" for ok in right.tolist())
                if verdicts is None
                else verdicts.text(subject.eps),
            ),
            loaded.model,
            seen,
            verdicts,
            notes,
        )
    return found


def chunk_of(settings: EvaluationSettings, dimensions: int, device: torch.device, *, stops: bool) -> int:
    """`--chunk`, or the default of `EvaluationSettings` for images of D numbers.

    >>> chunk_of(EvaluationSettings(), 3 * 32 * 32, torch.device("cpu"), stops=False)
    250
    >>> chunk_of(EvaluationSettings(), 3 * 224 * 224, torch.device("cpu"), stops=False)
    111
    """
    most = STOPPING_CHUNK if stops else 1000 if device.type == "cuda" else 250
    return settings.chunk or min(most, max(STOPPING_CHUNK, 2**24 // dimensions))


def _attacked(
    name: str,
    loaded: LoadedModel,
    surrogates: Sequence[LoadedModel],
    subject: Subject,
    settings: EvaluationSettings,
    device: torch.device,
    listener: Listener,
    *,
    stop: Enough | None,
    first: int | None,
) -> tuple[Verdicts, int, str | None]:
    """Verdicts, the chunk, and what the white-box attacks were made on where it was not the network."""
    plan = plan_of(settings.attack, classes=len(subject.classes), norm=subject.norm)
    plan, stand_ins, described = _stand_ins(name, loaded, surrogates, subject, plan, device, listener)
    chunk = chunk_of(settings, torch.Size(subject.input_size).numel(), device, stops=stop is not None)
    conditions = Conditions(
        plan=plan,
        norm=subject.norm,
        radii=subject.radii,
        seed=settings.seed,
        chunk=chunk,
        batch_size=settings.batch_size or chunk,
        device=device,
        eps=subject.eps,
    )
    if any(stage.name == "square" for stage in plan.stages):  # a network without gradients is attacked by it too
        refuse_shape(subject.input_size, subject.norm, attack="an attack without gradients", instead="")
    kept = Kept(_folder(loaded, surrogates, subject, settings, conditions))
    listener.detail(
        f"{name}: {', '.join(stage.name for stage in plan.stages)}, {chunk} images a chunk, on {device_name(device)}; "
        + (f"verdicts are kept in {kept.folder}" if kept.folder else "verdicts are not kept")
    )
    verdicts = under_attack(
        loaded.model,
        subject.images,
        conditions,
        surrogates=stand_ins,
        kept=kept,
        first=first,
        enough=stop if first is None else None,
        on_progress=lambda now: listener.attack(name, now),
        note=lambda text: listener.note(f"{name}: {text}"),
    )
    return verdicts, chunk, described


def _stand_ins(
    name: str,
    loaded: LoadedModel,
    surrogates: Sequence[LoadedModel],
    subject: Subject,
    plan: Plan,
    device: torch.device,
    listener: Listener,
) -> tuple[Plan, list[nn.Module], str | None]:
    """For a network without gradients: surrogates, the user's or a straight-through copy, and what the report says."""
    x, y = next(subject.images.batches(8, device=device))
    differentiable = has_gradients(loaded.model, x, y)
    if surrogates:
        told = [f"{one.record.arch} in {one.path.name}" for one in surrogates]
        changed = with_surrogates(plan, told) if differentiable else without_gradients(plan, told)
        return changed, [one.model for one in surrogates], " and ".join(told)
    if differentiable:
        return plan, [], None
    copy = StraightThrough(loaded.model)
    if has_gradients(copy, x, y):
        described = "a straight-through copy"
        listener.note(f"{name}: it gives no gradients; {described} is attacked in its place, then itself by Square")
        return without_gradients(plan, [described]), [copy], described
    listener.note(
        f"{name}: it gives no gradients, and no straight-through copy of it does: Square alone attacks it; name its "
        "float parent with --surrogate"
    )
    return without_gradients(plan, []), [], None


def _folder(
    loaded: LoadedModel,
    surrogates: Sequence[LoadedModel],
    subject: Subject,
    settings: EvaluationSettings,
    conditions: Conditions,
) -> Path | None:
    if settings.keep_dir is None:
        return None
    what = {
        "network": identity(loaded),
        "surrogates": [identity(one) for one in surrogates],
        "threat": [subject.norm, subject.radii],
        "attack": [conditions.plan.name, [stage.name for stage in conditions.plan.stages], len(subject.classes)],
        "drawn": [conditions.chunk, conditions.seed],
        "software": [versions(), conditions.device.type],
    }
    return settings.keep_dir / key_of(what)


def identity(loaded: LoadedModel) -> list[Any]:
    """What tells a network from every other: its weights, its record, its code."""
    arch = loaded.record.arch if loaded.record.source == "factory" else ""
    seen = [loaded.sha256, loaded.record.model_dump(mode="json"), code_of(loaded.model, arch)]
    return [*seen, loaded.runtime] if loaded.runtime else seen


def _notes(name: str, model: nn.Module, verdicts: Verdicts, subject: Subject, device: torch.device) -> tuple[str, ...]:
    """What the attack package warns of, and what a reader of the report should know of its verdicts."""
    x, _ = next(subject.images.batches(2, device=device))
    warned = [f"{name}: AutoAttack warns: {warning}" for warning in verdicts.warnings]
    if is_dynamic(model, x):
        warned.append(
            f"{name}: it calls autograd while it answers (a dynamic defence?): attacks that do not know it may be weak"
        )
    if verdicts.taken_up > 0:
        warned.append(
            f"{name}: for {verdicts.taken_up} of {verdicts.attacked} images kept verdicts of this network under this "
            "attack were taken up, in whole or in part; --fresh attacks all of them anew"
        )
    return tuple(warned)


def masking_of(
    name: str,
    model: nn.Module,
    subject: Subject,
    settings: EvaluationSettings,
    device: torch.device,
    listener: Listener,
    transfer_from: nn.Module | None,
) -> Masking:
    """Signs of gradient masking on the first images; `name` is for those who listen."""
    images = subject.images.subset(range(min(MASKING_IMAGES, len(subject.images))))
    x, y = next(images.batches(len(images), device=device))
    return check_masking(
        model,
        x,
        y,
        ThreatModel(subject.norm, subject.eps),
        classes=len(subject.classes),
        seed=settings.seed,
        batch_size=settings.forward_size,
        transfer_from=transfer_from,
        random_allowed=settings.attack == "autoattack-rand",
        on_progress=lambda done, total: listener.count(f"{name}: masking checks", done, total),
    )


def _certified(
    name: str,
    loaded: LoadedModel,
    subject: Subject,
    settings: EvaluationSettings,
    device: torch.device,
    listener: Listener,
    radii: Sequence[float],
) -> Certified | None:
    if settings.certify_images == 0:
        return None
    sample = subject.images.subset(range(min(settings.certify_images, len(subject.images))))
    return Certified(
        first_order=first_order(loaded.model, sample, subject.norm, batch_size=settings.forward_size, device=device),
        smoothing=smoothing(
            loaded.model,
            sample,
            settings,
            device=device,
            radii=radii,
            kept=lambda noise: KeptVotes(votes_folder(loaded, settings, noise, device), loaded.model),
            on_progress=lambda done, total: listener.count(f"{name}: smoothing", done, total),
            note=lambda text: listener.note(f"{name}: {text}"),
        ),
    )


def votes_folder(loaded: LoadedModel, settings: EvaluationSettings, noise: Noise, device: torch.device) -> Path | None:
    """Where the votes of a network under a noise are kept; None for nowhere."""
    if settings.keep_dir is None:
        return None
    what = {
        "network": identity(loaded),
        "votes": [noise.sigma, noise.seed],
        "software": [versions(), device.type],
    }
    return settings.keep_dir / key_of(what)
