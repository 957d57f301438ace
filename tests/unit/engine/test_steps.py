"""Training by the engine is training by the published style of the loss: the same weights after 20 steps."""

import copy

import timm
import torch
import torch.nn.functional as F
from torch import nn

from kdcompress.engine import exact
from kdcompress.maths.gradients import input_gradient
from kdcompress.maths.losses import gradient_distance


def test_after_20_steps_the_weights_are_those_of_separate_forwards_and_pytorchs_own_derivatives() -> None:
    torch.manual_seed(0)
    ours: nn.Module = timm.create_model("resnet18", num_classes=3, layers=(1, 1, 1, 1), channels=(4, 4, 6, 8))
    ours = ours.double().train()
    start, published, align = copy.deepcopy(ours), copy.deepcopy(ours), exact(2)
    optimizers = [torch.optim.AdamW(network.parameters(), lr=1e-3) for network in (ours, published)]
    for step in range(20):
        rng = torch.Generator().manual_seed(step)
        x = torch.rand(6, 3, 64, 64, generator=rng, dtype=torch.float64)
        y, g_t = torch.arange(6) % 3, 0.1 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
        f, distance = align(ours, x, y, g_t)
        losses = [F.cross_entropy(f, y) + distance.mean()]
        x_s = x.clone().requires_grad_()
        g_s = input_gradient(published(x_s), x_s, y, create_graph=True)
        losses.append(F.cross_entropy(published(x), y) + gradient_distance(g_s, g_t).mean())
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    for name, weight in ours.named_parameters():
        # float64 to some 1e-15 a step, which AdamW's division by small second moments may enlarge.
        torch.testing.assert_close(weight, published.get_parameter(name), rtol=1e-6, atol=1e-8)
    assert (ours.get_parameter("conv1.weight") - start.get_parameter("conv1.weight")).detach().abs().max() > 0.005
