"""A step counted on shapes: what the allocator and the formulas say of the same step with numbers."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdcompress.engine import exact
from kdcompress.models.students import create_student
from kdcompress.progress import Listener
from kdcompress.settings import LossSettings, RunSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.backward import Backward
from kdcompress.training.dry_run import dry_run
from kdcompress.training.recipes import Recipe, distillation
from kdcompress.training.recipes.passes import passes
from kdcompress.training.schedules import optimizer_of

SIDE = 32
RECIPES = ("kd", "kdiga", "kdiga-noise", "kdiga-adv", "ard", "rslad", "iad", "adaad", "igdm")


def network(arch: str = "resnet18", **args: object) -> nn.Module:
    names = tuple("0123456789")
    size = (3, SIDE, SIDE)
    return create_student(
        arch, args, classes=names, input_size=size, total_stride=None, mean=(0.5,) * 3, std=(0.2,) * 3
    )[0]


def composed(loss: LossSettings, teacher: nn.Module) -> Recipe:
    weight = 1.0 if loss.iga_weight == "auto" else loss.iga_weight
    return distillation(teacher, loss, ThreatModel("Linf", 0.1), iga_weight=weight, seed=0, align=exact(2), classes=10)


@pytest.mark.parametrize(
    ("arch", "recipe", "micro_batch"),
    [("resnet18", "kdiga-noise", None), ("resnet18", "kdiga-noise", 4), ("convnext_atto", "rslad", None)],
)
def test_the_memory_is_what_the_allocator_gives(arch: str, recipe: str, micro_batch: int | None) -> None:
    # Wide layers would have their weights copied into another order for a few images, which is a CPU's own way.
    small = {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 64]}
    teacher = network("resnet18", **small).eval().requires_grad_(False)
    student = network(arch, **(small if arch == "resnet18" else {"depths": [1, 1, 1, 1], "dims": [16, 32, 64, 64]}))
    loss, run = LossSettings(recipe=recipe), RunSettings()
    counted = dry_run(
        student, teacher, lambda f: composed(loss, f), (3, SIDE, SIDE), run, batch_size=16, micro_batch=micro_batch
    )
    real = copy.deepcopy(student).to(memory_format=torch.channels_last).train()
    updates, kept = optimizer_of(real.parameters(), run), composed(loss, teacher.to(memory_format=torch.channels_last))
    backward = Backward(real, kept, "float32", Listener(), micro_batch)

    def step() -> None:
        updates.zero_grad()
        x = torch.rand(16, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
        backward((x, torch.zeros(16, dtype=torch.int64)), dict(kept.weights(1, 1)))
        updates.step()

    step()
    updates.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    held = most = 0
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    # 6% was the most that was seen: a CPU's libraries take room of their own, which shapes do not tell.
    assert counted.peak == pytest.approx(most, rel=0.1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_arithmetic_is_what_the_passes_say(recipe: str) -> None:
    loss, size = LossSettings(recipe=recipe), (3, SIDE, SIDE)
    teacher, student = network(layers=[1, 1, 1, 1]), network(layers=[1, 1, 1, 1])
    how = {"batch_size": 4}
    counted = dry_run(student, teacher, lambda f: composed(loss, f), size, RunSettings(), **how)
    kd = dry_run(student, teacher, lambda f: composed(LossSettings(recipe="kd"), f), size, RunSettings(), **how)
    wanted = passes(loss, 1.0 if loss.iga_weight == "auto" else 0.0).in_forwards(1.0) / 4
    assert counted.flops / kd.flops == pytest.approx(wanted, rel=0.02)  # the first layer's input asks for no gradient


def test_networks_are_left_as_they_are_and_shared_weights_stay_shared() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.second = nn.Linear(12, 12)
            self.last = nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.second(self.first(x.flatten(1)).relu()).relu())  # type: ignore[no-any-return]

    student = Twice()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    loss = LossSettings(recipe="kd")
    one = dry_run(student, Twice(), lambda f: composed(loss, f), (3, 2, 2), RunSettings(), batch_size=1)
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())
    weights = sum(weight.nbytes for weight in student.parameters())
    assert weights <= one.peak < 6 * weights


def test_bf16_takes_less_than_float32() -> None:
    loss, size = LossSettings(), (3, SIDE, SIDE)
    peaks = [
        dry_run(
            network(layers=[1, 1, 1, 1], channels=[16, 32, 32, 32]),
            network(layers=[1, 1, 1, 1]),
            lambda f: composed(loss, f),
            size,
            RunSettings(precision=precision),
            batch_size=32,
        ).peak
        for precision in ("float32", "bf16")
    ]
    assert peaks[1] < 0.8 * peaks[0]
