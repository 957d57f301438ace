"""Honest networks are not flagged: robust or not, sure or not, of several families."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.evaluation.masking.gradients import has_gradients
from kdcompress.evaluation.masking.look import check_masking
from kdcompress.threat import ThreatModel
from tests.defences import Then, frozen, plain_cnn, timm_network, trained

Images = tuple[Tensor, Tensor]
THREATS = [ThreatModel("Linf", 0.03), ThreatModel("Linf", 0.15), ThreatModel("L2", 0.5), ThreatModel("L1", 5.0)]


def reasons(model: nn.Module, images: Images, threat: ThreatModel, other: nn.Module | None = None) -> tuple[str, ...]:
    found = check_masking(model, *images, threat, classes=10, seed=0, transfer_from=other)
    assert has_gradients(model, *images)
    return found.reasons


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_robust_network(teacher: nn.Module, digits: Images, threat: ThreatModel) -> None:
    x, y = digits
    assert reasons(teacher, (x[:30], y[:30]), threat) == ()


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_natural_network_whether_it_keeps_all_some_or_no_robust_accuracy(
    natural: nn.Module, teacher: nn.Module, digits: Images, threat: ThreatModel
) -> None:
    assert reasons(natural, digits, threat, other=teacher) == ()


@pytest.mark.parametrize(
    ("arch", "args", "epochs"),
    [
        ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 16], "stem_width": 8}, 8),
        ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 16], "act_layer": "hard_swish"}, 8),
        ("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}, 15),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]}, 8),
    ],
    ids=["BatchNorm, ReLU", "BatchNorm, hardswish", "ViT", "ConvNeXt"],
)
def test_other_families(
    train: Split, digits: Images, teacher: nn.Module, arch: str, args: dict[str, object], epochs: int
) -> None:
    torch.manual_seed(0)
    network = trained(timm_network(arch, train, **args), train, epochs=epochs)
    x, y = digits
    assert (network(x).argmax(1) == y).float().mean() > 0.5
    assert reasons(network, digits, THREATS[1], other=teacher) == ()


def test_a_network_that_is_very_sure(train: Split, digits: Images) -> None:
    torch.manual_seed(0)
    network = trained(plain_cnn(train), train, epochs=80, decay=0.0)
    margin = network(digits[0]).sort(1).values.diff(dim=1)[:, -1]
    assert margin.median() > 10  # CE is zero in float32 from 17 on
    assert reasons(network, digits, THREATS[1]) == ()


def test_an_adversarially_trained_network(train: Split, digits: Images, teacher: nn.Module) -> None:
    torch.manual_seed(0)
    network = trained(plain_cnn(train), train, epochs=8, threat=THREATS[1])
    assert reasons(network, digits, THREATS[1], other=teacher) == ()


@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_the_scale_of_the_logits_within_reason(natural: nn.Module, digits: Images, scale: float) -> None:
    assert reasons(frozen(Then(natural, after=lambda f: scale * f)), digits, THREATS[1]) == ()


def test_log_probabilities_are_logits(natural: nn.Module, digits: Images) -> None:
    assert reasons(frozen(Then(natural, after=lambda f: f.log_softmax(1))), digits, THREATS[1]) == ()
