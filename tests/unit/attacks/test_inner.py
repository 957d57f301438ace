"""How far an inner attack goes: from the corner of the ball that lies opposite to where it climbs."""

import pytest
import torch
from torch import Tensor

from kdcompress.attacks.inner import climb
from kdcompress.threat import ThreatModel


@pytest.mark.parametrize(("steps", "first"), [(1, 0.25), (2, -0.25), (3, -1 + 2.5 / 3), (10, -0.75)])
def test_steps_are_of_the_lengths_that_were_measured(steps: int, first: float) -> None:
    x, threat = torch.full((2, 3, 4, 4), 0.5), ThreatModel("Linf", 0.1)
    seen: list[Tensor] = []

    def brightness(at: Tensor) -> Tensor:
        seen.append(at.detach())
        return at.flatten(1).sum(1)

    found = climb(brightness, x, x - threat.eps, threat, steps=steps)
    assert len(seen) == steps
    torch.testing.assert_close([*seen, found][1], x + first * threat.eps)
    torch.testing.assert_close(found, x + min(1.0, -1 + steps * (first + 1)) * threat.eps)
