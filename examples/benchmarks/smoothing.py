"""What certifying by randomized smoothing costs: fixed n, the sequential test and adaptive n on the same draws.

    python examples/benchmarks/smoothing.py student.safetensors --data digits --sigma 0.5 --images 100 --votes votes/

Every image's n0 + n votes are made once and kept; then each method reads the same stream and stops where it would have
stopped, so that they differ by nothing but what they ask for. Images come from the test split's seeded shuffle.

Then the packing: the sequential test on a few images, draws of several images in one forward, beside one image after
the other.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from kdcompress import load_data, load_model
from kdcompress.data import Split
from kdcompress.devices import device_name, resolve_device
from kdcompress.evaluation.kept import key_of
from kdcompress.evaluation.smoothing.certified import smoothing
from kdcompress.evaluation.smoothing.kept import KeptVotes
from kdcompress.evaluation.smoothing.procedures import sequential
from kdcompress.evaluation.smoothing.votes import Noise, ask
from kdcompress.maths.sequential_radius import radius_test
from kdcompress.report import Smoothing
from kdcompress.settings import EvaluationSettings

Row = tuple[str, Smoothing]


def told(rows: list[Row], radii: list[float], images: int) -> None:
    whole = rows[0][1]
    assert whole.draws is not None
    print(f"| | draws an image | fewer | average radius | {' | '.join(f'{r:g}' for r in radii)} | abstained |")
    print("|" + "---|" * (len(radii) + 5))
    for name, found in rows:
        assert found.draws is not None and found.average_radius is not None
        at = {point.radius: f"{point.value:.3f}" for point in found.at}
        curve = " | ".join(at.get(radius, "") for radius in radii)
        average = f"{found.average_radius:.4f}" if found.method != "sequential" else ""
        spent = f"{found.draws / images:,.0f} | {whole.draws / found.draws:.1f}x"
        print(f"| {name} | {spent} | {average} | {curve} | {found.abstained} |")


def packing(model: nn.Module, images: Split, settings: EvaluationSettings, device: torch.device) -> None:
    radii = [settings.sigma / 2 * step for step in range(7)]
    test = radius_test(radii, sigma=settings.sigma, n=settings.n, alpha=settings.alpha)
    noise = Noise(settings.sigma, settings.seed)

    def seconds(parts: list[Split]) -> float:
        started = time.perf_counter()
        for part in parts:
            ask(
                model,
                part,
                noise,
                lambda number, part=part: sequential(int(part.labels[number]), test, test, n0=settings.n0),
                batch_size=settings.forward_size,
                device=device,
            )
        return time.perf_counter() - started

    alone = seconds([images.subset([number]) for number in range(len(images))])
    packed = seconds([images])
    print(
        f"packing, {len(images)} images, {settings.forward_size} draws a forward: {packed:.1f} s, one image after the "
        f"other {alone:.1f} s ({alone / packed:.2f}x)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--split", choices=("test", "holdout"), default="test")
    parser.add_argument("--votes", type=Path, help="where votes are kept; default: nowhere after the run")
    options = parser.parse_args()
    device = resolve_device(options.device)
    data = load_data(options.data, splits=["test" if options.split == "test" else "train"])
    split = data.test if options.split == "test" else data.holdout
    assert split is not None
    images = split.shuffled(options.images, options.seed)
    loaded = load_model(options.model, classes=data.classes, input_size=data.input_size)
    model = loaded.model.to(device)
    sigma, n, alpha = options.sigma, options.n, options.alpha
    base = EvaluationSettings(sigma=sigma, n=n, alpha=alpha, seed=options.seed, batch_size=options.batch_size)
    print(f"{options.model}, sigma {sigma:g}, {len(images)} images, alpha {alpha:g}, {device_name(device)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.votes or Path(scratch)

        def run(method: str, **changes: object) -> Smoothing:
            return smoothing(
                model,
                images,
                base.model_copy(update={"smoothing": method} | changes),
                device=device,
                kept=lambda noise: KeptVotes(folder / key_of({"of": [loaded.sha256, noise.sigma, noise.seed]}), model),
            )

        started = time.perf_counter()
        rows = [(f"fixed, n = {n:,}", run("fixed"))]
        print(f"votes of all draws: {time.perf_counter() - started:.0f} s", flush=True)
        rows += [
            ("sequential", run("sequential")),
            ("adaptive", run("adaptive")),
            (f"fixed, n = {n // 10:,}", run("fixed", n=n // 10)),
            (f"fixed, n = {n // 3:,}", run("fixed", n=n // 3)),
            ("fixed, n = 1,000", run("fixed", n=1000)),
            ("sequential, n = 1,000", run("sequential", n=1000)),
            ("sequential, n = 10,000", run("sequential", n=10_000)),
        ]
        told(rows, [sigma / 2 * step for step in range(8)], len(images))
        for cause in rows[0][1].reasons:
            print(f"abstained from with n = {n:,}: {cause.images} images, {cause.reason}: {cause.finding}")
    packing(model, images.subset(range(min(20, len(images)))), base, device)


if __name__ == "__main__":
    main()
