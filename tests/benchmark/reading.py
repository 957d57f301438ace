"""Images a second from the disk into a training batch, by where they lie; and what reading them costs in parts.

    python tests/benchmark/reading.py make FOLDER --images 2000     # writes the same JPEGs in every layout
    python tests/benchmark/reading.py read FOLDER --timm

`make` writes photographs' worth of bytes (500 x 375 JPEG of smooth noise, some 60 KB) under FOLDER/tree, FOLDER/shards
and, where `datasets` is installed, FOLDER/parquet. `read` goes through an epoch of each by turns, as training does
(shuffled, centre square to 224 x 224, crop and flip on the device), with nothing in memory, and prints the median.
"""

import argparse
import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from PIL import Image

from kdcompress.data import load_data
from kdcompress.settings import RunSettings
from kdcompress.training.batches import fresh_batches, random_views

SIDE = 224
A_SHARD = 250
CLASSES = 10


def photograph(number: int) -> bytes:
    """A JPEG of noise on many scales, which costs the decoder what a photograph of its size does."""
    draws = np.random.default_rng(number)
    total = np.zeros((375, 500, 3))
    for scale in (4, 16, 64, 250):
        small = Image.fromarray(draws.integers(0, 256, (scale, scale, 3), dtype=np.uint8))
        total += np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.float64)
    file = io.BytesIO()
    Image.fromarray((total / 4).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def make(options: argparse.Namespace) -> None:
    jpegs = [photograph(n) for n in range(options.images)]
    print(f"{len(jpegs)} JPEGs of {sum(map(len, jpegs)) / len(jpegs) / 1e3:.0f} KB")
    for split, chosen in (("train", range(len(jpegs))), ("test", range(2 * CLASSES))):
        for n in chosen:
            path = options.folder / "tree" / split / f"{n % CLASSES}" / f"{n:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpegs[n])
        for start in range(0, len(chosen), A_SHARD):
            path = options.folder / "shards" / f"{split}-{start // A_SHARD:04d}.tar"
            path.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(path, "w") as archive:
                for n in chosen[start : start + A_SHARD]:
                    for suffix, content in (("jpg", jpegs[n]), ("cls", str(n % CLASSES).encode())):
                        info = tarfile.TarInfo(f"{n:06d}.{suffix}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
        try:
            import datasets
        except ImportError:
            continue
        path = options.folder / "parquet" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(CLASSES)})
        rows = {"image": [{"bytes": jpegs[n], "path": None} for n in chosen], "label": [n % CLASSES for n in chosen]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def epoch_of(spec: str, data_dir: Path | None, options: argparse.Namespace) -> Callable[[], int]:
    """An epoch as training reads it; returns how many images came."""
    began = time.perf_counter()
    with mock.patch("kdcompress.data.loading.MEMORY_LIMIT", 0):
        data = load_data(spec, data_dir=data_dir, image_size=SIDE)
    print(f"{spec}: known in {time.perf_counter() - began:.1f} s")
    run = RunSettings(epochs=1, batch_size=options.batch_size)
    batches = fresh_batches(data, run, torch.device(options.device))
    return lambda: sum(len(y) for _, y in batches(1))


def timms(folder: Path, options: argparse.Namespace) -> Callable[[], int]:
    """timm's own loader on the tree, with worker processes: resized and cropped alike, uint8 to the device."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(folder / "tree"), split="train")
    loader = create_loader(
        dataset,
        input_size=(3, SIDE, SIDE),
        batch_size=options.batch_size,
        is_training=False,
        crop_pct=1.0,
        interpolation="bicubic",
        num_workers=options.workers,
        use_prefetcher=False,
    )
    return lambda: sum(len(y) for _, y in loader)


def read(options: argparse.Namespace) -> None:
    ways = {
        "a folder of images": epoch_of(str(options.folder / "tree"), None, options),
        "shards": epoch_of(str(options.folder / "shards"), None, options),
    }
    if (options.folder / "parquet").is_dir():
        ways["Parquet (hfds/)"] = epoch_of("hfds/parquet", options.folder, options)
    if options.timm:
        ways[f"timm's loader, {options.workers} worker processes"] = timms(options.folder, options)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, epoch in ways.items():
            began = time.perf_counter()
            images = epoch()
            found[way].append(images / (time.perf_counter() - began))
    base = median(found["a folder of images"])
    print("| from | images/s | of a folder's |\n|---|---|---|")
    for way, rates in found.items():
        print(f"| {way} | {median(rates):.0f} | {median(rates) / base:.2f} |")
    parts(options)


def parts(options: argparse.Namespace) -> None:
    """Milliseconds an image: decoding, resizing, augmenting, travelling."""
    jpeg = photograph(0)

    def decode() -> Image.Image:
        return Image.open(io.BytesIO(jpeg)).convert("RGB")

    image, B = decode(), options.batch_size
    pixels = torch.randint(0, 256, (B, 3, SIDE, SIDE), dtype=torch.uint8)
    data, run = mock.Mock(flips=True, crop_padding=SIDE // 8), RunSettings(epochs=1)
    device, draws = torch.device(options.device), torch.Generator().manual_seed(0)

    def travel(batch: torch.Tensor) -> torch.Tensor:
        here = batch.to(device).float().div_(255)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return here

    x = travel(pixels)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "decode a 500 x 375 JPEG": (decode, 1),
        "centre square to 224 x 224, bicubic": (lambda: image.resize((SIDE, SIDE), 3, box=(62, 0, 437, 375)), 1),
        "bytes to the device, float there": (lambda: travel(pixels), B),
        "crop and flip on the device": (lambda: random_views(x, data, run, draws), B),
    }
    print("\n| an image's | ms |\n|---|---|")
    for name, (work, images) in works.items():
        seconds = []
        for _ in range(options.rounds * 3):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        print(f"| {name} | {1e3 * median(seconds) / images:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    making, reading = commands.add_parser("make"), commands.add_parser("read")
    making.add_argument("--images", type=int, default=2000)
    reading.add_argument("--batch-size", type=int, default=64)
    reading.add_argument("--rounds", type=int, default=3)
    reading.add_argument("--device", default="cpu")
    reading.add_argument("--workers", type=int, default=2)
    reading.add_argument("--timm", action="store_true", help="timm's own loader beside ours")
    for command, run in ((making, make), (reading, read)):
        command.add_argument("folder", type=Path)
        command.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
