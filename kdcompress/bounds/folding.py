"""Fewer steps for the same function: BatchNorm and other scales go into the layer before, unused steps go."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from kdcompress.bounds.steps import Convolution, Dense, Relu, Scale, Step


def folded(steps: Sequence[Step], output: int) -> tuple[Step, ...]:
    """The steps that value `output` needs, renumbered, with scales and repeated ReLUs folded; `output` is the last."""
    stands_for: dict[int, int] = {0: 0}  # old number -> new
    kept: list[Step] = []
    needed = _needed(steps, output)
    uses = Counter(i for number in needed for i in steps[number - 1].inputs)
    for number in needed:
        step = steps[number - 1]
        inputs = tuple(stands_for[i] for i in step.inputs)
        step = replace(step, inputs=inputs)
        before = kept[inputs[0] - 1] if inputs[0] else None
        merged = _merged(before, step) if uses[steps[number - 1].inputs[0]] == 1 else None
        if isinstance(step, Relu) and isinstance(before, Relu):
            stands_for[number] = inputs[0]
        elif merged is not None:
            kept[inputs[0] - 1] = merged
            stands_for[number] = inputs[0]
        else:
            kept.append(step)
            stands_for[number] = len(kept)
    return tuple(kept)


def _needed(steps: Sequence[Step], output: int) -> list[int]:
    found, rest = set[int](), [output]
    while rest:
        number = rest.pop()
        if number and number not in found:
            found.add(number)
            rest.extend(steps[number - 1].inputs)
    return sorted(found)


def _merged(before: Step | None, step: Step) -> Step | None:
    """One step for both, where `step` scales what `before` gives."""
    if not isinstance(step, Scale):
        return None
    if isinstance(before, Scale):
        return replace(before, a=before.a * step.a, b=step.a * before.b + step.b)
    if not isinstance(before, Convolution | Dense):
        return None
    axis = 1 if isinstance(before, Convolution) else len(step.shape)
    a, b = _along(step.a, axis, step), _along(step.b, axis, step)
    if a is None or b is None:
        return None
    weight = before.weight * a.view(-1, *[1] * (before.weight.dim() - 1))
    return replace(before, weight=weight, bias=b if before.bias is None else before.bias * a + b)


def _along(c: Tensor, axis: int, step: Scale) -> Tensor | None:
    """A constant that varies along one axis alone, as a vector; None where it varies along others."""
    full = c.view(*[1] * (len(step.shape) + 1 - c.dim()), *c.shape)
    if any(width != 1 for dim, width in enumerate(full.shape) if dim != axis):
        return None
    return full.reshape(-1).expand(step.shape[axis - 1])
