from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcompress.maths.gradients import double_backward, input_gradient, logits_and_input_gradient
from kdcompress.maths.losses import cross_entropy, distillation_kl, gradient_distance

CLASSES = 3


def images(count: int, channels: int = 3, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, side, side, generator=generator), torch.arange(count) % CLASSES


def smooth_network() -> nn.Module:
    """Convolution, BatchNorm with statistics of its own, SiLU."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, CLASSES)
    )
    network(torch.rand(8, 3, 16, 16))  # moves the running statistics away from 0 and 1
    return network.eval()


def vision_transformer() -> nn.Module:
    torch.manual_seed(2)
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=CLASSES,
        img_size=16,
        patch_size=4,
        embed_dim=24,
        depth=1,
        num_heads=2,
    )
    return model.eval()


def plain_attention(network: nn.Module) -> nn.Module:
    """The same network, written out by timm itself: twice differentiable without us."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010  (typed as a submodule)
    return network


class HardGate(nn.Module):
    """Squeeze and excitation as in MobileNetV3, its gate called in one of the ways it can be."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.mix, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, CLASSES)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        h = F.hardswish(self.stem(x))
        # The factor spreads the gates over both kinks of the hard sigmoid.
        logits: Tensor = self.head((h * self.gate(20 * self.mix(h.mean((2, 3), keepdim=True)))).mean((2, 3)))
        return logits


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.Hardsigmoid(),
    "module in place": nn.Hardsigmoid(inplace=True),
    "function": F.hardsigmoid,
    "function by keyword": lambda x: F.hardsigmoid(input=x),
    "function in place": lambda x: F.hardsigmoid(x, True),
}


def mobile_network(gate: str = "module") -> nn.Module:
    return HardGate(GATES[gate]).eval()


def written_out(network: nn.Module) -> nn.Module:
    """The same network with the hard sigmoid as the clamp it is."""
    del network.gate  # which is a module, and may then be none
    object.__setattr__(network, "gate", lambda x: ((x + 3) / 6).clamp(0, 1))
    return network


def kdiga_gradients(student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """d/dw of mean(CE + KL + IGA), by the student's weights."""
    f_t, g_t = logits_and_input_gradient(teacher, x, y, create_graph=False)
    f_s, g_s = logits_and_input_gradient(student, x, y, create_graph=True)
    loss = cross_entropy(f_s, y) + distillation_kl(f_s, f_t, 2.0) + gradient_distance(g_s, g_t)
    return list(torch.autograd.grad(loss.mean(), list(student.parameters())))


