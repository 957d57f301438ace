"""The gallery: each image, what was made of it, and where every network looks."""

from dataclasses import dataclass

import numpy as np

from kdcompress.evidence import Attacked, Evidence, ShownImage
from kdcompress.render.html.pictures import LARGEST, Picture, photograph, signed_map
from kdcompress.render.words import title
from kdcompress.threat import render_eps

FULL_AT = 99
"""Percentile of a gradient's sizes where its colour is full: a few pixels would leave the others pale."""


@dataclass(frozen=True)
class View:
    """One network's line under an image.

    Attributes:
        nothing: why there is no adversarial version, where there is none.
        change: adversarial minus original, averaged over the channels; full colour at `change_scale` 255ths.
        gradient: averaged over the channels; full colour at `gradient_scale`.
    """

    name: str
    prediction: str
    right: bool
    adversarial: Picture | None
    adversarial_prediction: str | None
    broken: bool
    nothing: str
    change: Picture | None
    change_scale: str
    eps: str
    gradient: Picture
    gradient_scale: str


@dataclass(frozen=True)
class Card:
    """One image of the gallery; `remark` says how its pixels were changed for showing."""

    id: str
    label: str
    original: Picture
    remark: str
    views: tuple[View, ...]


def cards(evidence: Evidence) -> tuple[Card, ...]:
    """The gallery's images, ready to be laid out."""
    verdicts = {(row.id, name): answer.verdict for row in evidence.rows for name, answer in row.models.items()}
    return tuple(
        Card(
            id=shown.id,
            label=shown.label,
            original=photograph(shown.image),
            remark=_remark(shown),
            views=tuple(
                _view(shown, name, attacked, verdicts.get((shown.id, name), ""))
                for name, attacked in shown.models.items()
            ),
        )
        for shown in evidence.gallery
    )


def _view(shown: ShownImage, name: str, attacked: Attacked, verdict: str) -> View:
    right = attacked.prediction == shown.label
    gradient = signed_map(attacked.gradient, FULL_AT)
    change = None
    if attacked.adversarial is not None:
        change = signed_map(attacked.adversarial.astype(np.float32) - shown.image.astype(np.float32), 100)
    return View(
        name=title(name),
        eps="" if attacked.eps is None else render_eps(attacked.eps),
        prediction=attacked.prediction,
        right=right,
        adversarial=None if attacked.adversarial is None else photograph(attacked.adversarial),
        adversarial_prediction=attacked.adversarial_prediction,
        broken=attacked.adversarial_prediction != shown.label,
        nothing=_nothing(verdict, right),
        change=None if change is None else change.picture,
        change_scale="" if change is None else f"±{change.scale:.3g}/255" if change.scale else "nothing to see",
        gradient=gradient.picture,
        gradient_scale=f"±{gradient.scale:.2g}" if gradient.scale else "zero everywhere",
    )


def _nothing(verdict: str, right: bool) -> str:
    if not right:
        return "wrong as it is"
    return {"stood": "stood the attack", "not attacked": "not attacked"}.get(verdict, "no adversarial version")


def _remark(shown: ShownImage) -> str:
    height, width, channels = shown.image.shape
    remarks = []
    if max(height, width) > LARGEST:
        remarks.append(f"{width}x{height} pixels averaged down to {LARGEST}")
    if channels not in {1, 3}:
        remarks.append(f"the mean of its {channels} channels")
    return ", ".join(remarks)
