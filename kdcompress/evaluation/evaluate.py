"""One evaluation, readable top to bottom: load, measure each network on the same images, compare, judge the gates."""

import hashlib
import time
from collections.abc import Mapping

import torch

from kdcompress.attacks.autoattack import refuse_shape
from kdcompress.attacks.plans import plan_of
from kdcompress.data import Split
from kdcompress.evaluation.compare import paired, ratios
from kdcompress.evaluation.evidence import evidence_of
from kdcompress.evaluation.kept import forget_old
from kdcompress.evaluation.loading import Loaded, load
from kdcompress.evaluation.measure import Measured, Subject, measure
from kdcompress.evidence import Evidence
from kdcompress.gates import decided, judge, refuse_impossible
from kdcompress.processes import here
from kdcompress.progress import Listener
from kdcompress.report import Paired, Report, ThreatRecord
from kdcompress.settings import EvaluateSettings
from kdcompress.versions import versions


def evaluate(settings: EvaluateSettings, *, listener: Listener = Listener()) -> Report:
    """Measure the model, the teacher, or both on the test split, and judge the gates.

    >>> from importlib.resources import files
    >>> from kdcompress import *
    >>> settings = EvaluateSettings(
    ...     student=ModelFile(path=files("kdcompress") / "assets" / "digits_teacher.safetensors"),
    ...     teacher=None,
    ...     data=DataSettings(data="digits"),
    ...     threat=ThreatSettings(eps=0.15),
    ...     evaluation=EvaluationSettings(images=20, attack="pgd-5", certify_images=0, masking=False, device="cpu"),
    ...     gates=GateSettings(min_robust_accuracy=0.3),
    ... )
    >>> report = evaluate(settings)
    >>> report.gates_met, report.models["student"].robust_accuracy.attack
    (True, 'PGD-5')

    Raises:
        KdcompressError: if a file, the data or an option is wrong; before anything is measured.
    """
    return evaluate_with_evidence(settings, listener=listener)[0]


def evaluate_with_evidence(settings: EvaluateSettings, *, listener: Listener = Listener()) -> tuple[Report, Evidence]:
    """The same, with what stands behind the figures: a row for each image, and a few images to look at.

    Processes that are `joined` share the work; all get the result, and the leader's listener hears of it.
    """
    listener = listener if here().leads else Listener()
    started = time.perf_counter()
    refuse_impossible(settings)
    _ = here().device(settings.evaluation.device)  # that it is there
    files = {"student": settings.student, "teacher": settings.teacher, "surrogate": settings.surrogate}
    loaded = load(files, settings.data, settings.evaluation, listener)
    return evaluate_loaded(settings, loaded, started, listener)


def evaluate_loaded(
    settings: EvaluateSettings, loaded: Loaded, started: float, listener: Listener
) -> tuple[Report, Evidence]:
    """The same for what was loaded already, since `started` of the clock `perf_counter`."""
    device = here().device(settings.evaluation.device)
    _refuse_attack(settings, loaded.input_size, len(loaded.classes))
    models, images = dict(loaded.models), loaded.images
    surrogate = models.pop("surrogate", None)
    if settings.evaluation.keep_dir is not None:
        forget_old(settings.evaluation.keep_dir)
    subject = Subject(
        images, loaded.input_size, loaded.classes, settings.threat.norm, settings.radii, settings.threat.eps
    )
    measured = measure(
        models,
        subject,
        settings.evaluation,
        device,
        listener,
        surrogates={} if surrogate is None else {"student": [surrogate]},
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
        data=loaded.record.model_copy(update={"sha256": fingerprint(images)}),
        device=here().told(device),
        models=reports,
        paired=comparison,
        ratios=ratios(reports["teacher"], reports["student"]) if compared else {},
        gates=judge(settings.gates, judged, reports, comparison),
        notes=(*loaded.notes, *warnings(measured), *unpaired),
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


def warnings(measured: Mapping[str, Measured]) -> tuple[str, ...]:
    """What was noticed under attack."""
    return tuple(note for found in measured.values() for note in found.notes)


def fingerprint(images: Split) -> str:
    """sha256 of names, labels and pixels, in their order: equal for the same images however they were stored.

    Pixels are hashed as bytes, or as floats where they are no 255ths, as arrays' may be.
    """
    seen = hashlib.sha256(repr((images.ids, images.labels.tolist())).encode())
    for x, _ in images.batches(500):
        pixels = (x * 255).round().to(torch.uint8)
        seen.update((pixels if pixels.float().div_(255).equal(x) else x).numpy().tobytes())
    return seen.hexdigest()


def _refuse_attack(settings: EvaluateSettings, input_size: tuple[int, int, int], classes: int) -> None:
    """Find out before an hour of attacks whether all of them can run."""
    if settings.evaluation.attack == "none":
        return
    plan = plan_of(settings.evaluation.attack, classes=classes, norm=settings.threat.norm)
    if any(stage.name == "square" for stage in plan.stages):
        refuse_shape(input_size, settings.threat.norm)
