"""Attacks without the network's gradient, which should find nothing that those with it missed."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from kdcompress.attacks import autoattack
from kdcompress.attacks.pgd import into_ball, pgd
from kdcompress.evaluation.masking.batches import over_batches
from kdcompress.evaluation.masking.findings import ATHALYE, PAPERNOT, Sign, at_least, found, not_measured
from kdcompress.evaluation.masking.white_box import STEPS, breaks
from kdcompress.report import MaskingCheck
from kdcompress.threat import ThreatModel

BLACK_BOX = Sign("black box against white box", 0.02, ATHALYE)
TRANSFER = Sign("transfer against white box", 0.02, f"{PAPERNOT}; {ATHALYE}")
QUERIES = 200
DUELS, DUEL_STEPS = 3, 50


def broken_by_square(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    white: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int,
    seed: int,
    rng: Generator,
) -> Tensor:
    """Which images Square breaks and no attack by the gradient does, (B,).

    Args:
        white: (B,), boolean: broken by white-box attacks already.
    """

    def misled(x: Tensor, y: Tensor) -> Tensor:
        x_adv = autoattack.square_inputs(model, x, y, threat, queries=QUERIES, seed=seed)
        return unseen(model, x, y, into_ball(x, x_adv - x, threat), threat, rng)

    return _among(~white, misled, batch_size, inputs, labels)


def broken_by_transfer(
    model: nn.Module,
    other: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    white: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int,
    rng: Generator,
) -> Tensor:
    """Which images fall to PGD-10 made on another network and to no attack by this one's gradient, (B,).

    Args:
        other: eval mode, of unit spread.
        white: (B,), boolean: broken by white-box attacks already.
    """

    def misled(x: Tensor, y: Tensor) -> Tensor:
        return unseen(model, x, y, pgd(other, x, y, threat, steps=STEPS, generator=rng), threat, rng)

    return _among(~white, misled, batch_size, inputs, labels)


def unseen(
    model: nn.Module, inputs: Tensor, labels: Tensor, answers: Tensor, threat: ThreatModel, rng: Generator
) -> Tensor:
    """Which answers, (B, C, H, W), are misclassified as a class that the gradient does not lead to, (B,).

    CE looks at all rivals at once, and on an honest network PGD can miss the one that matters. So PGD-50 goes once more
    from three starts, for the class that was found and it alone.
    """
    beaten = breaks(model, answers, labels)
    if bool(beaten.any()):
        x, y = inputs[beaten], labels[beaten]
        with torch.no_grad():
            duel = Duel(model, y, model(answers[beaten]).argmax(1))
        lost = torch.zeros_like(y, dtype=torch.bool)
        for _ in range(DUELS):
            lost |= breaks(model, pgd(duel, x, torch.zeros_like(y), threat, steps=DUEL_STEPS, generator=rng), y)
        beaten[beaten.clone()] = ~lost
    return beaten


class Duel(nn.Module):
    """(f_y, f_k) for each row's own class y and one rival k."""

    def __init__(self, network: nn.Module, own: Tensor, rival: Tensor) -> None:
        super().__init__()
        self.network = network
        self.pair = torch.stack([own, rival], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2)."""
        logits: Tensor = self.network(x)
        return logits.gather(1, self.pair)


def black_box_is_stronger(gained: Tensor | None) -> MaskingCheck:
    """The share of images that stand the white-box attacks and fall to Square.

    Args:
        gained: (B,), boolean; None where Square does not apply.
    """
    if gained is None:
        why = "Square needs images of at least 5x5, no taller than wide, unless the norm is Linf"
        return not_measured(BLACK_BOX, why)
    n, count = len(gained), int(gained.sum())
    return found(
        BLACK_BOX,
        at_least(count, n),
        flagged=f"Square, which sees no gradient, breaks with {QUERIES} queries {count} of {n} images that the "
        "white-box attacks leave standing: they miss what is there",
        unflagged=f"Square with {QUERIES} queries breaks {count} more of {n} images than the white-box attacks",
    )


def transfer_is_stronger(gained: Tensor | None) -> MaskingCheck:
    """The share of images that stand the white-box attacks and fall to PGD-10 made on another network.

    Args:
        gained: (B,), boolean; None where there is no other network with gradients.
    """
    if gained is None:
        return not_measured(TRANSFER, "there is no other network with gradients to attack from")
    n, count = len(gained), int(gained.sum())
    return found(
        TRANSFER,
        at_least(count, n),
        flagged=f"PGD-{STEPS} on another network breaks {count} of {n} images that the white-box attacks on this one "
        "leave standing: its own gradients are worse than a stranger's",
        unflagged=f"PGD-{STEPS} on another network breaks {count} more of {n} images than the white-box attacks",
    )


def _among(
    chosen: Tensor, measure: Callable[[Tensor, Tensor], Tensor], size: int, inputs: Tensor, labels: Tensor
) -> Tensor:
    """`measure` of the chosen images, (B,); false for the others."""
    answer = torch.zeros_like(chosen)
    if bool(chosen.any()):
        answer[chosen] = over_batches(measure, size, inputs[chosen], labels[chosen])
    return answer
