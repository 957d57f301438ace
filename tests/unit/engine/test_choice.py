"""The choice on one batch: what is taken, what is refused, what is said; and that the student is left as it was."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn

from kdcompress.engine import choice, choose, exact
from kdcompress.engine.compiled import compiled
from kdcompress.errors import UsageError
from kdcompress.maths.losses import logit_directions
from kdcompress.maths.randomness import generator
from tests.unit.engine.networks import Batch, OnceLayer, student


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces and differentiates as the real one, and leaves out the minutes of code generation."""
    monkeypatch.setattr("kdcompress.engine.compiled.inductor", lambda gm, example_inputs: make_boxed_func(gm.forward))


def test_a_short_run_takes_the_exact_way_without_trying_the_compiler(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "compiled", lambda *_: pytest.fail("tried"))
    _, chosen = choose("auto", student(nn.ReLU), *batch, p=2, steps=10)
    assert chosen.mode == "exact" and "exact" in chosen.line and chosen.milliseconds["exact"] > 0


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("faster", ["exact", "compiled"])
def test_a_long_run_takes_the_faster_of_the_two(batch: Batch, faster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 2.0] if faster == "exact" else [2.0, 1.0])
    monkeypatch.setattr(choice, "_milliseconds", lambda *_: next(times))
    _, chosen = choose("auto", student(nn.SiLU), *batch, p=2, steps=10**9)
    assert chosen.mode == faster
    assert chosen.cosine is not None and chosen.cosine > 0.999999


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("p", [1, 2])
def test_compiled_steps_are_the_exact_ones_and_move_the_statistics_alike(batch: Batch, p: float) -> None:
    one, two = student(nn.SiLU), student(nn.SiLU)
    ways = [(one, compiled(one, p)), (two, exact(p))]
    for network, align in ways:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            f, distance = align(network, *batch)
            (nn.functional.cross_entropy(f, batch[1]) + distance.mean()).backward()
            optimizer.step()
    # Three float32 steps whose operations are ordered otherwise.
    torch.testing.assert_close(one.state_dict(), two.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fails", [False, True])
def test_other_shapes_than_the_first_are_compiled_once_more_and_then_go_the_exact_way(
    batch: Batch, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def compiler(gm: torch.fx.GraphModule, example_inputs: Sequence[Tensor]) -> Callable[..., object]:
        sizes.append(max(len(t) for t in example_inputs if isinstance(t, Tensor) and t.dim() == 4))
        if fails and len(example_inputs[0]) != 8:
            raise AssertionError("as compilers do")
        return make_boxed_func(gm.forward)

    monkeypatch.setattr("kdcompress.engine.compiled.inductor", compiler)
    network = student(nn.SiLU)
    align = compiled(network, 2)
    for images in (8, 5, 5, 3, 8):
        x, y, g_t = (part[:images] for part in batch)
        twin = copy.deepcopy(network)
        found, expected = align(network, x, y, g_t), exact(2)(twin, x, y, g_t)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)  # float32, ordered otherwise
        torch.testing.assert_close(network.state_dict(), twin.state_dict())
    assert set(sizes) <= {8, 6, 5}  # six channels lead the weights; three images are never compiled for


def test_machine_code_draws_the_dropout_masks_of_the_exact_way_and_has_its_gradient(batch: Batch) -> None:
    """The one test that waits for the real compiler: a cosine of 1 with dropout means the same masks."""
    network = student(nn.SiLU, dropout=0.5)
    _, chosen = choose("compiled", network, *batch, p=2, steps=10)
    assert chosen.mode == "compiled" and chosen.cosine is not None and chosen.cosine > 0.999999


@pytest.mark.parametrize("fault", ["wrong", "refused"])
def test_a_compiler_that_fails_the_check_is_not_trusted(
    batch: Batch, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(network: nn.Module, p: float) -> choice.Alignment:
        def align(network: nn.Module, x: Tensor, y: Tensor, g_t: Tensor) -> tuple[Tensor, Tensor]:
            if fault == "refused":
                raise RuntimeError("Unsupported: something")
            return exact(p)(network, x, y, -g_t)

        return align

    monkeypatch.setattr(choice, "compiled", broken)
    _, chosen = choose("compiled", student(nn.SiLU), *batch, p=2, steps=10)
    assert chosen.mode == "exact" and "failed the check" in chosen.line
    assert ("Unsupported" in chosen.line) is (fault == "refused")


def test_a_smooth_student_without_a_second_derivative_gets_finite_differences_and_is_told_why(batch: Batch) -> None:
    align, chosen = choose("auto", student(OnceLayer), *batch, p=2, steps=10)
    assert chosen.mode == "finite-difference" and "once_differentiable" in chosen.line and chosen.cosine is None
    _, distance = align(student(OnceLayer), *batch)
    assert distance.requires_grad


def test_one_with_kinks_too_is_refused_with_their_names_and_the_mode_that_would_go_on(batch: Batch) -> None:
    kinked = student(lambda: nn.Sequential(nn.ReLU(), OnceLayer()))
    with pytest.raises(UsageError, match=r"once_differentiable.*finite-difference.*relu"):
        choose("auto", kinked, *batch, p=2, steps=10)
    _, chosen = choose("finite-difference", kinked, *batch, p=2, steps=10)
    assert chosen.mode == "finite-difference" and "another objective" in chosen.line


@pytest.mark.parametrize("mode", ["exact", "compiled"])
def test_a_mode_that_was_asked_for_and_cannot_work_is_refused(batch: Batch, mode: choice.Mode) -> None:
    with pytest.raises(UsageError, match=f"--iga-mode {mode} does not work for this student: .*once_differentiable"):
        choose(mode, student(OnceLayer), *batch, p=2, steps=10)


def test_finite_differences_that_were_asked_for_come_with_their_cosine(batch: Batch) -> None:
    _, smooth = choose("finite-difference", student(nn.SiLU), *batch, p=2, steps=10)
    assert smooth.cosine is not None and smooth.cosine > 0.9999 and f"{smooth.cosine:.4f}" in smooth.line
    _, kinked = choose("finite-difference", student(nn.ReLU), *batch, p=2, steps=10)
    assert kinked.cosine is not None and kinked.cosine < smooth.cosine and "kinks (relu)" in kinked.line


def test_finite_differences_know_only_the_norm_of_eq_14(batch: Batch) -> None:
    with pytest.raises(UsageError, match="--iga-norm l2"):
        choose("finite-difference", student(nn.SiLU), *batch, p=1, steps=10)


def test_a_student_whose_input_gradient_knows_nothing_of_its_weights_is_refused(batch: Batch) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return 0 * x.sum((1, 2, 3))[:, None] + 0 * self.bias

    with pytest.raises(UsageError, match="zero on the first batch"):
        choose("exact", Constant(), *batch, p=2, steps=10)


@pytest.mark.parametrize("mode", ["auto", "finite-difference"])
def test_the_student_its_statistics_and_the_generators_are_left_as_they_were(batch: Batch, mode: choice.Mode) -> None:
    network = student(nn.SiLU, dropout=0.5)
    before, drawn = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    choose(mode, network, *batch, p=2, steps=10)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert network.training and all(weight.grad is None for weight in network.parameters())


def test_a_missing_derivative_is_named() -> None:
    said = RuntimeError("derivative for aten::_flash_backward is not implemented")
    assert choice._fault(said) == "its operation _flash_backward has no second derivative in PyTorch"


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("mode", ["exact", "compiled", "finite-difference"])
def test_every_mode_aligns_directions_of_the_logits_as_well_as_ce(batch: Batch, mode: choice.Mode) -> None:
    x, _, g_t = batch
    v = logit_directions(len(x), 3, generator(0, "directions"), x.device)
    align, chosen = choose(mode, student(nn.SiLU), x, v, g_t, p=2, steps=10)
    assert chosen.mode == mode
    _, found = align(student(nn.SiLU), x, v, g_t)
    _, expected = exact(2)(student(nn.SiLU), x, v, g_t)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert chosen.cosine is None or chosen.cosine > 0.9999
