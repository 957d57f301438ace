"""The counter-example of (24) and (25): same outputs on the data, different ones in the ball."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.accuracy import rate
from kdcompress.evaluation.audit.chunks import Found, over_chunks
from kdcompress.evaluation.audit.numbers import rounded
from kdcompress.evaluation.audit.points import Pair
from kdcompress.evaluation.audit.radius import ascent_name, broken_points, searched_at_once
from kdcompress.maths.jacobian import relative_residual
from kdcompress.report import CounterExamples
from kdcompress.settings import AuditSettings
from kdcompress.threat import ThreatModel

SHOWN = 8


@dataclass(frozen=True, eq=False)
class Shown:
    """The counter-examples with their pictures, most alike first: G of them.

    Attributes:
        record: all that is counted.
        inputs: x, (G, C, H, W). moved: x~, of the same shape, in the ball around x and in [0,1].
        labels, student: (G,), the label, which is what the teacher sees in x and x~, and what the student sees in x~.
    """

    record: CounterExamples
    inputs: Tensor
    moved: Tensor
    labels: Tensor
    student: Tensor


def counter_examples(
    student: nn.Module,
    teacher: nn.Module,
    images: Split,
    threat: ThreatModel,
    settings: AuditSettings,
    *,
    names: Sequence[str],
    device: torch.device,
    memory: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Shown:
    """Images that both see rightly and alike, where the teacher stands the attack and the student does not.

    Alike: the centred logits' relative difference is at most `settings.agreement`. The teacher stands: its own attack
    fails, and it sees the student's x~ rightly too.

    Guarantees:
        Each x~ is in the ball and in [0,1]; the student sees another class in it than in x, the teacher does not.
        Nothing is found where student is teacher.

    Args:
        names: of the classes.
        memory: bytes that may be taken; None for a share of what is free.
    """
    pair = Pair.of(student, teacher, settings.batch_size)
    found = over_chunks(
        "counter-examples",
        lambda x, y, of_images: _tried(student, teacher, x, y, of_images, threat, settings),
        images,
        networks=(student, teacher),
        size=searched_at_once(pair, images, settings, memory, device),
        device=device,
        on_progress=on_progress,
    )
    difference, broken, labels = found["difference"], found["student_broken"], found["label"]
    agreed = (difference <= settings.agreement) & found["right"] & ~found["teacher_broken"]
    chosen = (agreed & broken).nonzero()[:, 0]
    chosen = chosen[difference[chosen].argsort(stable=True)]
    record = CounterExamples(
        norm=threat.norm,
        eps=threat.eps,
        n=len(labels),
        attack=ascent_name(settings),
        agreement=settings.agreement,
        agreed=rate(agreed),
        found=rate(broken[agreed]) if bool(agreed.any()) else None,
        images=tuple(chosen.tolist()),
        difference=rounded(difference[chosen]),
        student=tuple(names[k] for k in found["seen"][chosen].tolist()),
        teacher=tuple(names[k] for k in labels[chosen].tolist()),
    )
    shown = chosen[:SHOWN]
    return Shown(record, found["inputs"][shown], found["moved"][shown], labels[shown], found["seen"][shown])


def _tried(
    student: nn.Module,
    teacher: nn.Module,
    x: Tensor,
    y: Tensor,
    names: Sequence[str],
    threat: ThreatModel,
    settings: AuditSettings,
) -> Found:
    _, teacher_broken = broken_points(teacher, x, y, names, threat, settings, purpose="counter-example")
    moved, student_broken = broken_points(student, x, y, names, threat, settings, purpose="counter-example")
    with torch.no_grad():
        f_s, f_t = student(x), teacher(x)
        seen, seen_by_teacher = student(moved).argmax(1), teacher(moved).argmax(1)
    return {
        "inputs": x,
        "moved": moved,
        "label": y,
        "difference": relative_residual(*(f - f.mean(1, keepdim=True) for f in (f_s, f_t))),
        "right": (f_s.argmax(1) == y) & (f_t.argmax(1) == y),
        "teacher_broken": teacher_broken | (seen_by_teacher != y),
        "student_broken": student_broken & (seen != y),
        "seen": seen,
    }
