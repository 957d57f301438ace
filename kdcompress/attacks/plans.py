"""What an `--attack` runs: stages in order, each on the images that the ones before left standing.

A stage's cost is in forwards an image (a backward counts two), a guess that serves the time left and nothing else.

Screening keeps both of AutoAttack's white-box losses and cuts what they cost: 20 steps, the 3 nearest targets. Of 100
images each, those that stand it and fall to standard AutoAttack, and its time over AutoAttack's (one thread of a shared
two-core Xeon, 2026-11-23; `examples/benchmarks/attacks.py`; with two more rows in its README):

| attack  | digits student, Linf .15 (.62 stand) | CIFAR-10 ResNet-4B, Linf 2/255 (.56 stand) |
|---------|--------------------------------------|--------------------------------------------|
| apgd    | 0, .283                              | 0, .153                                    |
| screen  | 1, .025                              | 0, .015                                    |
| pgd-100 | 8, .039                              | 2, .019                                    |
| pgd-20  | 8, .009                              | 2, .004                                    |
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from kdcompress.attacks.autoattack import DRAWS, Attack, Version, answers, attack_name, attacks_of
from kdcompress.attacks.pgd import pgd
from kdcompress.maths.randomness import generator
from kdcompress.threat import Norm, ThreatModel

Found = tuple[Tensor, tuple[str, ...]]
Run = Callable[[nn.Module, Tensor, Tensor, ThreatModel, int], Found]
"""(model, inputs, labels, threat, seed) -> adversarial inputs, unchanged or not where the attack failed; warnings."""

SCREEN_STEPS, SCREEN_TARGETS = 20, 3
QUERIES = 5000


@dataclass(frozen=True)
class Stage:
    """One attack.

    Attributes:
        white_box: it follows gradients.
        on: those of the surrogate of this number, in place of the network's; verdicts are always the network's.
    """

    name: str
    run: Run
    cost: float
    white_box: bool = True
    on: int | None = None


@dataclass(frozen=True)
class Plan:
    """Stages with the name that the report gives them together.

    Attributes:
        draws: forwards whose mean probabilities are the network's prediction: 1 but for randomised networks.
    """

    name: str
    stages: tuple[Stage, ...]
    draws: int = 1

    @property
    def title(self) -> str:
        """The name without what it consists of."""
        return re.split(r"[:(]", self.name)[0].strip()


def plan_of(attack: str, *, classes: int, norm: Norm) -> Plan:
    """The plan of an `--attack` as typed: autoattack(-plus, -rand), apgd, square, screen or pgd-N."""
    if found := re.fullmatch(r"pgd-(\d+)", attack):
        steps = int(found[1])
        return Plan(f"PGD-{steps}", (Stage(attack, partial(_pgd, steps), 3 * (steps + 1)),))
    if attack == "square":
        return Plan(f"Square, {QUERIES} queries", (_stage("square", "standard", classes, norm),))
    if attack == "apgd":
        stages = tuple(_stage(name, "standard", classes, norm) for name in _white_box_pair(classes))
        return Plan(" and ".join(stage.name.upper() for stage in stages), stages)
    if attack == "screen":
        return _screening(classes, norm)
    version: Version = "plus" if attack.endswith("-plus") else "rand" if attack.endswith("-rand") else "standard"
    stages = tuple(_stage(name, version, classes, norm) for name in attacks_of(version, classes))
    if version != "rand":
        return Plan(attack_name(version, classes), stages)
    return Plan(f"{attack_name(version, classes)}, predictions by the mean of {DRAWS} draws", stages, DRAWS)


def without_gradients(plan: Plan, surrogates: Sequence[str]) -> Plan:
    """For a network that gives no gradients: the plan's white-box stages on each surrogate, then Square on itself.

    Args:
        surrogates: what the report calls them, in their order.
    """
    black = tuple(stage for stage in plan.stages if not stage.white_box) or (_square(),)
    if not surrogates:
        return Plan(f"no gradients, so in place of {plan.title}: {_names(black)}", black, plan.draws)
    transferred: tuple[Stage, ...] = ()
    for number in range(len(surrogates)):
        called = _called(number, surrogates)
        white = [replace(stage, name=f"{stage.name} on {called}") for stage in plan.stages if stage.white_box]
        transferred += tuple(replace(stage, on=number) for stage in (*white, _transfer(called)))
    name = (
        f"no gradients, so in place of {plan.title}: {_names(transferred)} ({_told(surrogates)}), then {_names(black)}"
    )
    return Plan(name, transferred + black, plan.draws)


def with_surrogates(plan: Plan, surrogates: Sequence[str]) -> Plan:
    """The plan, and after it what is found on the surrogates."""
    more = tuple(replace(_transfer(_called(at, surrogates)), on=at) for at in range(len(surrogates)))
    return Plan(f"{plan.name}, then {_names(more)} ({_told(surrogates)})", (*plan.stages, *more), plan.draws)


def _transfer(called: str) -> Stage:
    """The points of largest loss on the surrogate: the package's answers stop at its boundary, and transfer less."""
    return Stage(f"pgd-100 on {called}", partial(_pgd, 100), 303)


def _called(number: int, surrogates: Sequence[str]) -> str:
    return "surrogate" if len(surrogates) == 1 else f"surrogate {number + 1}"


def _told(surrogates: Sequence[str]) -> str:
    return surrogates[0] if len(surrogates) == 1 else "; ".join(f"{at}: {one}" for at, one in enumerate(surrogates, 1))


def _names(stages: tuple[Stage, ...]) -> str:
    return ", ".join(stage.name for stage in stages)


def _screening(classes: int, norm: Norm) -> Plan:
    few = {"steps": SCREEN_STEPS, "most_targets": SCREEN_TARGETS}
    stages = tuple(_stage(name, "standard", classes, norm, **few) for name in _white_box_pair(classes))
    names = _names(stages)
    targets = f", {min(SCREEN_TARGETS, classes - 1)} targets" if classes >= 4 else ""
    return Plan(f"screening (not AutoAttack): {names}, {SCREEN_STEPS} steps{targets}", stages)


def _white_box_pair(classes: int) -> tuple[Attack, ...]:
    return tuple(name for name in attacks_of("standard", classes) if name.startswith("apgd"))


def _square() -> Stage:
    return _stage("square", "standard", 2, "Linf")


def _stage(name: Attack, version: Version, classes: int, norm: Norm, **few: int) -> Stage:
    def run(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> Found:
        return answers(name, model, x, y, threat, classes=classes, seed=seed, version=version, **few)

    return Stage(name, run, _cost(name, version, classes, norm, **few), white_box=name != "square")


def _cost(
    name: Attack, version: Version, classes: int, norm: Norm, *, steps: int = 100, most_targets: int | None = None
) -> float:
    if name == "square":
        return QUERIES
    many = version == "plus" or (version == "standard" and norm == "L1")
    if name == "fab":  # a gradient for each class
        return steps * 5 * (1 + 2 * classes)
    if name in ("apgd-t", "fab-t"):
        fewer = name == "apgd-t" and norm == "L1" and version == "standard"
        return 3 * steps * min(classes - 1, most_targets or (5 if fewer else 9))
    return 3 * steps * (5 if many else 1) * (DRAWS if version == "rand" else 1)


def _pgd(steps: int, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> Found:
    return pgd(model, x, y, threat, steps=steps, generator=generator(seed, "pgd")), ()
