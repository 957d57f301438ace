"""Has this teacher any robustness to hand on? Asked before a GPU-day is spent on it.

Measured on 300 training images (100 for the attack package's network), 2026-11-23, CPU. `kept` is PGD-20 accuracy over
clean accuracy, with the logits as they are and, in brackets, brought to unit spread (see `check_teacher`):

| network                                      | Linf eps | clean | kept      | remainder |       |
|----------------------------------------------|----------|-------|-----------|-----------|-------|
| ResNet-4B, adversarially trained at 2/255    | 1/255    | .813  | .89 (.89) | .121      | goes  |
|                                              | 2/255    | .813  | .77 (.78) | .218      | goes  |
|                                              | 4/255    | .813  | .61 (.61) | .383      | goes  |
|                                              | 8/255    | .813  | .24 (.24) | .598      | stops |
| - logits a hundred times as large            | 2/255    | .813  | .83 (.80) | .359      | goes  |
| ResNet-18 of 276k, trained here at 2/255     | 2/255    | .630  | .85 (.85) | .122      | goes  |
|                                              | 8/255    | .630  | .36 (.36) | .442      | stops |
| ResNet-18 of 61k, KD from ResNet-4B          | 2/255    | .657  | .54 (.54) | .250      | goes  |
|                                              | 4/255    | .657  | .22 (.22) | .439      | stops |
| ResNet-18 of the attack package, not robust  | 1/255    | .930  | .13 (.13) | .846      | stops |
|                                              | 2/255    | .930  | .00 (.00) | .902      | stops |
|                                              | 8/255    | .930  | .00 (.00) | .950      | stops |
| - logits a hundred times as large (50 images)| 2/255    | .940  | .94 (.00) | .769      | stops |
| the digits teacher, trained at .15           | .10      | .990  | .89 (.89) | .539      | goes  |
|                                              | .15      | .990  | .76 (.76) | .738      | goes  |
|                                              | .20      | .990  | .38 (.38) | .871      | stops |
| - logits a hundred times as large            | .15      | .990  | .94 (.83) | .815      | goes  |

- A quarter of the clean accuracy parts robust and natural networks at every eps the teachers were made for.
- The remainder parts nothing by itself. A threshold of .2 would refuse the published teacher at its own eps, and no
  threshold leaves room between the digits teacher (.74, robust under AutoAttack) and the attack package's network with
  logits a hundred times as large (.77, not robust at all): CE is flat where a network is sure, whatever its logits do.
  So it decides only between a quarter and a half: there a teacher must also be near to linear.
- Large logits hide a network's gradients from PGD. Bringing them to unit spread uncovers them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcompress.attacks.pgd import pgd
from kdcompress.data import Split
from kdcompress.devices import within_memory
from kdcompress.errors import TeacherError
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.linearity import first_order_remainder
from kdcompress.maths.losses import cross_entropy
from kdcompress.maths.randomness import generator
from kdcompress.progress import Listener, guessing
from kdcompress.settings import TeacherCheckSettings, TeachingSettings
from kdcompress.threat import ThreatModel

PGD_STEPS = 20
BATCH = 100
ROBUST_SHARE = 0.5
"""Of its clean accuracy: a teacher that keeps this much under PGD-20 is robust, however its loss bends."""

LOW_ACCURACY = 0.5
"""Of a teacher on training images. A wrong normalisation took the CIFAR-10 ResNet-4B from .83 to .45 (mean and std .5)
and .21 (none)."""


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
    batch_size: int | None = None,
) -> TeacherCheck:
    """Clean accuracy, PGD-20 accuracy and the first-order remainder at the asked eps.

    PGD-20 runs twice, on f and on f / s with s the batch's mean standard deviation of a row of logits: where f is so
    large that the softmax saturates, CE has no gradient to follow. Both have the same predictions; an image is kept
    where it withstands both. The remainder is taken at the first one's perturbation.

    Args:
        teacher: eval mode, frozen.
        images: from the training split.
        batch_size: images at once, `BATCH` unless given; s and the starts of PGD follow it.

    Raises:
        TeacherError: if the outputs are probabilities instead of logits, or not finite: every loss would be wrong.
    """
    rng = generator(seed, "teacher check")
    clean, kept, losses, losses_adv, foretold = [], [], [], [], []
    for x, y in images.batches(batch_size or BATCH, device=device):
        f, g = logits_and_input_gradient(teacher, x, y, create_graph=False)
        if are_probabilities(f):
            raise TeacherError(
                "the teacher's outputs must be logits, but every row is in [0, 1] and sums to 1: probabilities; "
                "remove its softmax (a --teacher-arch file.py:function may return the network without it)"
            )
        x_adv = pgd(teacher, x, y, threat, steps=PGD_STEPS, generator=rng)
        x_unit = pgd(UnitSpread(teacher, f), x, y, threat, steps=PGD_STEPS, generator=rng)
        with torch.no_grad():
            f_adv, f_unit = teacher(x_adv), teacher(x_unit)
        if not all(bool(outputs.isfinite().all()) for outputs in (f, f_adv, f_unit)):
            raise TeacherError(
                "the teacher's outputs must be finite, but some are not finite (NaN or infinite): are its weights "
                "and its normalisation right?"
            )
        clean.append(f.argmax(1) == y)
        kept.append(clean[-1] & (f_adv.argmax(1) == y) & (f_unit.argmax(1) == y))
        losses.append(cross_entropy(f, y))
        losses_adv.append(cross_entropy(f_adv, y))
        foretold.append((g * (x_adv - x)).flatten(1).sum(1, keepdim=True))
    # A ratio of means over all images, so not over batches; each image's d.g stands for d and g.
    slopes = torch.cat(foretold)
    remainder = float(first_order_remainder(torch.cat(losses), torch.cat(losses_adv), slopes, torch.ones_like(slopes)))
    accuracy, pgd_accuracy = _mean(clean), _mean(kept)
    problems = []
    if accuracy < guessing(f.shape[1]):
        problems.append(
            f"its clean accuracy {accuracy:.3f} is no better than chance: look at its normalisation and at the order "
            "of its classes"
        )
    elif pgd_accuracy < settings.min_pgd_share * accuracy:
        problems.append(
            f"it keeps {pgd_accuracy:.3f} of a clean accuracy of {accuracy:.3f} under PGD-{PGD_STEPS} at {threat}; "
            f"a teacher should keep at least {settings.min_pgd_share:g} of it"
        )
    elif pgd_accuracy < ROBUST_SHARE * accuracy and not remainder <= settings.max_remainder:
        problems.append(
            f"it keeps only {pgd_accuracy:.3f} of a clean accuracy of {accuracy:.3f} under PGD-{PGD_STEPS} at {threat}"
            f", and its gradient misses {remainder:.3f} of the loss's change there; a teacher that keeps less than "
            f"{ROBUST_SHARE:g} of it should miss at most {settings.max_remainder:g}"
        )
    return TeacherCheck(accuracy, pgd_accuracy, remainder, len(images), tuple(problems))


def accepted(
    teacher: nn.Module, settings: TeachingSettings, images: Split, device: torch.device, listener: Listener
) -> TeacherCheck:
    """The check's figures, told; a teacher with nothing to hand on is refused unless the user insists.

    Raises:
        TeacherError: if it is refused.
    """
    threat = settings.threat.threat
    sample = images.shuffled(settings.check.check_images, settings.run.seed)
    listener.note(f"checking the teacher on {len(sample)} training images")
    check = within_memory(
        lambda images: check_teacher(
            teacher, sample, threat, settings.check, seed=settings.run.seed, device=device, batch_size=images
        ),
        BATCH,
        listener.note,
    )
    listener.note(
        f"teacher: clean {check.clean_accuracy:.3f}, PGD-20 {check.pgd_accuracy:.3f} at {threat}, "
        f"first-order remainder {check.remainder:.3f}"
    )
    if not check.problems and check.clean_accuracy < LOW_ACCURACY:
        listener.note(
            f"warning: its clean accuracy {check.clean_accuracy:.3f} is low for images like those it was trained on: "
            "are --teacher-mean, --teacher-std and the order of its classes right?"
        )
    if check.problems and not settings.check.insist:
        raise TeacherError(
            f"this teacher has too little robustness to hand on at {threat}: {'; '.join(check.problems)}. "
            "Bring another teacher or a smaller --eps, or add --insist to go on all the same"
        )
    for problem in check.problems:
        listener.note(f"going on as asked (--insist), although {problem}")
    return check


class UnitSpread(nn.Module):
    """f / s: the network's logits, divided by the mean standard deviation of a row of `logits` (B, K)."""

    def __init__(self, network: nn.Module, logits: Tensor) -> None:
        super().__init__()
        self.network = network
        self.spread = logits.std(1).mean().clamp(min=1e-12)  # constant logits stay as they are

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        logits: Tensor = self.network(x)
        return logits / self.spread


def are_probabilities(outputs: Tensor) -> bool:
    """Whether every row of (B, K) lies in [0, 1] and sums to 1."""
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    return inside and bool(((outputs.sum(1) - 1).abs() < 1e-4).all())


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).float().mean())
