"""One certification, readable top to bottom: load, find each network's radii of each kind, audit the propositions."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kdcompress.bounds.verify import Bounded
from kdcompress.certification import Certification, CertifiedModel
from kdcompress.data import Split
from kdcompress.errors import UsageError
from kdcompress.evaluation.accuracy import predicted, rate
from kdcompress.evaluation.audit.audited import audited, why_no_audit
from kdcompress.evaluation.certificates import first_order
from kdcompress.evaluation.clever import clever_scores
from kdcompress.evaluation.evaluate import fingerprint
from kdcompress.evaluation.kept import forget_old, key_of
from kdcompress.evaluation.kept_scores import KeptScores
from kdcompress.evaluation.loading import Loaded, load
from kdcompress.evaluation.measure import identity, votes_folder
from kdcompress.evaluation.smoothing.certified import smoothing
from kdcompress.evaluation.smoothing.kept import KeptVotes
from kdcompress.evaluation.verified import prepared, verified
from kdcompress.gates import certification_gates, refuse_uncertifiable
from kdcompress.models.cost import parameter_count
from kdcompress.models.teachers import LoadedModel
from kdcompress.processes import here, shared
from kdcompress.progress import Listener
from kdcompress.report import ThreatRecord
from kdcompress.settings import CertifySettings
from kdcompress.versions import versions

BOUNDABLE = "networks of convolutions, linear layers and ReLUs, pooled by means, can be bounded"


@dataclass(frozen=True)
class ImageNames:
    """Which images the lists of a certification are about, in their order."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]


def certify(settings: CertifySettings, *, listener: Listener = Listener()) -> Certification:
    """Certify the model, the teacher, or both on the test split, and audit what the paper proposes of the two.

    >>> from importlib.resources import files
    >>> from kdcompress import *
    >>> settings = CertifySettings(
    ...     student=ModelFile(path=files("kdcompress") / "assets" / "digits_teacher.safetensors"),
    ...     teacher=None,
    ...     data=DataSettings(data="digits"),
    ...     threat=ThreatSettings(eps=0.15),
    ...     kinds=("first-order",),
    ...     clever=CleverSettings.for_radii([0.15]),
    ...     evaluation=EvaluationSettings(images=20, attack="none", device="cpu"),
    ... )
    >>> found = certify(settings)
    >>> found.models["student"].first_order.kind  # each kind of radius says what it is
    'estimate'

    Raises:
        KdcompressError: if a file, the data or an option is wrong; before anything is measured.
    """
    return certify_with_names(settings, listener=listener)[0]


def certify_with_names(
    settings: CertifySettings, *, listener: Listener = Listener()
) -> tuple[Certification, ImageNames]:
    """The same, with the names of the images, which the lists of the result are in the order of.

    Processes that are `joined` share the work; all get the result, and the leader's listener hears of it.
    """
    listener = listener if here().leads else Listener()
    started = time.perf_counter()
    refuse_uncertifiable(settings)
    _ = here().device(settings.evaluation.device)  # that it is there
    files = {"student": settings.student, "teacher": settings.teacher}
    loaded = load(files, settings.data, settings.evaluation, listener)
    return certify_loaded(settings, loaded, started, listener)


def certify_loaded(
    settings: CertifySettings, loaded: Loaded, started: float, listener: Listener
) -> tuple[Certification, ImageNames]:
    """The same for what was loaded already, since `started` of the clock `perf_counter`."""
    device = here().device(settings.evaluation.device)
    if settings.evaluation.keep_dir is not None:
        forget_old(settings.evaluation.keep_dir)
    for model in loaded.models.values():
        model.model.to(device)
    judged = "student" if "student" in loaded.models else "teacher"
    subjects = _prepared(loaded, judged, settings, listener)
    models = {
        name: _certified(name, model, subjects.get(name), loaded.images, settings, device, listener)
        for name, model in loaded.models.items()
    }
    audit, unaudited = None, None
    if settings.audits and (unaudited := why_no_audit(loaded, settings.audit.batch_size, device)) is None:
        audit = audited(loaded, models, settings, device, listener)
    elif unaudited is not None:
        listener.note(unaudited)
    result = Certification(
        threat_model=ThreatRecord(norm=settings.threat.norm, eps=settings.threat.eps),
        radii=settings.radii,
        labels=tuple(loaded.images.labels.tolist()),
        data=loaded.record.model_copy(update={"sha256": fingerprint(loaded.images)}),
        device=here().told(device),
        models=models,
        audit=audit,
        gates=certification_gates(settings, judged, models[judged]),
        notes=(
            *loaded.notes,
            *(() if audit is None else audit.unmeasured),
            *(() if unaudited is None else (unaudited,)),
        ),
        settings=settings.model_dump(mode="json"),
        versions=versions(),
        seconds=round(time.perf_counter() - started, 1),
    )
    images = loaded.images
    return result, ImageNames(images.ids, tuple(loaded.classes[label] for label in images.labels.tolist()))


