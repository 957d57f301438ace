"""One batch under student and teacher: what each says where, asked when a term first needs it and never twice."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Place = Literal["x", "z"]


@dataclass
class Seen:
    """The networks' logits, (B, K), at the two places where losses are taken. Only the student's can be differentiated.

    Attributes:
        student: train mode.
        teacher: eval mode, frozen.
        x: (B, C, H, W): the images, or the images with noise.
        z: what the inner attack found around x; x itself where there is none.
        y: (B,).
        s, t: what was asked so far.
    """

    student: nn.Module
    teacher: nn.Module
    x: Tensor
    z: Tensor
    y: Tensor
    s: dict[Place, Tensor] = field(default_factory=dict)
    t: dict[Place, Tensor] = field(default_factory=dict)

    def at(self, place: Place) -> Place:
        """The place, by its first name: without an attack the two are one."""
        return "x" if self.z is self.x else place

    def f_s(self, place: Place) -> Tensor:
        """The student there."""
        place = self.at(place)
        if place not in self.s:
            self.s[place] = self.student(self.x if place == "x" else self.z)
        return self.s[place]

    def f_t(self, place: Place) -> Tensor:
        """The teacher there, detached."""
        place = self.at(place)
        if place not in self.t:
            self.t[place] = asked(self.teacher, self.x if place == "x" else self.z)
        return self.t[place]


def asked(teacher: nn.Module, x: Tensor) -> Tensor:
    """f_t(x), detached."""
    with torch.no_grad():
        logits: Tensor = teacher(x)
        return logits
