"""Robust training without a teacher: teachers themselves, and the baselines that students are held against."""

import torch
from torch import Tensor, nn

from kdcompress.attacks.inner import beside, climb, perturb
from kdcompress.maths.losses import cross_entropy, distillation_kl
from kdcompress.maths.norms import gaussian
from kdcompress.maths.randomness import generator
from kdcompress.threat import ThreatModel
from kdcompress.training.recipes.recipe import Recipe, Terms, Weights


def adversarial_training(
    threat: ThreatModel, *, steps: int, seed: int, noise_sigma: float = 0.0, smoothing: float = 0.0
) -> Recipe:
    """CE at the inputs found by PGD against the network itself. Source: Madry et al. (2018), arXiv:1706.06083, Eq. 2.1.

    With noise, attack and loss see x' + e for one e = N(0, noise_sigma^2 I) a step: SmoothAdv with a single sample,
    Salman et al. (2019), arXiv:1906.04584.

    With one step it is the fast training of Wong, Rice and Kolter (2020), arXiv:2001.03994, whose network may suddenly
    keep nothing of its robustness: the validation sees that, and an epoch from before is kept.

    The attack runs in eval mode, so that its forwards leave BatchNorm's statistics alone.
    """
    starts, noise = generator(seed, "inner attack"), generator(seed, "noise")

    def terms(network: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> Terms:
        e = gaussian(x, noise_sigma, noise) if noise_sigma > 0 else torch.zeros_like(x)
        network.eval()
        x_adv = perturb(_Shifted(network, e), x, y, threat, steps=steps, generator=starts)
        network.train()
        return {"ce": cross_entropy(network(x_adv + e), y, smoothing)}

    return Recipe(terms, lambda step, steps: {"ce": 1.0}, {"inner attack": starts, "noise": noise})


def trades(threat: ThreatModel, *, steps: int, beta: float, seed: int, smoothing: float = 0.0) -> Recipe:
    """CE(f(x), y) + beta KL(p(x) || p(z)), z found by climbing that KL. Source: Zhang et al. (2019), arXiv:1901.08573.

    Neither side of the KL is held fixed in the loss; p(x) is in the attack, which runs in eval mode.

    Args:
        beta: the source's 1 / lambda, 6 in its experiments on CIFAR-10.
    """
    starts = generator(seed, "inner attack")

    def terms(network: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> Terms:
        network.eval()
        with torch.no_grad():
            f_x = network(x)
        start = beside(x, starts)
        z = climb(lambda at: distillation_kl(network(at), f_x, 1.0), x, start, threat, steps=steps)
        network.train()
        f = network(x)
        return {"ce": cross_entropy(f, y, smoothing), "self": distillation_kl(network(z), f, 1.0)}

    return Recipe(terms, lambda step, steps: {"ce": 1.0, "self": beta}, {"inner attack": starts})


def noise_training(sigma: float, *, seed: int, smoothing: float = 0.0) -> Recipe:
    """CE at x + N(0, sigma^2 I), not clipped. Source: Cohen et al. (2019), arXiv:1902.02918."""
    noise = generator(seed, "noise")

    def terms(network: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> Terms:
        return {"ce": cross_entropy(network(x + gaussian(x, sigma, noise)), y, smoothing)}

    return Recipe(terms, lambda step, steps: {"ce": 1.0}, {"noise": noise})


class _Shifted(nn.Module):
    """x -> f(x + e), for one batch."""

    def __init__(self, network: nn.Module, e: Tensor) -> None:
        super().__init__()
        self.network, self.e = network, e

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x + self.e)
        return logits
