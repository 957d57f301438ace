"""What stands behind a report's figures, image by image: rows for a table, and a few images to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import float32, uint8
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ModelRow:
    """One network's answers to one image.

    Attributes:
        prediction: the class it sees in the image as it is.
        verdict: `wrong` as it is, `stood` the attack, `broken`, or `not attacked`.
        broken_by: the attack's stage that broke it, as `apgd-ce`; None where none did.
        stood_eps: where several radii were attacked, the largest that it stood, 0 for none; None where one was asked.
    """

    prediction: str
    verdict: str
    broken_by: str | None
    stood_eps: float | None


@dataclass(frozen=True)
class ImageRow:
    """One image of the evaluation, in the seeded order."""

    id: str
    label: str
    models: dict[str, ModelRow]


@dataclass(frozen=True, eq=False)
class Attacked:
    """One network's view of a shown image.

    Attributes:
        adversarial: uint8 (H, W, C), the attack's answer; None where the attack found none (or none was run).
        adversarial_prediction: the class seen in it.
        eps: the radius at which it was found, where several were attacked.
        gradient: float32 (H, W, C), grad_x CE at the image as it is.
    """

    prediction: str
    adversarial: NDArray[uint8] | None
    adversarial_prediction: str | None
    gradient: NDArray[float32]
    eps: float | None = None


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image for the gallery: uint8 (H, W, C), C = 1 or 3 or any other number of channels."""

    id: str
    label: str
    image: NDArray[uint8]
    models: dict[str, Attacked]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything a report leaves out because it would not fit into one."""

    rows: tuple[ImageRow, ...] = ()
    gallery: tuple[ShownImage, ...] = ()
