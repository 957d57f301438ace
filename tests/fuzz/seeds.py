"""Sound files of every kind that kdcompress reads, as small as they come, and some that were made to do harm."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from kdcompress.evaluation.kept import Chunk, Kept
from kdcompress.models.checkpoints import save_model
from kdcompress.models.layouts import build_layout
from kdcompress.models.record import Shrunk
from kdcompress.models.students import create_student
from kdcompress.training.mapped_file import write_mapped
from tests.sample_report import report

TINY = {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8)}


class Harm:
    """Unpickling it runs a program."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/kdcompress-was-run",)


def saved(content: object, **how: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **how)  # type: ignore[arg-type]
    return stream.getvalue()


def model_files(folder: Path) -> dict[str, bytes]:
    """Ours, and those that people bring."""
    torch.manual_seed(0)
    network, record = create_student(
        "resnet18", TINY, classes=("a", "b", "c"), input_size=(3, 8, 8), total_stride=4, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    save_model(folder / "own.safetensors", network, record)
    narrow = record.model_copy(
        update={
            "shrunk": Shrunk(sizes={"bn1": {"num_features": 4}, "fc": {"in_features": 8}}, shapes={"fc.weight": (3, 8)})
        }
    )
    save_model(folder / "pruned.safetensors", network, narrow)
    state = network.network.state_dict()
    wide = build_layout("cifar_wide_resnet", {"layers": [1, 1, 1], "widths": [2, 2, 2], "classes": 3}).state_dict()
    linear = nn.Linear(3, 3).state_dict()
    wrapped = {"state_dict": state, "epoch": 3, "best": np.float64(0.5), "ema": linear}
    return {
        "own": (folder / "own.safetensors").read_bytes(),
        "own, pruned": (folder / "pruned.safetensors").read_bytes(),
        "foreign safetensors": save({name: value.clone().contiguous() for name, value in state.items()}),
        "layout": save({f"module.{name}": value.clone().contiguous() for name, value in wide.items()}),
        "torch zip": saved(wrapped),
        "torch legacy": saved(wrapped, _use_new_zipfile_serialization=False),
        "harm, zip": saved({"state_dict": linear, "args": Harm()}),
        "harm, legacy": saved({"state_dict": linear, "args": Harm()}, _use_new_zipfile_serialization=False),
        "harm, pickle": pickle.dumps(Harm()),
    }


def reports() -> dict[str, bytes]:
    """What `evaluate --report` writes."""
    return {"report": report().model_dump_json(indent=1).encode()}


def pictures() -> dict[str, bytes]:
    """An image in every format that is read."""
    pixels = np.random.RandomState(0).randint(0, 255, (8, 8, 3), dtype=np.uint8)
    found = {}
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        found[kind] = stream.getvalue()
    return found


def archives() -> dict[str, bytes]:
    """A data set in a tar file, plain and packed."""
    picture = pictures()["PNG"]
    found = {}
    for mode in ("w", "w:gz", "w:xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
            for split in ("train", "test"):
                for label in "ab":
                    for number in range(3):
                        member = tarfile.TarInfo(f"data/{split}/{label}/{number}.png")
                        member.size = len(picture)
                        archive.addfile(member, io.BytesIO(picture))
        found[mode] = stream.getvalue()
    return found


def shard() -> bytes:
    """A WebDataset shard."""
    stream, picture = io.BytesIO(), pictures()["PNG"]
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(6):
            for suffix, content in (("png", picture), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def kept(folder: Path) -> dict[str, bytes]:
    """What runs keep for later ones: a chunk of verdicts, a view of a teacher cache, a checkpoint."""
    tensors = [torch.arange(3), torch.arange(3), *(torch.zeros(3, 2) for _ in range(3))]
    Kept(folder / "kept").save("chunk", Chunk(*tensors, done=1, warnings=("w",)))
    shapes = {"inputs": ("F16", (4, 3, 8, 8)), "logits": ("F32", (4, 3))}
    write_mapped(folder / "view", shapes, lambda arrays: None)
    state = save({"facts": torch.tensor(list(b'{"step": 1}'), dtype=torch.uint8), "model/weight": torch.zeros(3, 2)})
    return {"chunk": (folder / "kept" / "chunk").read_bytes(), "view": (folder / "view").read_bytes(), "state": state}


def nested(depth: int) -> bytes:
    """JSON that a recursive reader falls into."""
    return b"[" * depth + b"]" * depth
