"""What an attack costs, and what the faster ones miss, on one network.

    python examples/benchmarks/attacks.py student.safetensors --data digits --eps 0.15 --images 100
    python examples/benchmarks/attacks.py resnet4b.pth --arch examples/cifar10/resnet4b.py:resnet4b \
        --mean 0.4914,0.4822,0.4465 --std 0.2471,0.2435,0.2616 --data cifar10/ --eps 2/255 --images 100 --device cuda

First standard AutoAttack as `kdcompress evaluate` runs it, beside the package called as its users call it (its own
batch size, 250) and beside the package called once for each of our chunks, whose verdicts ours must equal. Then every
faster attack, on the same images and chunks: robust accuracy, images that it leaves standing and AutoAttack breaks, and
time over AutoAttack's. Images come from the test split's seeded shuffle.
"""

import argparse
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import pyautoattack
import torch
from torch import Tensor, nn

from kdcompress import load_data, load_model
from kdcompress.attacks.plans import plan_of
from kdcompress.cli.options import statistics
from kdcompress.data import Split
from kdcompress.devices import device_name, resolve_device
from kdcompress.evaluation.attacking import Conditions, under_attack
from kdcompress.evaluation.measure import chunk_of
from kdcompress.settings import EvaluationSettings
from kdcompress.threat import Norm, ThreatModel, parse_eps

T = TypeVar("T")
FASTER = ("apgd", "screen", "pgd-100", "pgd-50", "pgd-20", "square")


def ours(model: nn.Module, images: Split, attack: str, threat: ThreatModel, classes: int, how: Conditions) -> Tensor:
    """Which images stand the attack, as an evaluation finds them."""
    plan = plan_of(attack, classes=classes, norm=threat.norm)
    conditions = Conditions(plan, threat.norm, (threat.eps,), how.seed, how.chunk, how.batch_size, how.device)
    return under_attack(model, images, conditions).stood(threat.eps)


def packages(
    model: nn.Module, images: Split, threat: ThreatModel, device: torch.device, *, seed: int, chunk: int, batch: int
) -> Tensor:
    """Which images stand the package's own run, called once for every `chunk` images with a batch size of `batch`."""
    stood = []
    for number, (x, y) in enumerate(images.batches(chunk, device=device)):
        package = pyautoattack.AutoAttack(model, norm=threat.norm, eps=threat.eps, seed=seed + number, device=device)
        answers, _ = package.run_standard_evaluation(x, y, batch_size=batch)
        with torch.no_grad():
            parts = zip(torch.split(answers, batch), torch.split(y, batch), strict=True)
            stood += [(model(part).argmax(1) == labels).cpu() for part, labels in parts]
    return torch.cat(stood)


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """The outcome and its seconds; on a CPU the processor's, which other people's work does not lengthen."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = clock()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return found, clock() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--arch")
    parser.add_argument("--mean")
    parser.add_argument("--std")
    parser.add_argument("--data", required=True)
    parser.add_argument("--eps", required=True)
    parser.add_argument("--norm", default="Linf")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--chunk", type=int)
    parser.add_argument("--repeats", type=int, default=1, help="runs of standard AutoAttack by turns; medians count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", default="", help="faster attacks whose name contains this; `none` for none")
    options = parser.parse_args()
    norm: Norm = options.norm
    threat, device = ThreatModel(norm, parse_eps(options.eps)), resolve_device(options.device)
    logging.getLogger("auto-attack").setLevel(logging.CRITICAL)
    data = load_data(options.data, splits=["test"])
    assert data.test is not None
    images, classes = data.test.shuffled(options.images, options.seed), len(data.classes)
    mean, std = statistics(options.mean, "--mean"), statistics(options.std, "--std")
    loaded = load_model(
        options.model, arch=options.arch, mean=mean, std=std, classes=data.classes, input_size=data.input_size
    )
    model = loaded.model.to(device)
    settings = EvaluationSettings(chunk=options.chunk)
    chunk = chunk_of(settings, torch.Size(data.input_size).numel(), device, stops=False)
    how = Conditions(plan_of("autoattack", classes=classes, norm=norm), norm, (), options.seed, chunk, chunk, device)
    print(f"{options.model.name}, {threat}, {len(images)} images, chunk {chunk}, {device_name(device)}", flush=True)

    standard = partial(ours, model, images, "autoattack", threat, classes, how)
    package = partial(packages, model, images, threat, device, seed=options.seed)
    runs = {
        "kdcompress, standard": standard,
        "the package, a call for each chunk": partial(package, chunk=chunk, batch=chunk),
        "the package, its default call": partial(package, chunk=len(images), batch=250),
    }
    # A network is slower the first time it is called.
    ours(model, images.subset(range(2)), "pgd-3", threat, classes, how)
    repeats = [{name: timed(run, device) for name, run in runs.items()} for _ in range(options.repeats)]
    whole, seconds = repeats[0]["kdcompress, standard"][0], median(once["kdcompress, standard"][1] for once in repeats)
    print("| | robust | seconds | over ours | verdicts |\n|---|---|---|---|---|")
    for name in runs:
        found, took = repeats[0][name][0], median(once[name][1] for once in repeats)
        ratio = median(once[name][1] / once["kdcompress, standard"][1] for once in repeats)
        same = "equal" if torch.equal(found, whole) else f"{int((found != whole).sum())} differ"
        print(f"| {name} | {found.double().mean():.4f} | {took:.0f} | {ratio:.2f} | {same} |", flush=True)

    print("| attack | robust | missed | time over standard's |\n|---|---|---|---|", flush=True)
    for attack in (name for name in FASTER if options.only in name):
        found, took = timed(partial(ours, model, images, attack, threat, classes, how), device)
        missed = int((found & ~whole).sum())
        print(f"| {attack} | {found.double().mean():.4f} | {missed} | {took / seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
