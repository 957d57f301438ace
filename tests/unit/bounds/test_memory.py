"""The limit on memory: where it comes from, what fits in it, and that it is kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.bounds.crown import crown, margins
from kdcompress.bounds.graph import Network, trace
from kdcompress.bounds.memory import MOST_ROWS, available_memory, rows_within
from kdcompress.bounds.region import region
from kdcompress.bounds.verify import Certificate, bounded, certificate
from kdcompress.errors import UsageError
from tests.bounded import ready

CPU = torch.device("cpu")


def machine(folder: Path, available: int, group: str = "") -> tuple[Path, Path]:
    """A /proc and a /sys/fs/cgroup with nothing else in them."""
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available} kB\n")
    (proc / "self" / "cgroup").write_text(group)
    cgroups.mkdir()
    return proc, cgroups


def test_without_control_groups_it_is_what_the_machine_has_left(tmp_path: Path) -> None:
    assert available_memory(CPU, *machine(tmp_path, 5000)) == 5000 * 1024


@pytest.mark.parametrize(
    ("group", "folder", "limit", "used"),
    [
        ("0::/jobs/one\n", "jobs/one", "memory.max", "memory.current"),
        ("0::/not/mounted\n", "", "memory.max", "memory.current"),
        ("7:cpu:/\n4:memory:/jobs/one\n0::/\n", "memory/jobs/one", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_a_control_group_that_leaves_less_counts(
    tmp_path: Path, group: str, folder: str, limit: str, used: str
) -> None:
    proc, cgroups = machine(tmp_path, 5000, group)
    (cgroups / folder).mkdir(parents=True, exist_ok=True)
    (cgroups / folder / limit).write_text("3000000\n")
    (cgroups / folder / used).write_text("1000000\n")
    assert available_memory(CPU, proc, cgroups) == 2_000_000


def test_a_control_group_without_a_limit_counts_for_nothing(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, 5000, "0::/\n")
    (cgroups / "memory.max").write_text("max\n")
    (cgroups / "memory.current").write_text("1000000\n")
    assert available_memory(CPU, proc, cgroups) == 5000 * 1024


def test_this_machine_says_something_sensible() -> None:
    assert 2**20 < available_memory(CPU) < 2**50


@pytest.fixture(scope="module")
def wide() -> Network:
    """Some 1.5 MB of coefficients a row."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return trace(ready(nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(128, 3))), (3, 16, 16))


def test_less_memory_means_fewer_rows_and_the_fastest_number_is_the_most(wide: Network) -> None:
    found = [rows_within(wide, megabytes * 2**20) for megabytes in (90, 120, 200, 400, 100_000)]
    assert found == sorted(found) and 1 <= found[0] < found[2] < found[-1] == MOST_ROWS


def test_a_limit_that_not_one_row_fits_in_is_refused_and_says_what_is_needed(wide: Network) -> None:
    with pytest.raises(UsageError, match=r"need at least \d+ MiB; the limit is 50 MiB"):
        rows_within(wide, 50 * 2**20)


class Deep(nn.Module):
    """Ten layers of 65,536 entries each, whose rows cost next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 64, 1), nn.Linear(64, 2)
        self.shift = nn.Parameter(0.1 * torch.randn(10, 64, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        for b in self.shift:
            h = (0.9 * h + b).relu()
        logits: Tensor = self.fc(h.mean((2, 3)))
        return logits


@pytest.fixture
def peak() -> Callable[[Callable[[], object]], int]:
    """Bytes that a call takes at its worst, beyond what was there before."""
    status, again = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def resident(name: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    def taken(call: Callable[[], object]) -> int:
        try:
            again.write_text("5")  # the peak starts anew
        except OSError:
            pytest.skip("this system does not tell a process's peak anew")
        before = resident("VmRSS")
        call()
        return resident("VmHWM") - before

    return taken


@pytest.mark.parametrize("megabytes", [100, 200])
def test_a_bound_keeps_to_its_limit(wide: Network, megabytes: int, peak: Callable[[Callable[[], object]], int]) -> None:
    x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))

    def bound() -> None:
        with torch.no_grad():
            known = crown(wide, wide, region(x, "Linf", 0.0002), rows=rows_within(wide, megabytes * 2**20))
            margins(known, 0)

    assert peak(bound) <= megabytes * 2**20


def test_a_search_which_goes_from_ball_to_ball_keeps_to_its_limit_too(
    peak: Callable[[Callable[[], object]], int],
) -> None:
    """Of a network with so many entries that what is known about one ball is most of the limit."""
    torch.manual_seed(0)
    model = ready(Deep())
    x = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    model.fc.bias += torch.tensor([1e-5, 0.0]) - model(x[None])[0]  # so near the boundary that few signs are open
    limit = 356 * 2**20
    subject = bounded(model, (1, 32, 32), memory=limit)
    found: list[Certificate] = []
    assert peak(lambda: found.append(certificate(subject, x, 0, "Linf", (0.00027,)))) <= limit
    assert found[0].verified == (False,)  # by both types, and then the search
