"""One evaluation, readable top to bottom: load, measure each network on the same images, compare, judge the gates."""

import hashlib
import time
from collections.abc import Mapping

import torch

from kdcompress.attacks.autoattack import refuse_shape
from kdcompress.attacks.plans import plan_of
from kdcompress.data import Split, load_data
from kdcompress.devices import device_name, resolve_device
from kdcompress.evaluation.compare import paired, ratios
from kdcompress.evaluation.evidence import evidence_of
from kdcompress.evaluation.kept import forget_old
from kdcompress.evaluation.measure import Measured, Subject, measure
from kdcompress.evidence import Evidence
from kdcompress.gates import decided, judge, refuse_impossible
from kdcompress.models.checkpoints import Checkpoint, read_checkpoint
from kdcompress.models.teachers import LoadedModel, load_named
from kdcompress.progress import Listener
from kdcompress.report import DataRecord, Paired, Report, ThreatRecord
from kdcompress.settings import EvaluateSettings
from kdcompress.versions import versions


def evaluate(settings: EvaluateSettings, *, listener: Listener = Listener()) -> Report:
    """Measure the model, the teacher, or both on the test split, and judge the gates.

    Raises:
        KdcompressError: if a file, the data or an option is wrong; before anything is measured.
    """
    return evaluate_with_evidence(settings, listener=listener)[0]


def evaluate_with_evidence(settings: EvaluateSettings, *, listener: Listener = Listener()) -> tuple[Report, Evidence]:
    """The same, with what stands behind the figures: a row for each image, and a few images to look at."""
    started = time.perf_counter()
    refuse_impossible(settings)
    named = {"student": settings.student, "teacher": settings.teacher, "surrogate": settings.surrogate}
    files = {name: file for name, file in named.items() if file is not None}
    checkpoints = {name: read_checkpoint(file.path) for name, file in files.items()}
    made_for = _size(next(iter(checkpoints.values())))
    device = resolve_device(settings.evaluation.device)
    data = load_data(
        settings.data.data,
        data_dir=settings.data.data_dir,
        image_size=settings.data.image_size or (made_for[1] if made_for and made_for[1] == made_for[2] else None),
        splits=["test"],
        colour=made_for is not None and made_for[0] == 3,
        on_progress=listener.count,
    )
    assert data.test is not None  # the one split asked for
    _refuse_attack(settings, data.input_size, len(data.classes))
    models = {
        name: load_named(
            file,
            checkpoints[name],
            classes=data.classes,
            input_size=data.input_size,
            option="" if name == "student" else name,
        )
        for name, file in files.items()
    }
    for name, model in models.items():
        for note in model.notes:
            listener.note(f"{name}: {note}")
    if (settings.evaluation.images or 0) > len(data.test):
        listener.note(f"--images {settings.evaluation.images}: the test split has {len(data.test)}, all are taken")
    images = data.test.shuffled(settings.evaluation.images, settings.evaluation.seed)
    surrogate = models.pop("surrogate", None)
    if settings.evaluation.keep_dir is not None:
        forget_old(settings.evaluation.keep_dir)
    subject = Subject(images, data.input_size, data.classes, settings.threat.norm, settings.radii, settings.threat.eps)
    measured = measure(
        models,
        subject,
        settings.evaluation,
        device,
        listener,
        surrogates={} if surrogate is None else {"student": surrogate},
        stop=decided(settings.gates),
        certified_radii=[demand[0]] if (demand := settings.gates.min_certified_accuracy) else [],
    )
    reports = {name: found.report for name, found in measured.items()}
    compared = "student" in reports and "teacher" in reports
    # Where to stop was decided by looking at the student: the interval of a paired difference does not allow for that.
    stops = settings.gates.confidence is not None
    comparison = (
        side_by_side(measured, "teacher", "student", settings.threat.eps, settings.gates.within)
        if compared and not stops
        else None
    )
    unpaired = (
        ("teacher and student are not compared image by image: with --confidence the attack may stop early",)
        if compared and stops
        else ()
    )
    judged = "student" if "student" in reports else "teacher"
    report = Report(
        threat_model=ThreatRecord(norm=settings.threat.norm, eps=settings.threat.eps),
        data=DataRecord(
            name=data.name,
            images=len(images),
            of=len(data.test),
            seed=settings.evaluation.seed,
            classes=data.classes,
            sha256=fingerprint(images),
        ),
        device=device_name(device),
        models=reports,
        paired=comparison,
        ratios=ratios(reports["teacher"], reports["student"]) if compared else {},
        gates=judge(settings.gates, judged, reports, comparison),
        notes=(*notes(data.notes, models, measured), *unpaired),
        settings=settings.model_dump(mode="json"),
        versions=versions(),
        seconds=round(time.perf_counter() - started, 1),
    )
    return report, evidence_of(subject, measured, device)


def side_by_side(
    measured: Mapping[str, Measured], teacher: str, student: str, eps: float, within: float
) -> Paired | None:
    """Both on the images that both were attacked on; None where nothing was attacked.

    Where a sign of masking was found on either, whether robustness is preserved is not told.
    """
    verdicts = (measured[teacher].verdicts, measured[student].verdicts)
    if verdicts[0] is None or verdicts[1] is None:
        return None
    both = verdicts[0].tried & verdicts[1].tried
    kept = [found.stood(eps)[both].tolist() for found in verdicts if found is not None]
    found = paired(kept[0], kept[1], within)
    masking = (measured[name].report.masking for name in (teacher, student))
    flagged = any(one is not None and one.reasons for one in masking)
    return found.model_copy(update={"preserved": None}) if flagged else found


def notes(
    found: tuple[str, ...], models: Mapping[str, LoadedModel], measured: Mapping[str, Measured]
) -> tuple[str, ...]:
    """What a reader must know beside the figures."""
    loaded = [f"{name}: {note}" for name, model in models.items() for note in model.notes]
    return (*found, *loaded, *(note for seen in measured.values() for note in seen.notes))


def fingerprint(images: Split) -> str:
    """sha256 of names, labels and pixels, in their order: equal for the same images however they were stored."""
    seen = hashlib.sha256(repr((images.ids, images.labels.tolist())).encode())
    for x, _ in images.batches(500):
        seen.update((x * 255).round().to(torch.uint8).numpy().tobytes())
    return seen.hexdigest()


def _refuse_attack(settings: EvaluateSettings, input_size: tuple[int, int, int], classes: int) -> None:
    """Find out before an hour of attacks whether all of them can run."""
    if settings.evaluation.attack == "none":
        return
    plan = plan_of(settings.evaluation.attack, classes=classes, norm=settings.threat.norm)
    if any(stage.name == "square" for stage in plan.stages):
        refuse_shape(input_size, settings.threat.norm)


def _size(checkpoint: Checkpoint) -> tuple[int, int, int] | None:
    """(C, H, W) of the images that a file of ours was made for; other files do not say."""
    return None if checkpoint.record is None else checkpoint.record.input_size
