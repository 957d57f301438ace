"""One export, readable top to bottom: load, trace, round if asked, write, run what was written, compare, attack."""

import hashlib
import json
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from kdcompress.attacks.autoattack import refuse_shape
from kdcompress.data import Split, load_data
from kdcompress.devices import resolve_device
from kdcompress.errors import DataError, ExportError
from kdcompress.evaluation.compare import paired
from kdcompress.evaluation.evaluate import side_by_side, warnings
from kdcompress.evaluation.loading import Loaded, load
from kdcompress.evaluation.measure import Subject, masking_of, measure
from kdcompress.export.checks import compared, refuse_difference, refuse_other_function, refuse_runtime
from kdcompress.export.int8 import quantised, rounded_operations, straight_through
from kdcompress.export.programs import (
    INPUT,
    OUTPUT,
    Program,
    onnx_runtime,
    program_of,
    to_bytes,
    to_onnx,
    torch_runtime,
)
from kdcompress.export.record import Agreement, Export, Quantised
from kdcompress.files import write_whole
from kdcompress.gates import judge
from kdcompress.models.cost import latencies_ms
from kdcompress.models.teachers import LoadedModel
from kdcompress.progress import Listener
from kdcompress.report import Gate
from kdcompress.settings import EvaluationSettings, ExportSettings, GateSettings
from kdcompress.versions import versions

FLOAT, INT8 = "float", "int8"
CALIBRATED = 64  # images a forward


def export_model(settings: ExportSettings, out: Path, *, listener: Listener = Listener()) -> Export:
    """Write the network of a model file for a runtime, normalisation inside, and check what was written.

    With `int8` its robust accuracy is measured beside its float parent's, on the same images. The rounded network has
    no gradients: what is found on the float parent and on a straight-through copy is tried on the file as its runtime
    runs it, and Square attacks that itself.

    >>> from importlib.resources import files
    >>> from tempfile import TemporaryDirectory
    >>> from kdcompress import *
    >>> settings = ExportSettings(
    ...     model=ModelFile(path=files("kdcompress") / "assets" / "digits_teacher.safetensors"),
    ...     data=DataSettings(data="digits"),
    ...     format="torch-export",
    ...     evaluation=EvaluationSettings(images=10, certify_images=0),
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     found = export_model(settings, Path(folder) / "network.pt2")
    >>> [(one.on, one.labels_differ) for one in found.agreements]
    [('real', 0), ('random', 0)]

    Guarantees:
        `out` holds a file that answered as it should, or what it held before.

    Raises:
        KdcompressError: if a file, the data or an option is wrong, or the network cannot be exported.
    """
    started = time.perf_counter()
    attacked = settings.int8 and settings.evaluation.attack != "none"
    _ = resolve_device(settings.evaluation.device)  # that it is there
    loaded = load(
        {"student": settings.model}, settings.data, EvaluationSettings(seed=settings.evaluation.seed), listener
    )
    images = loaded.images.subset(range(min(settings.evaluation.images or len(loaded.images), len(loaded.images))))
    loaded = replace(loaded, images=images)
    parent = loaded.models["student"]
    if attacked and settings.threat is not None:  # Square attacks the file, and must be able to
        refuse_shape(loaded.input_size, settings.threat.norm)
    program = program_of(parent.model, loaded.input_size)
    meant: nn.Module
    if settings.int8:
        ranges = _calibration(settings, loaded, listener)
        listener.note(f"ranges are read from {len(ranges)} training images")
        rounded = quantised(program, (x for x, _ in ranges.batches(CALIBRATED)))
        meant, shipped = rounded, program_of(rounded, loaded.input_size)
    else:
        meant, shipped = parent.model, program
    content = _written(shipped, parent, settings)
    runtime = _runtime(content, settings)
    agreements = compared(meant, runtime, loaded.images, loaded.input_size)
    if settings.int8:
        rounding = compared(parent.model, rounded, loaded.images, loaded.input_size)[0]
        refuse_runtime(agreements, rounding, f"{out}, as its runtime runs it,")
        tolerance = None
    else:
        tolerance = refuse_difference(agreements, f"{out}, as its runtime runs it,")
    int8, gates, notes = None, tuple[Gate, ...](), _unmeasured(settings)
    if settings.int8:
        copy = straight_through(rounded)
        refuse_other_function(compared(rounded, copy, loaded.images, loaded.input_size))
        of_float = _written(program, parent, settings)
        int8, gates, told = _beside_float(
            settings,
            loaded,
            parent,
            replace(_as_loaded(runtime, parent, out, content), runtime=_runtime_of(settings)),
            copy,
            _runtime(of_float, settings),
            (len(of_float), len(content)),
            rounding,
            listener,
        )
        int8, notes = (
            int8.model_copy(update={"rounded": rounded_operations(rounded), "calibration_images": len(ranges)}),
            (*notes, *told),
        )
    try:
        write_whole(out, content)
    except OSError as error:
        raise ExportError(f"--out {out} cannot be written ({error.strerror or error})") from error
    return Export(
        source=str(settings.model.path),
        source_sha256=parent.sha256,
        arch=parent.record.arch,
        format=settings.format,
        file=str(out),
        file_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        opset=settings.opset if settings.format == "onnx" else None,
        input=f"{INPUT}: float32 (batch, {', '.join(map(str, loaded.input_size))}), in [0,1]",
        output=f"{OUTPUT}: float32 (batch, {len(loaded.classes)})",
        classes=parent.record.classes,
        mean=parent.record.mean,
        std=parent.record.std,
        agreements=agreements,
        tolerance=tolerance,
        int8=int8,
        gates=gates,
        notes=(*loaded.notes, *notes),
        settings=settings.model_dump(mode="json"),
        versions=versions() | _writers(settings),
        seconds=round(time.perf_counter() - started, 1),
    )


