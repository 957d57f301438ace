"""One evaluation, readable top to bottom: load, measure each network on the same images, compare, judge the gates."""

import time
from collections.abc import Mapping

import torch

from kdcompress.attacks.autoattack import refuse_shape
from kdcompress.data import Split, load_data
from kdcompress.devices import device_name, resolve_device
from kdcompress.evaluation.accuracy import OnAttack, Verdicts, correct, rate, robust_rate, under_attack
from kdcompress.evaluation.certificates import first_order, smoothing
from kdcompress.evaluation.compare import paired, ratios
from kdcompress.gates import judge, refuse_impossible
from kdcompress.models.checkpoints import Checkpoint, read_checkpoint
from kdcompress.models.cost import latencies_ms, macs, parameter_count
from kdcompress.models.teachers import LoadedModel, load_named
from kdcompress.progress import Listener
from kdcompress.report import Certified, DataRecord, ModelReport, Report, ThreatRecord
from kdcompress.settings import EvaluateSettings, EvaluationSettings
from kdcompress.threat import ThreatModel
from kdcompress.versions import versions


def evaluate(settings: EvaluateSettings, *, listener: Listener = Listener()) -> Report:
    """Measure the model, the teacher, or both on the test split, and judge the gates.

    Raises:
        KdcompressError: if a file, the data or an option is wrong; before anything is measured.
    """
    started = time.perf_counter()
    refuse_impossible(settings)
    named = {"student": settings.student, "teacher": settings.teacher}
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
    if settings.evaluation.attack == "autoattack":
        refuse_shape(data.input_size, settings.threat.threat)
    models = {
        name: load_named(
            file,
            checkpoints[name],
            classes=data.classes,
            input_size=data.input_size,
            option="teacher" if name == "teacher" else "",
        )
        for name, file in files.items()
    }
    for name, model in models.items():
        for note in model.notes:
            listener.note(f"{name}: {note}")
    if (settings.evaluation.images or 0) > len(data.test):
        listener.note(f"--images {settings.evaluation.images}: the test split has {len(data.test)}, all are taken")
    images = data.test.shuffled(settings.evaluation.images, settings.evaluation.seed)
    reports, verdicts = measure(
        models, images, settings.threat.threat, settings.evaluation, data.input_size, device, listener
    )
    both = "student" in reports and "teacher" in reports
    comparison = paired(verdicts["teacher"], verdicts["student"]) if both and verdicts else None
    judged = "student" if "student" in reports else "teacher"
    return Report(
        threat_model=ThreatRecord(norm=settings.threat.norm, eps=settings.threat.eps),
        data=DataRecord(
            name=data.name,
            images=len(images),
            of=len(data.test),
            seed=settings.evaluation.seed,
            classes=data.classes,
        ),
        device=device_name(device),
        models=reports,
        paired=comparison,
        ratios=ratios(reports["teacher"], reports["student"]) if both else {},
        gates=judge(settings.gates, judged, reports[judged], comparison),
        notes=notes(data.notes, models, verdicts),
        settings=settings.model_dump(mode="json"),
        versions=versions(),
        seconds=round(time.perf_counter() - started, 1),
    )


def measure(
    models: Mapping[str, LoadedModel],
    images: Split,
    threat: ThreatModel,
    settings: EvaluationSettings,
    input_size: tuple[int, int, int],
    device: torch.device,
    listener: Listener,
) -> tuple[dict[str, ModelReport], dict[str, Verdicts]]:
    """A report a model, and the verdicts under attack (none with `--attack none`)."""
    for model in models.values():
        model.model.to(device)
    latency = latencies_ms({name: model.model for name, model in models.items()}, input_size, device)
    reports, verdicts = {}, {}
    for name, loaded in models.items():
        if settings.attack == "none":
            clean = correct(loaded.model, images, batch_size=settings.batch_size, device=device)
        else:
            verdicts[name] = under_attack(
                loaded.model,
                images,
                threat,
                attack=settings.attack,
                classes=len(loaded.record.classes),
                seed=settings.seed,
                batch_size=settings.batch_size,
                device=device,
                on_progress=_told(name, listener),
            )
            clean = verdicts[name].clean
        reports[name] = ModelReport(
            arch=loaded.record.arch,
            params=parameter_count(loaded.model),
            macs=macs(loaded.model, input_size),
            file_bytes=loaded.path.stat().st_size,
            latency_ms=latency[name],
            sha256=loaded.sha256,
            clean_accuracy=rate(clean),
            robust_accuracy=robust_rate(verdicts[name]) if name in verdicts else None,
            certified=_certified(name, loaded, images, threat, settings, device, listener),
        )
    return reports, verdicts


def notes(
    found: tuple[str, ...], models: Mapping[str, LoadedModel], verdicts: Mapping[str, Verdicts]
) -> tuple[str, ...]:
    """What a reader must know beside the figures."""
    loaded = [f"{name}: {note}" for name, model in models.items() for note in model.notes]
    warned = [f"{name}: AutoAttack warns: {warning}" for name, seen in verdicts.items() for warning in seen.warnings]
    return (*found, *loaded, *warned)


def _certified(
    name: str,
    loaded: LoadedModel,
    images: Split,
    threat: ThreatModel,
    settings: EvaluationSettings,
    device: torch.device,
    listener: Listener,
) -> Certified | None:
    if settings.certify_images == 0:
        return None
    sample = images.subset(range(min(settings.certify_images, len(images))))
    return Certified(
        first_order=first_order(loaded.model, sample, threat.norm, batch_size=settings.batch_size, device=device),
        smoothing=smoothing(
            loaded.model,
            sample,
            settings,
            classes=len(loaded.record.classes),
            device=device,
            on_progress=lambda done, total: listener.count(f"{name}: smoothing", done, total),
        ),
    )


def _size(checkpoint: Checkpoint) -> tuple[int, int, int] | None:
    """(C, H, W) of the images that a file of ours was made for; other files do not say."""
    return None if checkpoint.record is None else checkpoint.record.input_size


def _told(name: str, listener: Listener) -> OnAttack:
    def told(attack: str, done: int, total: int, standing: int) -> None:
        listener.count(f"{name}: {attack}", done, total, f"{standing} of {done} images stand" if done else "")

    return told
