"""Prunes and exports the smallest network of each of timm's model modules, and prints one line for each.

    PYTHONPATH=. python tests/benchmark/shipped_families.py [--side 32] [--largest 12e6] [--only resnet]

Networks are fitted to small images as `kdcompress distill` fits them, with fresh weights. Columns: module, network,
parameters; what `kdcompress prune --ratio 0.5` leaves of the multiply-accumulates, or why it refuses; by how much of
the largest logit the ONNX file's answers to 7 random images differ in onnxruntime, or why there is none; seconds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from student_families import smallest_by_module

from kdcompress.errors import KdcompressError
from kdcompress.export.programs import onnx_runtime, program_of, to_onnx
from kdcompress.models.checkpoints import save_model
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.students import create_student
from kdcompress.settings import ExportSettings
from kdcompress.training.pruning import pruned_student

CLASSES = tuple("0123456789")


def pruned(model: NormalisedModel, record: ModelRecord) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.safetensors"
        save_model(path, model, record)
        settings = SimpleNamespace(student=path, ratio=0.5)
        data = SimpleNamespace(classes=CLASSES, input_size=record.input_size)
        left, _, told = pruned_student(settings, data)  # type: ignore[arg-type]
    return f"pruned to {macs(left, record.input_size) / told.macs_before:.2f}"


def exported(model: NormalisedModel, record: ModelRecord) -> str:
    run = onnx_runtime(to_onnx(program_of(model, record.input_size), ExportSettings.model_fields["opset"].default, {}))
    x = torch.rand(7, *record.input_size)
    with torch.no_grad():
        meant = model(x)
    return f"ONNX {float((run(x) - meant).abs().max() / meant.abs().max()):.0e}"


def tried(work: Callable[[NormalisedModel, ModelRecord], str], model: NormalisedModel, record: ModelRecord) -> str:
    try:
        return work(model, record)
    except KdcompressError as error:
        return f"refused: {str(error)[:110]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--largest", type=float, default=12e6)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for module, name in smallest_by_module(options.largest, options.only):
        start = time.perf_counter()
        try:
            size = (3, options.side, options.side)
            model, record = create_student(name, {}, classes=CLASSES, input_size=size, mean=[0.5] * 3, std=[0.25] * 3)
            model.eval()
            said = (
                f"{parameter_count(model) / 1e6:6.2f} {tried(pruned, model, record)} | {tried(exported, model, record)}"
            )
        except KdcompressError as error:
            said = f"not built: {error}"
        print(f"{module:24} {name:34} {said}  {time.perf_counter() - start:.0f}s", flush=True)


if __name__ == "__main__":
    main()
