"""What is done with a hostile file: all that a command would do before it computes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from kdcompress.data import load_data
from kdcompress.data.decoding import decoded
from kdcompress.data.items import agreed_classes
from kdcompress.data.shards import shard_splits
from kdcompress.evaluation.baseline import compare
from kdcompress.evaluation.kept import Kept
from kdcompress.models.teachers import load_model
from kdcompress.progress import Listener
from kdcompress.render.comparison import side_by_side
from kdcompress.render.junit import comparison_junit
from kdcompress.render.markdown import comparison_markdown
from kdcompress.settings import CompareSettings
from kdcompress.training.checkpoints import Checkpoints
from kdcompress.training.mapped_file import read_mapped
from tests.fuzz import seeds

Target = Callable[[Path], object]
VIEW = {"inputs": ("F16", (4, 3, 8, 8)), "logits": ("F32", (4, 3))}


def targets(folder: Path) -> dict[str, tuple[bytes, Target]]:
    """By name, a sound file and what reads it; `folder` holds what they need besides."""
    found: dict[str, tuple[bytes, Target]] = {}
    for name, content in seeds.model_files(folder).items():
        found[name] = (
            content,
            _model("resnet18" if name in ("foreign safetensors", "torch zip", "torch legacy") else None),
        )
    baseline = folder / "baseline.json"
    for name, content in seeds.reports().items():
        baseline.write_bytes(content)
        found[name] = (content, lambda path: _compared(baseline, path))
    for name, content in seeds.pictures().items():
        found[name] = (content, _picture(folder / name, content))
    for name, content in seeds.archives().items():
        found[f"tar {name}"] = (content, _tar)
    found["shard"] = (seeds.shard(), _shard)
    for name, content in seeds.kept(folder).items():
        found[name] = (content, _kept(name))
    return found


def _model(arch: str | None) -> Target:
    args: dict[str, Any] = dict(seeds.TINY) if arch else {}
    return lambda path: load_model(
        path, arch=arch, args=args, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), input_size=(3, 8, 8)
    )


def _compared(baseline: Path, other: Path) -> None:
    found = compare(CompareSettings(reports=(baseline, other)))
    Console(file=io.StringIO(), width=120).print(side_by_side(found))
    comparison_markdown(found)
    comparison_junit(found)


def _picture(root: Path, sound: bytes) -> Target:
    for label in "ab":
        (root / "test" / label).mkdir(parents=True)
        (root / "test" / label / "1.png").write_bytes(sound)

    def look(path: Path) -> None:
        (root / "test" / "a" / "2.png").write_bytes(path.read_bytes())
        load_data(str(root), image_size=8, splits=["test"])

    return look


def _shard(path: Path) -> None:
    """In a folder of shards, its images read where they lie."""
    folder = path.with_name("shards")
    folder.mkdir(exist_ok=True)
    (folder / "train-0.tar").write_bytes(path.read_bytes())
    splits, _ = shard_splits(folder)
    agreed_classes("shards", splits)
    decoded(splits["train"], (3, 8, 8), None, range(len(splits["train"])))


def _tar(path: Path) -> None:
    load_data(str(path), image_size=8)


def _kept(name: str) -> Target:
    if name == "chunk":
        return lambda path: Kept(path.parent).load(path.name)
    if name == "view":
        return lambda path: read_mapped(path, VIEW)

    def resumed(path: Path) -> object:
        alone = path.parent / "unfinished"
        alone.mkdir(exist_ok=True)
        (alone / f"step-000000001-{'0' * 16}.safetensors").write_bytes(path.read_bytes())
        return Checkpoints(alone, 0.0, Listener()).read()

    return resumed
