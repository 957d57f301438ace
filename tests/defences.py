"""Networks for the masking checks: honest ones, trained in seconds on the digits, and planted defences."""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.attacks.inner import perturb
from kdcompress.data import Split
from kdcompress.maths.randomness import generator
from kdcompress.models.students import create_student
from kdcompress.threat import ThreatModel


class Then(nn.Module):
    """after(network(before(x)))."""

    def __init__(
        self,
        network: nn.Module,
        *,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda f: f,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))


class StraightThroughSign(nn.Module):
    """sign(x) with the gradient of a clipped identity: how networks of signs are trained."""

    def forward(self, x: Tensor) -> Tensor:
        smooth = x.clamp(-1, 1)
        return smooth + (x.sign() - smooth).detach()


class Sign(nn.Module):
    """sign(x), whose derivative is zero: how they are deployed."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sign()


def frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def image_size(images: Split) -> tuple[int, int, int]:
    _, channels, height, width = next(images.batches(1))[0].shape
    return channels, height, width


def plain_cnn(images: Split, activation: Callable[[], nn.Module] = nn.ReLU, width: int = 16) -> nn.Module:
    channels, _, side = image_size(images)
    positions = ((side + 3) // 4) ** 2
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        activation(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        activation(),
        nn.Flatten(),
        nn.Linear(2 * width * positions, 64),
        activation(),
        nn.Linear(64, 10),
    )


def timm_network(arch: str, images: Split, **args: object) -> nn.Module:
    size = image_size(images)
    ones = [0.5] * size[0]
    return create_student(arch, args, classes=[str(k) for k in range(10)], input_size=size, mean=ones, std=ones)[0]


def trained(
    network: nn.Module,
    images: Split,
    *,
    epochs: int = 15,
    rate: float = 3e-3,
    decay: float = 0.01,
    temperature: float = 1.0,
    teacher: nn.Module | None = None,
    threat: ThreatModel | None = None,
    seed: int = 0,
) -> nn.Module:
    """CE, or the teacher's soft labels, of f / T; on 5-step PGD inputs where there is a threat."""
    T, batch = temperature, 100
    steps = epochs * -(-len(images) // batch)
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    noise = generator(seed, "attack")
    network.train()
    for epoch in range(epochs):
        for x, y in images.shuffled(len(images), seed + epoch).batches(batch):
            if threat is not None:
                network.eval().requires_grad_(False)
                x = perturb(network, x, y, threat, steps=5, generator=noise)  # noqa: PLW2901
                network.train().requires_grad_(True)
            target = y if teacher is None else (teacher(x) / T).softmax(1).detach()
            loss = F.cross_entropy(network(x) / T, target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return frozen(network)


def signs(images: Split, epochs: int = 15) -> nn.Module:
    """A network of signs: trained straight through, deployed without a gradient."""
    network = trained(plain_cnn(images, StraightThroughSign), images, epochs=epochs)
    assert isinstance(network, nn.Sequential)
    return frozen(nn.Sequential(*(Sign() if isinstance(layer, StraightThroughSign) else layer for layer in network)))


def distilled_at(T: float, images: Split, epochs: int = 15) -> nn.Module:
    """Defensive distillation (Papernot et al. 2016, arXiv:1511.04508): both trained at T, the second deployed at 1."""
    teacher = trained(plain_cnn(images), images, temperature=T, epochs=epochs, rate=1e-2)
    return trained(plain_cnn(images), images, temperature=T, epochs=epochs, rate=1e-2, teacher=teacher, seed=1)


def int8(network: nn.Module, images: Split) -> nn.Module:
    """`network`, converted by PyTorch's static quantisation after seeing some images."""
    with warnings.catch_warnings():
        # Deployed int8 networks are made so still, whatever will replace it.
        warnings.filterwarnings("ignore", message=".*torch.ao.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*reduce_range will be deprecated", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions", category=UserWarning)
        from torch.ao import quantization as q

        wrapped = nn.Sequential(q.QuantStub(), network, q.DeQuantStub()).eval()
        wrapped.qconfig = q.get_default_qconfig(torch.backends.quantized.engine)  # type: ignore[assignment]
        prepared = q.prepare(wrapped)
        with torch.no_grad():
            prepared(next(images.batches(200))[0])
        return frozen(q.convert(prepared))


def jagged(x: Tensor) -> Tensor:
    """The input with ripples: hardly another image, and gradients of a thousandfold disorder (shattered gradients)."""
    return x + 0.005 * (2000 * x).sin()


def planted(network: nn.Module) -> dict[str, nn.Module]:
    """Defences around a network that is trained already."""
    return {
        "logits times 1e4": frozen(Then(network, after=lambda f: 1e4 * f)),
        "rounding of the input": frozen(Then(network, before=lambda x: (8 * x).round() / 8)),
        "softmax output": frozen(Then(network, after=lambda f: f.softmax(1))),
        "inference noise": frozen(Then(network, before=lambda x: x + 0.1 * torch.randn_like(x))),
    }


def misleading(x: Tensor) -> Tensor:
    """x, with a gradient of the wrong sign."""
    return 2 * x.detach() - x
