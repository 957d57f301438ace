"""Has this teacher any robustness to hand on? Asked before a GPU-day is spent on it.

Measured with PGD-20 on CIFAR-10 training images, 300 for the robust network, 100 for the other (2026-11-22, CPU):

| network                                        | Linf eps | clean | PGD-20 | share kept | remainder |
|------------------------------------------------|----------|-------|--------|------------|-----------|
| ResNet-4B, adversarially trained at 2/255      | 1/255    | .813  | .723   | .89        | .121      |
|                                                | 2/255    | .813  | .633   | .78        | .218      |
|                                                | 4/255    | .813  | .497   | .61        | .383      |
|                                                | 8/255    | .813  | .190   | .23        | .600      |
| ResNet-18 of the attack package, not robust    | 1/255    | .930  | .120   | .13        | .846      |
|                                                | 2/255    | .930  | .000   | .00        | .902      |
|                                                | 8/255    | .930  | .000   | .00        | .950      |

A quarter of the clean accuracy parts the two at every eps the teacher was made for. A remainder of .2, a tempting
threshold since large robust networks are reported at .01 to .02, would refuse the published small one at its own eps;
.4 lets it pass wherever it keeps more than half of its accuracy, and stops the other everywhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcompress.attacks.pgd import pgd
from kdcompress.data import Split
from kdcompress.errors import TeacherError
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.linearity import first_order_remainder
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.randomness import generator
from kdcompress.settings import TeacherCheckSettings
from kdcompress.threat import ThreatModel

PGD_STEPS = 20
BATCH = 100


@dataclass(frozen=True)
class TeacherCheck:
    """What the check measured on training images.

    Attributes:
        remainder: share of the loss's change at PGD-20's perturbation that the gradient misses.
        problems: why this teacher should not be distilled, one sentence each; empty where it may be.
    """

    clean_accuracy: float
    pgd_accuracy: float
    remainder: float
    images: int
    problems: tuple[str, ...]


def check_teacher(
    teacher: nn.Module,
    images: Split,
    threat: ThreatModel,
    settings: TeacherCheckSettings,
    *,
    seed: int,
    device: torch.device,
) -> TeacherCheck:
    """Clean accuracy, PGD-20 accuracy and the first-order remainder at the asked eps.

    Args:
        teacher: eval mode, frozen.
        images: from the training split.

    Raises:
        TeacherError: if the outputs are probabilities instead of logits: every loss would be wrong.
    """
    rng = generator(seed, "teacher check")
    clean, kept, losses, losses_adv, foretold = [], [], [], [], []
    for x, y in images.batches(BATCH, device=device):
        f, g = logits_and_input_gradient(teacher, x, y, create_graph=False)
        if are_probabilities(f):
            raise TeacherError(
                "the teacher's outputs must be logits, but every row is in [0, 1] and sums to 1: probabilities; "
                "remove its softmax (a --teacher-arch file.py:function may return the network without it)"
            )
        x_adv = pgd(teacher, x, y, threat, steps=PGD_STEPS, generator=rng)
        with torch.no_grad():
            f_adv = teacher(x_adv)
        clean.append(f.argmax(1) == y)
        kept.append(clean[-1] & (f_adv.argmax(1) == y))
        losses.append(cross_entropy(f, y))
        losses_adv.append(cross_entropy(f_adv, y))
        foretold.append((g * (x_adv - x)).flatten(1).sum(1, keepdim=True))
    # A ratio of means over all images, so not over batches; each image's d.g stands for d and g.
    slopes = torch.cat(foretold)
    remainder = float(first_order_remainder(torch.cat(losses), torch.cat(losses_adv), slopes, torch.ones_like(slopes)))
    accuracy, pgd_accuracy = _mean(clean), _mean(kept)
    chance = 1 / f.shape[1]
    problems = []
    if accuracy < 1.5 * chance:
        problems.append(
            f"its clean accuracy {accuracy:.3f} is no better than chance: is its normalisation right, and is its class "
            "order the data's?"
        )
    elif pgd_accuracy < settings.min_pgd_share * accuracy:
        problems.append(
            f"it keeps {pgd_accuracy:.3f} of a clean accuracy of {accuracy:.3f} under PGD-{PGD_STEPS} at {threat}; "
            f"a teacher should keep at least {settings.min_pgd_share:g} of it"
        )
    if remainder > settings.max_remainder:
        problems.append(
            f"its loss is not linear in the ball: the gradient misses {remainder:.3f} of the change; "
            f"expected at most {settings.max_remainder:g}"
        )
    return TeacherCheck(accuracy, pgd_accuracy, remainder, len(images), tuple(problems))


def are_probabilities(outputs: Tensor) -> bool:
    """Whether every row of (B, K) lies in [0, 1] and sums to 1."""
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    return inside and bool(((outputs.sum(1) - 1).abs() < 1e-4).all())


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).float().mean())
