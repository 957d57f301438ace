"""A dozen of the hard architectures: fused attention, hard sigmoids, standardised weights, depthwise convolutions.

`tests/benchmark/gradient_families.py` has all of timm's.
"""

import copy

import pytest
import timm
import torch
from torch import nn

from tests.second_derivatives import cosine, kdiga, without_chance

HARD = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2},
    "deit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2},
    "xcit_nano_12_p8_224": {"img_size": 32, "depth": 2},
    "swin_tiny_patch4_window7_224": {"img_size": 32, "window_size": 4, "depths": (1, 1), "embed_dim": 24},
    "levit_128s": {"img_size": 64},
    "mobilevit_xxs": {},
    "mobilenetv3_small_050": {},
    "lcnet_035": {},
    "ghostnet_050": {},
    "hardcorenas_b": {},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "nf_regnet_b0": {},
    "efficientnet_lite0": {},
    "gmlp_ti16_224": {"img_size": 32},
}


@pytest.mark.parametrize("name", HARD)
def test_the_weights_gradient_is_that_of_the_float64_reference(name: str) -> None:
    torch.manual_seed(0)
    args = HARD[name]
    side = args.get("img_size", 64)
    network: nn.Module = without_chance(timm.create_model(name, num_classes=5, **args))
    x, y = torch.rand(8, 3, side, side), torch.arange(8) % 5
    g_t = 0.01 * torch.randn_like(x)
    exact = kdiga(copy.deepcopy(network).double(), x.double(), y, g_t.double(), ours=False)
    found = kdiga(network, x, y, g_t, ours=True)
    assert all(bool(slope.isfinite().all()) for slope in found)
    assert cosine(found, exact) >= 0.9999
    assert any(bool(slope.any()) for slope in found)