def _prepared(loaded: Loaded, judged: str, settings: CertifySettings, listener: Listener) -> dict[str, Bounded | str]:
    """Every network that bounds are asked of, or why there are none: said before minutes go into other kinds.

    Raises:
        UsageError: if a gate asks for bounds of a network that has none, or --memory is too little.
    """
    if "bounds" not in settings.kinds:
        return {}
    memory = settings.memory_bytes
    found = {name: prepared(model.model, loaded.input_size, memory=memory) for name, model in loaded.models.items()}
    told = {name: one if isinstance(one, str) else None for name, one in found.items()}
    for one in shared("what can be bounded", here().count, lambda rank: told):
        found |= {name: why for name, why in one.items() if why is not None}  # to one of them it is too large
    for name, why in found.items():
        if not isinstance(why, str):
            continue
        hint = f"; {BOUNDABLE}" if why.startswith("not supported") else ""
        if name == judged and settings.gates.min_verified_accuracy is not None:
            raise UsageError(f"--min-verified-accuracy needs sound bounds of the {name}: {why}{hint}")
        listener.note(f"{name}: sound bounds: {why}{hint}")
    return found


def _certified(
    name: str,
    loaded: LoadedModel,
    subject: Bounded | str | None,
    images: Split,
    settings: CertifySettings,
    device: torch.device,
    listener: Listener,
) -> CertifiedModel:
    """One network's radii, of each kind that was asked for."""
    model, norm, how = loaded.model, settings.threat.norm, settings.evaluation
    keep_dir, size = how.keep_dir, how.forward_size
    right = predicted(model, images, batch_size=size, device=device) == images.labels
    few = images.subset(range(min(settings.clever_images, len(images))))
    how_scored = settings.clever.model_dump() | {"norm": norm}

    def kept(what: dict[str, Any]) -> Path | None:
        return None if keep_dir is None else keep_dir / key_of(what | {"network": identity(loaded), "of": versions()})

    scores = KeptScores(kept({"clever": how_scored}))
    found = CertifiedModel(
        arch=loaded.record.arch,
        params=parameter_count(model),
        sha256=loaded.sha256,
        clean_accuracy=rate(right),
        first_order=first_order(model, images, norm, batch_size=size, device=device)
        if "first-order" in settings.kinds
        else None,
        clever=clever_scores(
            model,
            few,
            norm,
            settings.clever,
            batch_size=size,
            device=device,
            kept=scores,
            on_progress=partial(listener.count, f"{name}: CLEVER"),
        )
        if "clever" in settings.kinds
        else None,
        smoothing=smoothing(
            model,
            images,
            how,
            device=device,
            radii=[demand[0]] if (demand := settings.gates.min_certified_accuracy) else [],
            kept=lambda noise: KeptVotes(votes_folder(loaded, how, noise, device), model),
            on_progress=partial(listener.count, f"{name}: smoothing"),
            note=lambda text: listener.note(f"{name}: {text}"),
        )
        if "smoothing" in settings.kinds
        else None,
        bounds=verified(
            subject,
            images,
            norm,
            settings.radii,
            device=device,
            largest=settings.largest,
            batch_size=size,
            folder=kept({"bounds": norm}),
            seed=how.seed,
            on_progress=partial(listener.count, f"{name}: sound bounds"),
            note=lambda text: listener.note(f"{name}: {text}"),
        )
        if subject is not None
        else None,
    )
    if scores.note is not None:
        listener.note(f"{name}: {scores.note}")
    for kind, estimate in (("first-order", found.first_order), ("clever", found.clever)):
        if kind in settings.kinds and estimate is None:
            listener.note(f"{name}: {kind} needs gradients, and this network has none")
    return found