def naive_gradients(student: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradient term as it is written down, with whatever operations the student has."""
    x.requires_grad_()
    g = input_gradient(student(x), x, y, create_graph=True)
    return list(torch.autograd.grad(g.square().sum(), list(student.parameters())))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_example_gets_its_own_gradient_whatever_the_batch_size(count: int) -> None:
    network = smooth_network().double()
    x, y = images(count)
    x = x.double()
    _, batched = logits_and_input_gradient(network, x, y, create_graph=False)
    for i in range(count):
        alone = x[i : i + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(alone), y[i : i + 1]), alone)
        torch.testing.assert_close(batched[i : i + 1], gradient, rtol=1e-12, atol=1e-15)


def test_permuting_the_batch_permutes_logits_and_gradients() -> None:
    network = smooth_network().double()
    x, y = images(4)
    order = torch.tensor([2, 0, 3, 1])
    f, g = logits_and_input_gradient(network, x.double(), y, create_graph=False)
    f_permuted, g_permuted = logits_and_input_gradient(network, x.double()[order], y[order], create_graph=False)
    torch.testing.assert_close(f_permuted, f[order], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(g_permuted, g[order], rtol=1e-12, atol=1e-15)


def test_the_gradient_of_a_linear_network_is_the_weights_times_the_residual() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, CLASSES)).double()
    x, y = images(4)
    f, g = logits_and_input_gradient(network, x.double(), y, create_graph=False)
    residual = f.softmax(1) - F.one_hot(y, CLASSES)
    torch.testing.assert_close(
        g.flatten(1), residual @ network.get_parameter("1.weight").detach(), rtol=1e-12, atol=1e-15
    )


def test_a_frozen_teachers_answers_come_detached_and_touch_nothing() -> None:
    network = smooth_network()
    x, y = images(2)
    with torch.no_grad():  # callers need not leave it
        f, g = logits_and_input_gradient(network, x, y, create_graph=False)
    assert not f.requires_grad
    assert not g.requires_grad
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_students_answers_lead_back_to_its_weights() -> None:
    network = smooth_network()
    f, g = logits_and_input_gradient(network, *images(2), create_graph=True)
    for answer in (f, g):
        (slope,) = torch.autograd.grad(answer.square().sum(), network.get_parameter("0.weight"), retain_graph=True)
        assert slope.abs().max() > 0


def test_the_gradient_of_a_bfloat16_network_is_handed_on_in_float32() -> None:
    network = smooth_network().bfloat16()
    x, y = images(2)
    x = x.bfloat16().requires_grad_()
    assert input_gradient(network(x), x, y, create_graph=False).dtype == torch.float32


def test_the_whole_kdiga_loss_passes_gradcheck_through_the_double_backward() -> None:
    """In train mode, so that BatchNorm's coupling of the examples is in it."""

    class Tiny(nn.Module):
        def __init__(self, parameters: list[Tensor]) -> None:
            super().__init__()
            self.tensors = parameters

        def forward(self, x: Tensor) -> Tensor:
            kernel, weight, bias, head = self.tensors
            h = F.silu(F.batch_norm(F.conv2d(x, kernel), None, None, weight, bias, training=True))
            return h.flatten(1) @ head

    def tensors(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shapes: tuple[tuple[int, ...], ...] = ((2, 1, 3, 3), (2,), (2,), (8, CLASSES))
        return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]

    x, y = images(3, channels=1, side=4)
    f_t, g_t = logits_and_input_gradient(Tiny(tensors(1)), x.double(), y, create_graph=False)

    def loss(*parameters: Tensor) -> Tensor:
        f_s, g_s = logits_and_input_gradient(Tiny(list(parameters)), x.double(), y, create_graph=True)
        return cross_entropy(f_s, y) + distillation_kl(f_s, f_t, 2.0) + 3 * gradient_distance(g_s, g_t)

    assert torch.autograd.gradcheck(loss, [tensor.requires_grad_() for tensor in tensors(2)])


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_loss_and_gradient_are_zero_when_student_is_teacher(p: float) -> None:
    network = smooth_network()
    x, y = images(3)
    f_s, g_s = logits_and_input_gradient(network, x, y, create_graph=True)
    f_t, g_t = f_s.detach(), g_s.detach()
    iga, kl = gradient_distance(g_s, g_t, p), distillation_kl(f_s, f_t, 4.0)
    assert torch.equal(iga, torch.zeros(3))
    assert torch.equal(kl, torch.zeros(3))
    for slope in torch.autograd.grad(iga.sum(), list(network.parameters()), retain_graph=True, allow_unused=True):
        assert slope is None or torch.equal(slope, torch.zeros_like(slope))
    for slope in torch.autograd.grad(kl.sum(), list(network.parameters())):
        # T (p_s sum p_t - p_t): sums of float32 probabilities miss 1 by some 1e-7; the factors here are under 100.
        assert slope.abs().max() < 1e-5


def test_the_gradient_is_the_same_to_rounding_with_and_without_a_graph_for_the_second_derivative() -> None:
    """Not to the bit: PyTorch writes some first derivatives in other operations where they must be differentiable."""
    network = smooth_network()
    x, y = images(3)
    _, plain = logits_and_input_gradient(network, x, y, create_graph=False)
    _, kept = logits_and_input_gradient(network, x, y, create_graph=True)
    # A few roundings of 6e-8, relative to the largest entry.
    assert (plain - kept).abs().max() <= 1e-6 * plain.abs().max()


@pytest.mark.parametrize(
    ("network", "reference"),
    [(vision_transformer, lambda: plain_attention(vision_transformer()))]
    + [((lambda gate=gate: mobile_network(gate)), lambda: written_out(mobile_network())) for gate in GATES],
    ids=["vision transformer", *GATES],
)
def test_a_kdiga_step_equals_the_float64_reference(
    network: Callable[[], nn.Module], reference: Callable[[], nn.Module]
) -> None:
    teacher = smooth_network()
    x, y = images(3)
    found = kdiga_gradients(network(), teacher, x, y)
    exact = kdiga_gradients(reference().double(), teacher.double(), x.double(), y)
    scale = max(float(slope.abs().max()) for slope in exact)
    for slope, exact_slope in zip(found, exact, strict=True):
        # Some thousand float32 operations deep: a few hundred roundings of 6e-8, relative to the largest entry.
        torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("network", [vision_transformer, mobile_network])
def test_outside_double_backward_a_kdiga_step_still_fails_so_the_cures_are_needed(
    network: Callable[[], nn.Module],
) -> None:
    """Should this stop raising, PyTorch has learnt the second derivative, and the cure can go."""
    with pytest.raises(RuntimeError, match=r"not implemented|not differentiable"):
        naive_gradients(network(), *images(2))


@pytest.mark.parametrize("network", [vision_transformer, mobile_network])
def test_only_the_forward_needs_to_run_inside_double_backward(network: Callable[[], nn.Module]) -> None:
    student, (x, y) = network(), images(2)
    x.requires_grad_()
    with double_backward():
        logits = student(x)
    g = input_gradient(logits, x, y, create_graph=True)
    slopes = torch.autograd.grad(g.square().sum(), list(student.parameters()))
    assert all(slope.isfinite().all() for slope in slopes)
    assert any(slope.abs().max() > 0 for slope in slopes)


@pytest.mark.parametrize("network", [vision_transformer, mobile_network, smooth_network])
def test_double_backward_leaves_forward_outputs_the_same_to_rounding(network: Callable[[], nn.Module]) -> None:
    student, (x, _) = network(), images(4)
    outside = student(x)
    with double_backward():
        inside = student(x)
    # The same function by other kernels: a few roundings of logits of size 1.
    torch.testing.assert_close(inside, outside, rtol=1e-5, atol=1e-6)


def test_the_hard_sigmoid_is_the_same_on_and_around_its_kinks() -> None:
    x = torch.tensor([-1e9, -3.0, -2.999, -1.0, 0.0, 2.999, 3.0, 1e9])
    with double_backward():
        inside = F.hardsigmoid(x)
    torch.testing.assert_close(inside, F.hardsigmoid(x), rtol=1e-6, atol=1e-7)


def test_double_backward_is_gone_after_it_even_after_an_error() -> None:
    def fails() -> None:
        x = torch.zeros(1, requires_grad=True)
        (g,) = torch.autograd.grad(F.hardsigmoid(x).square().sum(), x, create_graph=True)
        torch.autograd.grad(g.sum(), x)

    with double_backward():
        fails()  # which it does not, inside
    with pytest.raises(RuntimeError, match="not implemented"):
        fails()
    with pytest.raises(KeyError), double_backward():
        raise KeyError
    with pytest.raises(RuntimeError, match="not implemented"):
        fails()
    with pytest.raises(RuntimeError, match="not implemented"):
        naive_gradients(vision_transformer(), *images(1))
