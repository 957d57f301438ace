"""An image's starts are its own."""

import pytest
import torch

from kdcompress.evaluation.audit.starts import random_starts
from kdcompress.maths.norms import norm_of
from kdcompress.threat import NORMS, Norm, ThreatModel

X = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(0))
NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_has_the_same_starts_alone_and_in_any_batch(norm: Norm) -> None:
    threat = ThreatModel(norm, 0.3)
    together = random_starts(X, NAMES, threat, seed=0, purpose="test", count=2)
    order = [2, 0, 3]
    some = random_starts(X[order], [NAMES[i] for i in order], threat, seed=0, purpose="test", count=2)
    for one, other in zip(together, some, strict=True):
        assert torch.equal(one[order], other)
        assert norm_of(one - X, norm).le(0.3 * (1 + 1e-5)).all()  # float32
    assert not torch.equal(together[0], together[1])


def test_name_seed_purpose_and_ball_draw_other_starts() -> None:
    def drawn(names: tuple[str, ...] = NAMES, eps: float = 0.3, seed: int = 0, purpose: str = "test") -> torch.Tensor:
        (found,) = random_starts(X, names, ThreatModel("Linf", eps), seed=seed, purpose=purpose, count=1)
        return found

    one = drawn()
    assert torch.equal(one, drawn())
    for other in (drawn(names=("e", "f", "g", "h")), drawn(seed=1), drawn(purpose="other"), drawn(eps=0.31)):
        assert not (one == other).flatten(1).all(1).any()


def test_no_start_is_drawn_where_none_is_wanted() -> None:
    assert random_starts(X, NAMES, ThreatModel("L2", 0.3), seed=0, purpose="test", count=0) == []
