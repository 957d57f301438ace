"""One certification, readable top to bottom: load, find each network's radii of each kind, audit the propositions."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdcompress.bounds.verify import Bounded
from kdcompress.certification import Audit, Certification, CertifiedModel
from kdcompress.data import Split
from kdcompress.errors import UsageError
from kdcompress.evaluation.accuracy import predicted, rate
from kdcompress.evaluation.audit.counter_example import counter_examples
from kdcompress.evaluation.audit.memory import TooLargeError
from kdcompress.evaluation.audit.proposition1 import proposition1
from kdcompress.evaluation.audit.proposition2 import proposition2
from kdcompress.evaluation.audit.radius import compared_radii
from kdcompress.evaluation.certificates import first_order
from kdcompress.evaluation.clever import clever_scores
from kdcompress.evaluation.evaluate import fingerprint
from kdcompress.evaluation.kept import forget_old, key_of
from kdcompress.evaluation.kept_scores import KeptScores
from kdcompress.evaluation.loading import Loaded, load
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.evaluation.measure import identity, votes_folder
from kdcompress.evaluation.smoothing.certified import smoothing
from kdcompress.evaluation.smoothing.kept import KeptVotes
from kdcompress.evaluation.verified import prepared, verified
from kdcompress.gates import certification_gates, refuse_uncertifiable
from kdcompress.models.cost import parameter_count
from kdcompress.models.teachers import LoadedModel
from kdcompress.processes import here, shared
from kdcompress.progress import Listener
from kdcompress.report import Proposition1, Proposition2, ThreatRecord
from kdcompress.settings import CertifySettings
from kdcompress.threat import ThreatModel
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
    if settings.audits and (unaudited := _why_no_audit(loaded, settings.audit.batch_size, device)) is None:
        audit = _audit(loaded, models, settings, device, listener)
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
    memory = None if settings.memory is None else int(settings.memory * 2**30)
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
            on_progress=_told(listener, name, "CLEVER"),
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
            on_progress=_told(listener, name, "smoothing"),
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
            on_progress=_told(listener, name, "sound bounds"),
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


def _why_no_audit(loaded: Loaded, batch_size: int, device: torch.device) -> str | None:
    """A search without gradients moves nowhere, and would find every premise to hold."""
    x, y = next(loaded.images.batches(min(8, batch_size), device=device))
    without = [name for name, model in loaded.models.items() if not has_gradients(model.model, x, y)]
    return f"the propositions: not measured: no gradients of the {without[0]}" if without else None


def _audit(
    loaded: Loaded,
    models: dict[str, CertifiedModel],
    settings: CertifySettings,
    device: torch.device,
    listener: Listener,
) -> Audit:
    """Both propositions, on the first images; sound bounds of either network serve where they were found."""
    images = loaded.images.subset(range(min(settings.audit_images, len(loaded.images))))
    student, teacher = (loaded.models[name].model for name in ("student", "teacher"))
    norm, radii, how = settings.threat.norm, settings.radii, settings.audit
    sound = {name: _largest(model, len(images)) for name, model in models.items()}

    memory = _memory(settings)

    def kept(what: str, threat: ThreatModel | None = None) -> Path | None:
        root = settings.evaluation.keep_dir
        if root is None:
            return None
        ball = None if threat is None else [threat.norm, threat.eps]
        pair = [identity(loaded.models[name]) for name in ("student", "teacher")]
        drawn = how.model_dump(exclude={"batch_size"})  # changes no figure
        software = [versions(), device.type]
        return root / key_of(
            {"audit": what, "pair": pair, "ball": ball, "all": [norm, radii], "how": drawn, "of": software}
        )

    balls = [ThreatModel(norm, eps) for eps in radii]
    unmeasured: list[str] = []
    first: list[Proposition1] = []
    second: list[Proposition2] = []
    try:
        for ball in balls:
            found = proposition1(
                student,
                teacher,
                images,
                ball,
                how,
                classes=len(loaded.classes),
                device=device,
                teacher_certified=sound["teacher"],
                memory=memory,
                folder=kept("proposition 1", ball),
                on_progress=_told(listener, f"{ball}", "Proposition 1"),
            )
            first.append(found)
    except TooLargeError as error:
        unmeasured.append(f"Proposition 1 at {ball}: not measured: {error}")
    try:
        for ball in balls:
            second.append(
                proposition2(
                    student,
                    teacher,
                    images,
                    ball,
                    how,
                    device=device,
                    memory=memory,
                    folder=kept("proposition 2", ball),
                    on_progress=_told(listener, f"{ball}", "Proposition 2"),
                )
            )
    except TooLargeError as error:
        unmeasured.append(f"Proposition 2 at {ball}: not measured: {error}")
    for note in unmeasured:
        listener.note(note)
    compared = compared_radii(
        student,
        teacher,
        images,
        norm,
        radii,
        how,
        device=device,
        student_certified=sound["student"],
        teacher_certified=sound["teacher"],
        memory=memory,
        folder=kept("radii"),
        on_progress=_told(listener, "both", "radii by attack"),
    )
    counter = counter_examples(
        student,
        teacher,
        images,
        ThreatModel(norm, settings.threat.eps),
        how,
        names=loaded.classes,
        device=device,
        memory=memory,
        on_progress=_told(listener, "both", "counter-examples"),
    )
    return Audit(
        n=len(images),
        proposition1=tuple(first),
        proposition2=tuple(second),
        radii=compared,
        counter_examples=counter.record,
        unmeasured=tuple(unmeasured),
    )


def _memory(settings: CertifySettings) -> int | None:
    """Bytes that may be taken; None where nobody said."""
    return None if settings.memory is None else int(settings.memory * 2**30)


def _largest(model: CertifiedModel, n: int) -> torch.Tensor | None:
    """Certified radii of the first n images, (n,); None where bounds were not asked for or cannot pass the network."""
    if model.bounds is None or not model.bounds.largest:
        return None
    return torch.tensor(model.bounds.largest[:n], dtype=torch.float64)


def _told(listener: Listener, name: str, what: str) -> Callable[[int, int], None]:
    return lambda done, total: listener.count(f"{name}: {what}", done, total)
