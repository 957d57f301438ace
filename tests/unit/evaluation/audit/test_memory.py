"""As much at once as fits."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from kdcompress.evaluation.audit.memory import Room, TooLargeError, bytes_of_pass, memory_limit, room
from tests.unit.evaluation.audit.networks import CPU

MIB = 2**20


@pytest.mark.parametrize("limit", [30, 31, 100, 1000, 10_000])
@pytest.mark.parametrize("rows_an_image", [1, 9])
@pytest.mark.parametrize("most", [1, 7, 250])
def test_what_goes_at_once_fits_and_is_as_much_as_was_asked_for_at_most(
    limit: int, rows_an_image: int, most: int
) -> None:
    fits = room(limit, image=20, row=10, rows_an_image=rows_an_image, most=most)
    assert fits.images >= 1 and 1 <= fits.rows <= most
    assert fits.images * 20 + fits.rows * 10 <= limit


def test_with_memory_to_spare_the_batch_decides() -> None:
    assert room(10**9, image=20, row=10, rows_an_image=9, most=250) == Room(images=27, rows=250)


def test_what_does_not_fit_says_how_much_it_needs() -> None:
    with pytest.raises(TooLargeError, match=r"needs 2\.5 GiB for one image, and 0.5 GiB may be taken"):
        room(512 * MIB, image=2048 * MIB, row=512 * MIB, rows_an_image=9, most=250)


def test_the_limit_is_the_one_named_or_a_share_of_what_is_free() -> None:
    assert memory_limit(12345, CPU) == 12345
    assert memory_limit(None, CPU) > MIB


MEASURED = """
import resource, torch
from pathlib import Path
from torch import nn
from kdcompress.evaluation.audit.memory import bytes_of_pass
torch.set_num_threads(1)
layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten()]
model = nn.Sequential(*layers, nn.Linear(16 * 64 * 64, 10)).double().eval().requires_grad_(False)
x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
told = bytes_of_pass(model, x)
model(x.requires_grad_()).sum().backward()
many = torch.rand(128, 3, 64, 64, dtype=torch.float64, requires_grad=True)
before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
model(many).sum().backward()
print(128 * told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_pass_takes_no_more_than_was_told_and_not_far_less() -> None:
    ran = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    told, taken = map(int, ran.stdout.split())
    assert taken <= told <= 3 * taken


def test_weights_do_not_count_and_views_are_free() -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).eval().requires_grad_(False)
    assert bytes_of_pass(wide, torch.zeros(1, 1, 2, 3)) <= 3 * 4 * 4  # four floats, and again for the backward
