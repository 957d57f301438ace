"""How far an inner attack goes: from the corner of the ball that lies opposite to where it climbs."""

import pytest
import torch

from kdcompress.attacks.inner import climb
from kdcompress.threat import ThreatModel


@pytest.mark.parametrize(("steps", "reached"), [(1, 0.25), (2, 0.5), (3, 1.0), (10, 1.0)])
def test_steps_are_of_the_lengths_that_were_measured(steps: int, reached: float) -> None:
    x, threat = torch.full((2, 3, 4, 4), 0.5), ThreatModel("Linf", 0.1)
    found = climb(lambda at: at.flatten(1).sum(1), x, x - threat.eps, threat, steps=steps)
    torch.testing.assert_close(found, x + reached * threat.eps)