def _written(program: ExportedProgram, parent: LoadedModel, settings: ExportSettings) -> bytes:
    if settings.format == "torch-export":
        return to_bytes(program)
    record = parent.record
    metadata = {
        "classes": json.dumps(record.classes),
        "input": "pixels in [0,1], normalised inside",
        "made_by": f"kdcompress {version('kdcompress')}",
        "made_from_sha256": parent.sha256,
    }
    return to_onnx(program, settings.opset, metadata)


def _runtime(content: bytes, settings: ExportSettings) -> Program:
    return torch_runtime(content) if settings.format == "torch-export" else onnx_runtime(content)


def _calibration(settings: ExportSettings, loaded: Loaded, listener: Listener) -> Split:
    """Training images, as many as asked for or there are: ranges that are read from test images would flatter them."""
    channels, height, width = loaded.input_size
    try:
        found = load_data(
            settings.data.data,
            data_dir=settings.data.data_dir,
            image_size=settings.data.image_size or (height if height == width else None),
            splits=["train"],
            train_images=settings.calibration_images,
            for_ranges=True,
            colour=channels == 3,
            on_progress=listener.count,
        )
    except DataError as error:
        raise DataError(f"--int8 reads its ranges from training images: {error}") from error
    assert found.train is not None  # it was asked for
    return found.train


def _as_loaded(runtime: Program, parent: LoadedModel, out: Path, content: bytes) -> LoadedModel:
    return LoadedModel(runtime, parent.record, hashlib.sha256(content).hexdigest(), out)


def _beside_float(
    settings: ExportSettings,
    loaded: Loaded,
    parent: LoadedModel,
    int8: LoadedModel,
    copy: GraphModule,
    shipped_float: Program,
    file_bytes: tuple[int, int],
    rounding: Agreement,
    listener: Listener,
) -> tuple[Quantised, tuple[Gate, ...], tuple[str, ...]]:
    """Both on the same images; each attacked by its own means and by what is found on the others."""
    device = resolve_device(settings.evaluation.device)
    eps = 0.0 if settings.threat is None else settings.threat.eps
    norm = "Linf" if settings.threat is None else settings.threat.norm
    subject = Subject(loaded.images, loaded.input_size, loaded.classes, norm, (eps,), eps)
    told = parent.record.model_copy(update={"arch": "straight-through copy"})
    stand_in = replace(int8, model=Program(copy.to(device)), record=told)
    found = measure(
        {FLOAT: parent, INT8: int8},
        subject,
        settings.evaluation.model_copy(update={"masking": False}),
        device,
        listener,
        surrogates={FLOAT: [stand_in, parent], INT8: [stand_in, parent]},
    )
    if settings.evaluation.attack != "none" and settings.evaluation.masking:
        # The file itself has no gradients that could be masked; the copy is the same function and has.
        looked_at = {FLOAT: (parent.model, stand_in.model), INT8: (stand_in.model, parent.model)}
        for name, (network, other) in looked_at.items():
            masking = masking_of(name, network, subject, settings.evaluation, device, listener, other)
            report = found[name].report.model_copy(update={"masking": masking})
            found[name] = replace(found[name], report=report)
    robust = side_by_side(found, FLOAT, INT8, eps, settings.within)
    rights = [(found[name].predicted == loaded.images.labels).tolist() for name in (FLOAT, INT8)]
    latencies = latencies_ms({FLOAT: shipped_float, INT8: int8.model}, loaded.input_size, "cpu")
    of_float, of_int8 = (
        found[name].report.model_copy(
            # The int8 file keeps every weight and product of its parent, at another width.
            update={
                "latency_ms": latencies[name],
                "file_bytes": size,
                "params": found[FLOAT].report.params,
                "macs": found[FLOAT].report.macs,
            }
        )
        for name, size in zip((FLOAT, INT8), file_bytes, strict=True)
    )
    reports = {name: one.report for name, one in found.items()}
    gates = judge(GateSettings(max_robust_drop=settings.max_robust_drop), INT8, reports, robust)
    return (
        Quantised(
            calibration_images=settings.calibration_images,
            rounding=rounding,
            float=of_float,
            int8=of_int8,
            rounded=(0, 0),
            clean=paired(rights[0], rights[1], settings.within),
            robust=robust,
        ),
        gates,
        (*warnings(found), *_uneven(settings.evaluation.attack)),
    )


def _unmeasured(settings: ExportSettings) -> tuple[str, ...]:
    """What one may believe to have been measured."""
    if not settings.int8 and settings.threat is not None:
        return ("--eps is for --int8: nothing was attacked, since the file is the network itself; see evaluate",)
    if settings.int8 and settings.evaluation.attack == "none":
        return ("the robust accuracy of the int8 file was not measured: --attack none",)
    return ()


def _runtime_of(settings: ExportSettings) -> str:
    """What answers for an int8 file beside the software of every report: kept verdicts are good for no other."""
    return json.dumps([_writers(settings), torch.backends.cpu.get_cpu_capability()])


def _uneven(attack: str) -> tuple[str, ...]:
    """Where the two are not attacked alike."""
    if attack == "none" or attack.startswith("autoattack") or attack == "square":
        return ()
    return (f"with --attack {attack} Square attacks int8 alone: what it lost is overstated; autoattack has both",)


def _writers(settings: ExportSettings) -> dict[str, str]:
    """Versions of the packages that wrote and ran the file."""
    packages = ["torchao"] if settings.int8 else []
    packages += ["onnx", "onnxscript", "onnxruntime"] if settings.format == "onnx" else []
    return {package: version(package) for package in packages}
