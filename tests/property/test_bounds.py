"""Random small networks, images and radii: bounds contain all that descent and sampling find."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdcompress.bounds.crown import crown, margins
from kdcompress.bounds.graph import Network, trace
from kdcompress.bounds.interval import interval_margins
from kdcompress.bounds.region import region
from kdcompress.threat import Norm
from tests.bounded import lowest_found, points, seeded


class Drawn(nn.Module):
    """Blocks of every kind of layer that bounds pass, in an order and with sizes that are drawn."""

    def __init__(self, blocks: list[str], width: int, groups: int, kernel: int, bias: bool) -> None:
        super().__init__()
        self.blocks = blocks
        self.stem = nn.Conv2d(2, width, 3, padding=1, bias=bias)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    width, width, kernel, stride=2 if block == "strided" else 1, padding=kernel // 2, groups=groups
                ),
                nn.BatchNorm2d(width) if block != "plain" else nn.Identity(),
            )
            for block in blocks
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem((x - 0.45) / 0.25))
        for block, layer in zip(self.blocks, self.layers, strict=True):
            y = layer(x)
            if block == "residual":
                y = y[:, :, : x.shape[2], : x.shape[3]] + x[:, :, : y.shape[2], : y.shape[3]]
            elif block == "pooled" and min(y.shape[2:]) > 1:
                y = F.avg_pool2d(y, 2, stride=1)
            x = y if block == "linear" else F.relu(y)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def networks() -> st.SearchStrategy[Network]:
    kinds = st.sampled_from(["plain", "residual", "strided", "pooled", "linear"])

    @st.composite
    def drawn(draw: st.DrawFn) -> Network:
        groups = draw(st.sampled_from([1, 2]))
        blocks = draw(st.lists(kinds, min_size=1, max_size=4))
        width, kernel = 2 * draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3]))
        build = lambda: Drawn(blocks, width, groups, kernel, draw(st.booleans()))  # noqa: E731
        return trace(seeded(build, draw(st.integers(0, 99))), (2, 5, 4))

    return drawn()


def images() -> st.SearchStrategy[Tensor]:
    """With pixels at 0 and at 1 among them."""
    levels = st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.93, 1.0])
    return st.lists(levels, min_size=40, max_size=40).map(lambda values: torch.tensor(values).view(2, 5, 4))


RADII = {"Linf": (0.0, 0.003, 0.03, 0.3), "L2": (0.0, 0.01, 0.1, 1.0)}


@settings(max_examples=8)
@given(networks(), images(), st.sampled_from(["Linf", "L2"]), st.booleans())
def test_bounds_contain_what_descent_and_sampling_find_and_only_fall_as_eps_rises(
    network: Network, x: Tensor, norm: Norm, single: bool
) -> None:
    C = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]).double()
    before = None
    for eps in RADII[norm]:
        ball = region(x, norm, eps)
        fast = network.to(torch.float32) if single else network
        found = margins(crown(network, fast, ball, rows=64, precise=not single), 0)
        sampled = (network.values(points(ball, 100))[-1] @ C.t()).amin(0)
        attacked = lowest_found(network, ball, C, steps=15, starts=6)
        # Float64: logits are of order one to a hundred.
        assert (found <= torch.minimum(sampled, attacked) + 1e-9).all()
        assert (found >= interval_margins(network, ball, 0)).all()
        if eps == 0:
            torch.testing.assert_close(found, sampled, rtol=1e-9, atol=1e-9)
        if before is not None:
            assert (found <= before).all()
        before = found
