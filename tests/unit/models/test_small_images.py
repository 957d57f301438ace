import copy

import pytest
import torch
from torch import nn

from kdcompress.models.record import Change
from kdcompress.models.small_images import (
    apply_changes,
    default_stride,
    planned_changes,
    skips_pixels,
    strided_modules,
    total_stride,
)


class Shortcut(nn.Module):
    """A strided convolution beside a pooled shortcut: one level with two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 2, 1)
        self.pool = nn.AvgPool2d(2, 2)

    def forward(self, x):
        return self.conv(x) + self.pool(x)


class Pyramid(nn.Module):
    """Total stride 32: a 4x4 patch stem, a max pool, two shortcut blocks; and a side branch that reduces by 8."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.side = nn.Conv2d(4, 4, 8, 8)
        self.blocks = nn.Sequential(Shortcut(), Shortcut())
        self.head = nn.Linear(4, 10)

    def forward_features(self, x):
        x = self.pool(self.stem(x))
        if min(x.shape[-2:]) >= 8:
            x = x + self.side(x).mean((2, 3), keepdim=True)
        return self.blocks(x)

    def forward(self, x):
        return self.head(self.forward_features(x).mean((2, 3)))


def planned(network: nn.Module, factor: int) -> tuple[Change, ...] | None:
    return planned_changes(network, strided_modules(network, (3, 256, 256)), factor)


def altered(network: nn.Module, factor: int) -> nn.Module:
    changes = planned(network, factor)
    assert changes is not None
    network = copy.deepcopy(network)
    apply_changes(network, changes)
    return network


def test_strided_modules_come_in_the_order_in_which_they_run_with_their_resolutions():
    found = strided_modules(Pyramid(), (3, 256, 256))
    assert [(m.name, m.stride, m.resolution) for m in found] == [
        ("stem", 4, 256),
        ("pool", 2, 64),
        ("side", 8, 32),
        ("blocks.0.conv", 2, 32),
        ("blocks.0.pool", 2, 32),
        ("blocks.1.conv", 2, 16),
        ("blocks.1.pool", 2, 16),
    ]


def test_total_stride_is_measured_on_the_final_map():
    assert total_stride(Pyramid(), (3, 256, 256)) == 32


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 32])
def test_the_total_stride_falls_by_the_factor_at_every_size(factor):
    network = altered(Pyramid(), factor)
    for side in (64, 128):
        features = network.forward_features(torch.rand(1, 3, side, side))
        assert features.shape[-2:] == (side * factor // 32, side * factor // 32)


def test_a_factor_above_the_total_stride_has_no_plan():
    assert planned(Pyramid(), 64) is None


def test_the_earliest_strides_go_first_and_a_stem_may_be_reduced_partly():
    changes = planned(Pyramid(), 2)
    assert changes == (Change(module="stem", action="stride 2", pad=(1, 1)),)


def test_branches_of_one_level_change_together_and_a_larger_side_stride_stays():
    changes = planned(Pyramid(), 16)
    assert changes is not None
    assert {change.module: change.action for change in changes} == {
        "stem": "stride 1",
        "pool": "removed",
        "blocks.0.conv": "stride 1",
        "blocks.0.pool": "removed",
    }


def test_weights_keep_their_names_shapes_and_values():
    network = Pyramid()
    before, after = network.state_dict(), altered(network, 32).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_patch_stem_at_stride_1_agrees_with_the_patch_stem_where_their_grids_meet():
    network = Pyramid()
    dense = altered(network, 4)
    inputs = torch.rand(2, 3, 32, 32)
    # One zero row stands before the image, so position 4i + 1 of the dense map sees patch i.
    torch.testing.assert_close(dense.stem(inputs)[..., 1::4, 1::4], network.stem(inputs))


def test_an_altered_network_can_be_copied_and_the_copy_behaves_the_same():
    network = altered(Pyramid(), 8)
    inputs = torch.rand(2, 3, 32, 32)
    assert torch.equal(copy.deepcopy(network)(inputs), network(inputs))


def test_probing_leaves_the_network_its_mode_and_the_random_state_alone():
    network = nn.Sequential(Pyramid(), nn.BatchNorm1d(10), nn.Dropout()).train()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    strided_modules(network, (3, 256, 256))
    assert torch.equal(state, torch.get_rng_state())
    assert network.training and network[1].training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not network[0].stem._forward_pre_hooks


def test_a_module_that_runs_at_two_resolutions_is_not_touched():
    pool = nn.MaxPool2d(2, 2)
    assert strided_modules(nn.Sequential(pool, nn.Conv2d(3, 3, 2, 2), pool), (3, 64, 64)) != []
    assert [m.name for m in strided_modules(nn.Sequential(pool, nn.Conv2d(3, 3, 2, 2), pool), (3, 64, 64))] == ["1"]


@pytest.mark.parametrize(("kernel", "skips"), [(1, True), (3, True), (4, False), (7, False)])
def test_a_first_layer_with_patches_smaller_than_their_distance_skips_pixels(kernel, skips):
    assert skips_pixels(nn.Sequential(nn.Conv2d(3, 4, kernel, 4, kernel // 2)), (3, 32, 32)) is skips


def test_without_tokens_or_a_map_the_total_stride_is_that_of_the_strided_modules():
    class Pooled(Pyramid):
        def forward_features(self, x):
            return super().forward_features(x).mean((2, 3))

        def forward(self, x):
            return self.head(self.forward_features(x))

    assert total_stride(Pooled(), (3, 256, 256)) == 32


@pytest.mark.parametrize(("side", "stride"), [(224, 32), (64, 16), (32, 8), (28, 4), (16, 4), (8, 2), (4, 1), (1, 1)])
def test_the_default_leaves_at_least_4x4_positions(side, stride):
    assert default_stride(side) == stride
