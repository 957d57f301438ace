"""A batch in parts: the same gradient, less memory, and said where BatchNorm makes it another."""

import pytest
import torch
from torch import Tensor, nn

from kdcompress.engine import exact
from kdcompress.errors import TrainingError
from kdcompress.progress import Listener
from kdcompress.settings import LossSettings
from kdcompress.threat import ThreatModel
from kdcompress.training.backward import Backward
from kdcompress.training.finite import Finite
from kdcompress.training.recipes import Recipe, Terms, distillation
from kdcompress.training.recipes.recipe import Weights

WEIGHTS = {"ce": 0.5, "kl": 1.0, "iga": 2.0}


def network(norm: type[nn.Module] | None = None, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    middle = nn.Identity() if norm is None else norm(4)
    return nn.Sequential(nn.Conv2d(1, 4, 3), middle, nn.SiLU(), nn.Flatten(), nn.Linear(4 * 16, 3)).train()


def recipe() -> Recipe:
    loss = LossSettings(input_noise="none", ce_weight=0.5)
    return distillation(
        network(seed=1).eval().requires_grad_(False),
        loss,
        ThreatModel("Linf", 0.1),
        iga_weight=2.0,
        seed=0,
        align=exact(2),
        classes=3,
    )


def batch(count: int = 10) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.rand(count, 1, 6, 6, generator=rng), torch.arange(count) % 3


def gradients(model: nn.Module, micro_batch: int | None, notes: list[str]) -> tuple[list[Tensor], dict[str, Tensor]]:
    backward = Backward(model, recipe(), "float32", Listener(note=notes.append), micro_batch)
    means = backward(batch(), WEIGHTS)
    return [weight.grad for weight in model.parameters() if weight.grad is not None], means


@pytest.mark.parametrize("micro_batch", [2, 3, 7, 10, 99])
def test_without_batch_norm_parts_give_the_whole_batchs_gradient_and_means(micro_batch: int) -> None:
    notes: list[str] = []
    found, means = gradients(network(), micro_batch, notes)
    expected, whole = gradients(network(), None, [])
    # Sums of ten float32 terms in another order.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(means, whole, rtol=1e-5, atol=1e-7)
    assert len(notes) == (micro_batch < 10) and not any("BatchNorm" in note for note in notes)


def test_with_batch_norm_the_changed_statistics_are_named() -> None:
    notes: list[str] = []
    found, _ = gradients(network(nn.BatchNorm2d), 5, notes)
    expected, _ = gradients(network(nn.BatchNorm2d), None, [])
    assert notes == [
        "a batch goes through in 2 parts of at most 5 images; BatchNorm takes its statistics over them, not over 10"
    ]
    assert not torch.allclose(found[0], expected[0], rtol=1e-3)


def short_of_memory(most: int) -> Recipe:
    """Runs out of memory where more than `most` images come at once."""
    inner = recipe()

    def terms(model: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> Terms:
        found = inner.terms(model, weights, x, y)  # statistics have moved by then
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    return Recipe(terms, inner.weights)


def test_where_memory_runs_out_parts_are_halved_until_they_fit_and_stay_so() -> None:
    notes: list[str] = []
    model = network()
    backward = Backward(model, short_of_memory(3), "float32", Listener(note=notes.append))
    backward(batch(), WEIGHTS)
    found = [weight.grad for weight in model.parameters()]
    expected, _ = gradients(network(), None, [])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    told = "out of memory: the batch is taken again in smaller parts; --iga-micro-batch 2 asks for them from the start"
    assert sum("out of memory" in note for note in notes) == 2 and "5 parts" in notes[-1] and told in notes
    before = len(notes)
    backward(batch(), WEIGHTS)
    assert len(notes) == before


def test_a_batch_that_is_taken_again_moves_the_statistics_once() -> None:
    model, plain = network(nn.BatchNorm2d), network(nn.BatchNorm2d)
    before = Finite(model)
    Backward(model, short_of_memory(5), "float32", Listener())(batch(), WEIGHTS, before.take_back)
    Backward(plain, recipe(), "float32", Listener(), micro_batch=5)(batch(), WEIGHTS)
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()), rtol=0, atol=0)


def test_a_batch_whose_statistics_others_share_is_not_taken_again() -> None:
    with pytest.raises(TrainingError, match="over all processes; --iga-micro-batch 5 takes a batch in smaller parts"):
        Backward(network(), short_of_memory(5), "float32", Listener())(batch(), WEIGHTS, None)


def test_where_not_even_two_images_fit_the_run_ends_with_what_was_tried() -> None:
    with pytest.raises(TrainingError, match="out of memory, even with 2 images at a time; use a smaller --image-size"):
        Backward(network(), short_of_memory(0), "float32", Listener())(batch(), WEIGHTS)


def test_other_errors_come_through_at_once() -> None:
    def broken(model: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> Terms:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        Backward(network(), Recipe(broken, lambda step, steps: {}), "float32", Listener())(batch(), WEIGHTS)
