"""Averages: the mean of the epochs' weights, and statistics of BatchNorm that move nothing else."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.data.loading import Data
from kdcompress.progress import Validation
from kdcompress.settings import RunSettings
from kdcompress.training import statistics
from kdcompress.training.averaging import averaging
from kdcompress.training.batches import Batches
from kdcompress.training.loop import Fitted, fit
from kdcompress.training.recipes import Recipe
from kdcompress.training.statistics import refreshing

CPU = torch.device("cpu")
SQUARE = Recipe(lambda net, weights, x, y: {"square": (net(x)[:, 0] - y).square()}, lambda step, steps: {"square": 1.0})


def trained(epochs: int, **run: object) -> tuple[Fitted, list[Tensor]]:
    """A run of two steps an epoch, and the raw weights at the end of each."""
    ends: list[Tensor] = []
    torch.manual_seed(0)
    net = nn.Linear(2, 1)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(epoch)
        for _ in range(2):
            x = torch.randn(4, 2, generator=random)
            yield x, x.sum(1)
        ends.append(net.weight.detach().clone())  # asked for a third batch: the second step is taken

    fitted = fit(
        net,
        SQUARE,
        Batches(lambda epoch, skip: batches(epoch)),
        steps_per_epoch=2,
        run=RunSettings.of(**({"epochs": epochs, "lr": 0.1} | run)),
        validate=lambda model: Validation(0.5, 0.5, 4),
        device=CPU,
    )
    return fitted, ends


@pytest.mark.parametrize(("epochs", "start", "averaged"), [(8, 0.75, 3), (8, 0.0, 8), (8, 1.0, 1), (1, 0.75, 1)])
def test_swa_is_the_mean_of_the_weights_at_the_epochs_ends_from_its_start_on(
    epochs: int, start: float, averaged: int
) -> None:
    fitted, ends = trained(epochs, average="swa", swa_start=start)
    assert len(ends) == epochs
    mean = torch.stack(ends[-averaged:]).double().mean(0)
    assert isinstance(fitted.last.model, nn.Linear) and fitted.last.weights == "averaged"
    torch.testing.assert_close(fitted.last.model.weight.double(), mean, rtol=1e-6, atol=1e-7)  # float32


def test_before_swa_starts_the_raw_weights_alone_are_validated() -> None:
    fitted, _ = trained(4, average="swa", swa_start=0.75)
    assert [line.validated for line in fitted.history] == ["raw", "raw", "averaged", "averaged"]
    assert [line.other_validation is None for line in fitted.history] == [True, True, False, False]


@pytest.mark.parametrize("average", ["swa", "none"])
def test_no_average_moves_the_training(average: str) -> None:
    assert all(map(torch.equal, trained(5, average=average)[1], trained(5)[1]))


def normed() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))


@pytest.fixture
def data(halves: Split) -> Data:
    """60 grey images, all of them to train on."""
    return Data(
        "halves", ("0", "1", "2"), (1, 8, 8), train=halves, holdout=None, test=None, flips=False, crop_padding=1
    )


def test_refreshed_statistics_are_those_of_the_images_as_training_sees_them(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BATCHES", 4)
    images = next(data.train.batches(60))[0] if data.train is not None else torch.empty(0)
    net = normed()
    run = RunSettings(batch_size=15, augment="none")  # four batches are all 60 images
    refreshing(data, run, CPU)(net)
    maps = net[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[1].running_mean, maps.mean(1), rtol=1e-4, atol=1e-5)  # float32 means of means
    # The mean of the batches' variances lacks the variance between their means: a few percent.
    torch.testing.assert_close(net[1].running_var, maps.var(1), rtol=0.1, atol=1e-4)


def test_statistics_are_taken_under_the_noise_that_is_trained_on(data: Data) -> None:
    quiet, noisy = normed(), normed()
    refreshing(data, RunSettings(augment="none"), CPU)(quiet)
    refreshing(data, RunSettings(augment="none", noise_sigma=1.0), CPU)(noisy)
    added = noisy[1].running_var - quiet[1].running_var
    expected = noisy[0].weight.square().sum((1, 2, 3))  # of a convolution of N(0, 1)
    torch.testing.assert_close(added, expected, rtol=0.2, atol=0.0)  # 60 images of 36 positions


def test_refreshing_repeats_and_leaves_every_random_stream_where_it_was(data: Data) -> None:
    first, again = normed(), normed()
    refresh = refreshing(data, RunSettings(batch_size=15, noise_sigma=0.1), CPU)
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    refresh(first)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    refresh(again)
    assert torch.equal(first[1].running_mean, again[1].running_mean)
    assert torch.equal(first[1].running_var, again[1].running_var)
    assert first.training and first[1].momentum == 0.1


def test_swa_has_statistics_of_its_own_and_not_the_last_networks() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2))
    refreshed: list[nn.Module] = []

    def refresh(model: nn.Module) -> None:
        refreshed.append(model)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
                module.running_mean.fill_(7.0)

    average = averaging(net, RunSettings(average="swa"), refresh)
    assert average.network() is None and not refreshed
    average.after_epoch(net, 0.5)
    assert average.network() is None
    average.after_epoch(net, 0.75)
    found = average.network()
    assert found is refreshed[0] and found is not net and not found.training
    assert float(found[0].running_mean[0]) == 7.0 and float(net[0].running_mean[0]) == 0.0  # type: ignore[index]
