"""Random numbers by hashing counters: what they must look like to whoever knows the distribution."""

import pytest
import torch
from scipy import stats

from kdcompress.maths.keyed import keys, normals, uniforms
from kdcompress.maths.norms import keyed_in_ball, norm_of
from kdcompress.maths.randomness import generator
from kdcompress.seats import seated
from kdcompress.threat import Norm, ThreatModel

CPU = torch.device("cpu")
ROWS, COUNT = 64, 20_000


def some_keys(count: int = ROWS, seed: int = 0) -> torch.Tensor:
    return keys(count, generator(seed, "noise"))


def test_uniforms_are_uniform_and_never_0_or_1() -> None:
    found = uniforms(some_keys(), COUNT, CPU)
    assert found.shape == (ROWS, COUNT) and float(found.min()) > 0 and float(found.max()) < 1
    assert stats.kstest(found.flatten().double().numpy(), "uniform").pvalue > 1e-3
    each = torch.histc(found, 1000, 0, 1).double()
    assert stats.chisquare(each.numpy()).pvalue > 1e-3


def test_normals_are_normal() -> None:
    found = normals(some_keys(), COUNT + 1, CPU).double()
    assert found.shape == (ROWS, COUNT + 1)
    assert stats.kstest(found.flatten().numpy(), "norm").pvalue > 1e-3
    assert float(found.abs().max()) > 4.5


@pytest.mark.parametrize("how", ["neighbours in a row", "rows", "rows whose keys differ by a bit", "streams"])
def test_numbers_do_not_know_of_each_other(how: str) -> None:
    one = uniforms(some_keys(), COUNT, CPU)
    if how == "neighbours in a row":
        one, other = one[:, :-1], one[:, 1:]
    elif how == "rows":
        one, other = one[:-1], one[1:]
    elif how == "streams":
        other = uniforms(some_keys(), COUNT, CPU, stream=1)
    else:
        other = uniforms(some_keys() ^ 1, COUNT, CPU)
    n = one.numel()
    found = float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])
    assert abs(found) < 4 / n**0.5
    signs = torch.histogramdd(torch.stack([one.flatten(), other.flatten()], 1), 8, range=[0, 1, 0, 1]).hist
    assert stats.chisquare(signs.flatten().double().numpy()).pvalue > 1e-3


def test_the_same_key_gives_the_same_numbers_and_more_of_them_begin_with_the_fewer() -> None:
    assert uniforms(some_keys(), 50, CPU).equal(uniforms(some_keys(), 99, CPU)[:, :50])
    assert not uniforms(some_keys(seed=1), 50, CPU).equal(uniforms(some_keys(), 50, CPU))


def test_a_process_draws_its_rows_of_the_batch() -> None:
    parts = []
    for rank in (0, 1):
        with seated(rank, 2):
            parts.append(some_keys(ROWS // 2))
    assert torch.cat(parts).equal(some_keys())


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_noise_in_a_ball_is_uniform_there(norm: Norm) -> None:
    """The share of the ball of half the radius is 2^-D; every side of it is as likely."""
    like, threat = torch.zeros(200_000, 1, 1, 3), ThreatModel(norm, 0.4)
    found = keyed_in_ball(like, threat, some_keys(len(like)))
    length = norm_of(found, norm)
    assert float(length.max()) <= 0.4 * (1 + 1e-5)
    assert float((length < 0.2).double().mean()) == pytest.approx(1 / 8, abs=4e-3)
    octant = ((found.flatten(1) > 0) * torch.tensor([1, 2, 4])).sum(1)
    assert stats.chisquare(torch.bincount(octant, minlength=8).numpy()).pvalue > 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_numbers() -> None:
    assert uniforms(some_keys(), COUNT, torch.device("cuda")).cpu().equal(uniforms(some_keys(), COUNT, CPU))
    found, wanted = normals(some_keys(), COUNT, torch.device("cuda")).cpu(), normals(some_keys(), COUNT, CPU)
    assert torch.allclose(found, wanted, atol=1e-5)
