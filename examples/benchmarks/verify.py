"""Sound bounds of one network: against reference bounds of another program, and verified accuracy on a sample.

    python examples/benchmarks/verify.py resnet4b.pth --arch examples/cifar10/resnet4b.py:resnet4b \
        --mean 0.4914,0.4822,0.4465 --std 0.2471,0.2435,0.2616 --data cifar10/ --eps 1/255,2/255 --images 400 \
        --reference crown-reference-resnet4b.csv --published 0.2328
    python examples/benchmarks/verify.py student.safetensors --data digits --eps 0.01,0.03 --largest

The reference is a CSV with the columns image (as `airplane/0000.jpg` in the test split), label, linf_eps_times_255, and
crown_margin_lower_bounds_other_classes_ascending, numbers with a space between. A bound agrees if it is the printed
number to 1e-3 and to half a unit of its last digit; above it, it is tighter, and must not exceed what PGD finds.
Images for verified accuracy come from the test split's seeded shuffle.
"""

import argparse
import csv
import resource
import time
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from kdcompress import load_data, load_model
from kdcompress.attacks.pgd import pgd
from kdcompress.bounds.verify import bounded, margin_bounds
from kdcompress.cli.options import statistics
from kdcompress.data import Split
from kdcompress.devices import device_name
from kdcompress.evaluation.verified import prepared, verified
from kdcompress.maths.randomness import generator
from kdcompress.report import Verified
from kdcompress.threat import Norm, ThreatModel, parse_eps, render_eps

CPU = torch.device("cpu")


def half_a_unit(number: str) -> float:
    """Of the last digit: .005 for 12.34."""
    return 0.5 * 10.0 ** -len(number.partition(".")[2])


def against(reference: Path, model: nn.Module, images: Split) -> None:
    """One line for each eps of the reference."""
    rows = [row for row in csv.DictReader(reference.open()) if row["crown_margin_lower_bounds_other_classes_ascending"]]
    place = {name: i for i, name in enumerate(images.ids)}
    x, _ = next(images.batches(1))
    subject = bounded(model, tuple(x.shape[1:]))
    print("| eps | margins | agree or tighter | furthest below | furthest above | PGD below | seconds an image |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for steps in sorted({int(row["linf_eps_times_255"]) for row in rows}):
        differences, agree, crossed, seconds = [], 0, 0, []
        for row in (row for row in rows if int(row["linf_eps_times_255"]) == steps):
            x, y = next(images.subset([place[row["image"]]]).batches(1))
            started = time.process_time()
            found = margin_bounds(subject, x, y, "Linf", steps / 255)[0].tolist()
            seconds.append(time.process_time() - started)
            printed = row["crown_margin_lower_bounds_other_classes_ascending"].split()
            for bound, number in zip(found, printed, strict=True):
                differences.append(bound - float(number))
                agree += bound - float(number) >= -(1e-3 + half_a_unit(number))
            draws = generator(0, row["image"])
            attacked = pgd(model, x, y, ThreatModel("Linf", steps / 255), steps=50, generator=draws)
            with torch.no_grad():
                logits = model(attacked).double()[0]
            others = [k for k in range(len(logits)) if k != int(y)]
            crossed += sum(float(logits[y] - logits[k]) < b for k, b in zip(others, found, strict=True))
        ends = f"{min(differences):.5f} | {max(differences):.5f}"
        print(f"| {steps}/255 | {len(differences)} | {agree} | {ends} | {crossed} | {mean(seconds):.2f} |", flush=True)


def table(found: Verified, clean: float, published: float | None) -> None:
    print("| eps | clean | verified | 95% interval | broken by attack | open | seconds an image |")
    print("|---|---|---|---|---|---|---|")
    for at in found.at:
        broken = f"{at.broken / at.n:.3f} ({found.attack})"
        print(
            f"| {render_eps(at.eps)} | {clean:.3f} | {at.value:.4f} | {at.low:.4f} to {at.high:.4f} | {broken} "
            f"| {at.open / at.n:.3f} | {found.seconds / found.n:.2f} |"
        )
    if published is not None:
        at = found.at[0]
        print(f"published at the first eps: {published:.4f}, inside the interval: {at.low <= published <= at.high}")
    if found.largest:
        print(f"largest certified eps, median {found.median:.5f}, at most {max(found.largest):.5f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--arch")
    parser.add_argument("--mean")
    parser.add_argument("--std")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eps", required=True, help="one, or several with commas")
    parser.add_argument("--norm", default="Linf")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", action="store_true", help="the largest certified eps of each image too")
    parser.add_argument("--memory", type=int, help="MiB that bounds may take")
    parser.add_argument("--keep-dir", type=Path, help="finished images are kept there")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--published", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    norm: Norm = options.norm
    data = load_data(options.data, splits=["test"])
    assert data.test is not None
    model = load_model(
        options.model,
        arch=options.arch,
        mean=statistics(options.mean, "--mean"),
        std=statistics(options.std, "--std"),
        classes=data.classes,
        input_size=data.input_size,
    ).model
    print(f"{options.model.name}, {device_name(CPU)}, {time.strftime('%Y-%m-%d')}", flush=True)
    if options.reference is not None:
        against(options.reference, model, data.test)
    images = data.test.shuffled(options.images, options.seed)
    with torch.no_grad():
        clean = mean(float((model(x).argmax(1) == y).sum()) for x, y in images.batches(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = None if options.memory is None else options.memory << 20
    found = verified(
        prepared(model, data.input_size, memory=memory),
        images,
        norm,
        [parse_eps(text) for text in options.eps.split(",")],
        device=CPU,
        largest=options.largest,
        folder=options.keep_dir,
        seed=options.seed,
    )
    print(found.unsupported or f"{norm}, {len(images)} images")
    if found.unsupported is None:
        table(found, clean, options.published)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of the process {after / 1024:.0f} MiB, {(after - before) / 1024:.0f} more than before bounds")


if __name__ == "__main__":
    main()
