"""Two linear networks, networks that bend, and images in the middle of the unit cube."""

import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels

K = 4
SHAPE = (1, 2, 3)
D = 6
CPU = torch.device("cpu")


def linear(seed: int, classes: int = K) -> nn.Sequential:
    """Margins of a few tenths on the images below, slopes of about one."""
    torch.manual_seed(seed)
    return frozen(nn.Sequential(nn.Flatten(), nn.Linear(D, classes)))


def curved(seed: int, classes: int = K) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, classes))
    with torch.no_grad():
        layers.get_parameter("1.weight").mul_(3)
    return frozen(layers)


def frozen(model: nn.Sequential) -> nn.Sequential:
    return model.eval().requires_grad_(False)


class Plus(nn.Module):
    """network(x) + change(x): a student that is its teacher but for what is planted."""

    def __init__(self, network: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x) + self.change(x)
        return found


class Turned(nn.Module):
    """A (x - centre): nothing at the centre, another Jacobian everywhere. A is (K, D)."""

    def __init__(self, A: Tensor, centre: Tensor) -> None:
        super().__init__()
        self.A, self.centre = nn.Parameter(A, requires_grad=False), nn.Parameter(centre, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre).flatten(1) @ self.A.T


def labelled(model: nn.Module, n: int = 6, seed: int = 0) -> Split:
    """n images of brightness 90 to 165 of 255, with the labels that the model gives them."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(90, 166, (n, *SHAPE), generator=rng, dtype=torch.uint8)
    return split_from_pixels(pixels, model(pixels / 255).argmax(1))


def first(images: Split) -> Tensor:
    """The images themselves, (N, C, H, W)."""
    return next(images.batches(len(images)))[0]
