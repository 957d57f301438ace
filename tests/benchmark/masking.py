"""The statistics of the masking checks over honest networks and planted defences, one line a network.

    python tests/benchmark/masking.py [--images 100] [--only NAME] [--resnet4b resnet4b.pth --cifar10 FOLDER]
    [--students DIGITS_STUDENT ...] [--full]

Columns: the share of vanished gradients; at least so many not rising along the gradient; at least so many standing at
large eps; one step's advantage; at least so many broken by more steps, restarts, Square and transfer alone; seconds;
what is flagged. Training takes some minutes: `--full` trains each family three times as long.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

import kdcompress
from kdcompress.data import Split, load_data
from kdcompress.evaluation.masking.look import check_masking
from kdcompress.models.teachers import load_model
from kdcompress.threat import ThreatModel
from tests.defences import (
    Then,
    distilled_at,
    frozen,
    int8,
    jagged,
    plain_cnn,
    planted,
    signs,
    timm_network,
    trained,
)

TEACHER = Path(kdcompress.__file__).parent / "assets" / "digits_teacher.safetensors"
ROOT = Path(__file__).parents[2]
LINF, L2 = ThreatModel("Linf", 0.15), ThreatModel("L2", 1.0)
FAMILIES = {
    "plain CNN": plain_cnn,
    "CNN, tanh": partial(plain_cnn, activation=nn.Tanh),
    "BatchNorm ResNet": partial(timm_network, "test_resnet"),
    "SiLU ResNet": partial(timm_network, "test_resnet", act_layer="silu"),
    "ViT": partial(timm_network, "vit_tiny_patch16_224", embed_dim=32, depth=2, num_heads=2),
    "ConvNeXt": partial(timm_network, "test_convnext"),
    "MobileNetV3": partial(timm_network, "mobilenetv3_small_050"),
    "EfficientNet, GroupNorm": partial(timm_network, "test_efficientnet_gn"),
    "NFNet": partial(timm_network, "test_nfnet"),
}


Made = tuple[str, nn.Module, ThreatModel, nn.Module | None]


def honest(
    train: Split, teacher: nn.Module, full: bool
) -> Iterator[tuple[str, Callable[[], nn.Module], list[ThreatModel]]]:
    small = [ThreatModel("Linf", 0.03), LINF, ThreatModel("L2", 0.25)]
    yield "shipped teacher", lambda: teacher, [ThreatModel("Linf", 0.05), LINF, ThreatModel("Linf", 0.25), L2]
    for name, family in FAMILIES.items():
        yield (
            f"{name}, natural",
            partial(_train, family, train, epochs=45 if full else 15),
            small,
        )
    yield "plain CNN, sure", partial(_train, plain_cnn, train, epochs=150, decay=0.0), small
    yield "plain CNN, KD", partial(_train, plain_cnn, train, epochs=30, teacher=teacher, temperature=4.0), small
    for name in ("plain CNN", "BatchNorm ResNet", "ViT"):
        yield (
            f"{name}, PGD-5",
            partial(_train, FAMILIES[name], train, epochs=15, threat=LINF),
            [LINF, L2],
        )


def _train(family: Callable[[Split], nn.Module], train: Split, **how: object) -> nn.Module:
    torch.manual_seed(0)
    return trained(family(train), train, **how)  # type: ignore[arg-type]


def defended(train: Split, teacher: nn.Module) -> Iterator[tuple[str, Callable[[], nn.Module], list[ThreatModel]]]:
    natural = _train(plain_cnn, train)
    for basis, network in (("natural", natural), ("teacher", teacher)):
        for name, network_defended in planted(network).items():
            yield f"{name}, {basis}", lambda network_defended=network_defended: network_defended, [LINF, L2]  # type: ignore[misc]
        more: dict[str, nn.Module] = {
            "logits times 100": Then(network, after=lambda f: 100 * f),
            "noise of .005": Then(network, before=lambda x: x + 0.005 * torch.randn_like(x)),
            "ripples": Then(network, before=jagged),
            "log-softmax (honest)": Then(network, after=lambda f: f.log_softmax(1)),
        }
        for name, network_defended in more.items():
            yield f"{name}, {basis}", lambda n=network_defended: frozen(n), [LINF, L2]  # type: ignore[misc]
    yield "sign activations", lambda: signs(train), [LINF, L2]
    yield "distilled at T = 100", lambda: distilled_at(100, train), [LINF, L2]
    yield "distilled at T = 30", lambda: distilled_at(30, train), [LINF]
    yield "converted int8", lambda: int8(natural, train), [LINF]


def line(
    name: str, model: nn.Module, images: tuple[Tensor, Tensor], threat: ThreatModel, other: nn.Module | None
) -> str:
    x, y = images
    with torch.no_grad():
        f = model(x)
    own = f.gather(1, y[:, None])[:, 0]
    margin = (own - f.scatter(1, y[:, None], -torch.inf).max(1).values)[f.argmax(1) == y]
    quantiles = " ".join(f"{q:7.1f}" for q in margin.quantile(torch.tensor([0.5, 1.0])).tolist())
    found = check_masking(model, x, y, threat, classes=10, seed=0, transfer_from=other)
    figures = " ".join("     -" if c.statistic is None else f"{c.statistic:6.3f}" for c in found.checks[3:])
    flags = ", ".join(c.name for c in found.checks if c.flagged) or "-"
    standing = found.checks[6].finding
    accuracy = float((f.argmax(1) == y).float().mean())
    return f"{name:32} {threat!s:12} {accuracy:.2f} {quantiles} {figures} {found.seconds:5.1f} {flags} [{standing}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", default="")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--resnet4b", type=Path)
    parser.add_argument("--cifar10", default="")
    parser.add_argument("--students", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'network':32} {'threat':12} acc.  margin: median, max {'vanish':>6} {'rise':>6} {'large':>6} "
        f"{'one':>6} {'steps':>6} {'starts':>6} {'square':>6} {'transf':>6}     s"
    )
    digits = load_data("digits")
    assert digits.train is not None and digits.test is not None
    images = next(digits.test.batches(options.images))
    teacher = load_model(TEACHER).model
    for name, make, threats in chain(honest(digits.train, teacher, options.full), defended(digits.train, teacher)):
        if options.only in name:
            model = make()
            for threat in threats:
                other = None if model is teacher else teacher
                print(line(name, model, images, threat, other), flush=True)
    for path in options.students:
        student = load_model(path).model
        for threat in (LINF, L2):
            print(line(path.parent.name, student, images, threat, teacher), flush=True)
    if options.cifar10:
        cifar = load_data(options.cifar10, splits=("test",)).test
        assert cifar is not None
        images = next(cifar.shuffled(options.images, 0).batches(options.images))
        published = load_model(
            options.resnet4b,
            arch=f"{ROOT}/examples/cifar10/resnet4b.py:resnet4b",
            mean=[0.4914, 0.4822, 0.4465],
            std=[0.2471, 0.2435, 0.2616],
        ).model
        for eps in (2 / 255, 8 / 255):
            print(line("ResNet-4B", published, images, ThreatModel("Linf", eps), None), flush=True)
        print(line("ResNet-4B", published, images, ThreatModel("L2", 0.25), None), flush=True)


if __name__ == "__main__":
    main()
