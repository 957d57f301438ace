"""Votes: one stream an image, whatever shares its forwards, wherever a run was killed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.errors import CheckpointError
from kdcompress.evaluation.smoothing import votes as votes_module
from kdcompress.evaluation.smoothing.kept import NOWHERE, KeptVotes
from kdcompress.evaluation.smoothing.votes import BLOCK, Noise, Procedure, Votes, ask
from kdcompress.maths.randomness import generator

CPU = torch.device("cpu")
NOISE = Noise(0.5, 3)
How = Callable[[int], Procedure[Votes]]
ASKED = (1, 30, 50, 51, 130, 200, 333)
"""Draws that images ask for in all, in turn: inside a block, at its end, across several."""


def plain(n: int) -> Procedure[Votes]:
    votes = yield n
    return votes


def in_steps(n: int) -> Procedure[Votes]:
    """The same number, asked for little by little."""
    for sofar in range(20, n, 35):
        votes = yield sofar
        assert len(votes) == sofar
    votes = yield n
    return votes


def asked(
    model: nn.Module,
    images: Split,
    batch_size: int = 64,
    kept: KeptVotes = NOWHERE,
    how: How = plain,
    noise: Noise = NOISE,
) -> list[list[int]]:
    answers = ask(
        model,
        images,
        noise,
        lambda number: how(ASKED[int(images.ids[number]) % len(ASKED)]),
        batch_size=batch_size,
        device=CPU,
        kept=kept,
    )
    return [votes.tolist() for votes in answers]


class Counted(nn.Module):
    """The same network; counts inputs, and dies after so many forwards."""

    def __init__(self, network: nn.Module, forwards: int = 10**9) -> None:
        super().__init__()
        self.network, self.left = network, forwards
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        self.sizes.append(len(x))
        logits: Tensor = self.network(x)
        return logits


class KilledError(Exception):
    pass


def test_votes_are_those_of_a_loop_over_images_and_blocks(bright: nn.Module, greys: Split) -> None:
    expected = []
    for number, (x, _) in enumerate(greys.batches(1)):
        seen: list[int] = []
        for block in range(10):
            draws = generator(NOISE.seed, f"smoothing {greys.ids[number]} {block}")
            noise = torch.randn((BLOCK, 1, 3, 3), generator=draws)
            seen += [int(bright(x + NOISE.sigma * e).argmax()) for e in noise]
        expected.append(seen[: ASKED[number % len(ASKED)]])
    assert asked(bright, greys) == expected


@pytest.mark.parametrize("batch_size", [1, 7, 50, 64, 10_000])
@pytest.mark.parametrize("how", [plain, in_steps])
def test_the_batch_size_and_how_they_are_asked_for_change_no_vote_and_make_none_in_vain(
    bright: nn.Module, greys: Split, batch_size: int, how: How
) -> None:
    images = greys.subset(range(9))
    network = Counted(bright)
    found = asked(network, images, batch_size, how=how)
    assert found == asked(bright, images)
    assert sum(network.sizes) == sum(map(len, found))
    assert max(network.sizes) <= batch_size


def test_an_images_votes_do_not_depend_on_its_company_or_place(bright: nn.Module, greys: Split) -> None:
    together = asked(bright, greys)
    backwards = asked(bright, greys.subset(range(24, -1, -1)))
    assert backwards[::-1] == together
    assert asked(bright, greys.subset([7])) == together[7:8]


def test_images_and_seeds_have_noise_of_their_own(bright: nn.Module, greys: Split) -> None:
    first, second = (NOISE.block(name, 0, torch.Size((1, 3, 3)), torch.device("cpu")) for name in ("a", "b"))
    later = NOISE.block("a", 1, torch.Size((1, 3, 3)), torch.device("cpu"))
    assert not torch.equal(first, second) and not torch.equal(first, later)
    assert asked(bright, greys) != asked(bright, greys, noise=Noise(0.5, 4))


def test_draws_of_several_images_share_a_forward(bright: nn.Module, greys: Split) -> None:
    images = greys.subset(range(9))
    network = Counted(bright)
    ask(network, images, NOISE, lambda _: in_steps(200), batch_size=120, device=CPU)
    # 1,800 draws; one image after the other asks for 7 times 20 to 55 of them.
    assert len(network.sizes) <= 20 < 9 * 7


@pytest.mark.parametrize("how", [plain, in_steps])
def test_killed_anywhere_and_started_again_it_ends_with_the_same_votes(
    bright: nn.Module,
    greys: Split,
    tmp_path: Path,
    how: How,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(votes_module, "SAVED_EVERY", 60)
    whole = asked(bright, greys, how=how)
    for attempt in range(200):
        network = Counted(bright, forwards=6 + attempt)
        try:
            found = asked(network, greys, 40, KeptVotes(tmp_path, bright), how)
            break
        except KilledError:
            continue
    assert attempt > 2
    assert found == whole


def test_what_is_kept_is_not_drawn_again_and_more_draws_go_on_from_it(
    bright: nn.Module, greys: Split, tmp_path: Path
) -> None:
    images = greys.subset(range(9))
    kept = KeptVotes(tmp_path, bright)
    asked(bright, images, kept=kept)
    again = Counted(bright)
    assert asked(again, images, kept=kept) == asked(bright, images)
    assert again.sizes == []
    longer = Counted(bright)
    more = ask(longer, images, NOISE, lambda _: plain(400), batch_size=64, device=CPU, kept=kept)
    fresh = ask(bright, images, NOISE, lambda _: plain(400), batch_size=64, device=CPU)
    assert [a.tolist() for a in more] == [b.tolist() for b in fresh]
    assert sum(longer.sizes) == 9 * 400 - sum(map(len, asked(bright, images)))


def test_a_network_that_answers_otherwise_by_now_votes_anew(bright: nn.Module, greys: Split, tmp_path: Path) -> None:
    class Opposite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = -bright(x)
            return logits

    other = Opposite()
    asked(bright, greys, kept=KeptVotes(tmp_path, bright))
    assert asked(other, greys, kept=KeptVotes(tmp_path, other)) == asked(other, greys)


def test_other_pixels_under_the_same_name_have_votes_of_their_own(
    bright: nn.Module, greys: Split, tmp_path: Path
) -> None:
    asked(bright, greys, kept=KeptVotes(tmp_path, bright))
    assert isinstance(greys.pixels, Tensor)
    paler = Split(greys.labels, greys.ids, greys.pixels + 60, greys.rows)
    assert asked(bright, paler, kept=KeptVotes(tmp_path, bright)) == asked(bright, paler)


@pytest.mark.parametrize("harm", [b"", b"nonsense", None])
def test_a_damaged_file_is_as_good_as_none(bright: nn.Module, greys: Split, tmp_path: Path, harm: bytes | None) -> None:
    asked(bright, greys, kept=KeptVotes(tmp_path, bright))
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-3] if harm is None else harm)
    assert asked(bright, greys, kept=KeptVotes(tmp_path, bright)) == asked(bright, greys)


def test_votes_that_cannot_be_written_are_told_and_cost_nothing(
    bright: nn.Module, greys: Split, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    kept = KeptVotes(tmp_path / "file" / "kept", bright)
    assert asked(bright, greys, kept=kept) == asked(bright, greys)
    assert kept.note is not None and "cannot be kept" in kept.note


def test_out_of_memory_halves_the_forward_and_changes_no_vote(bright: nn.Module, greys: Split) -> None:
    class Small(Counted):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    small = Small(bright)
    assert asked(small, greys) == asked(bright, greys)
    assert max(small.sizes) == 16  # 64, 32, 16

    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        asked(Full(), greys)


def test_progress_counts_images_up_to_all_of_them(bright: nn.Module, greys: Split) -> None:
    heard: list[tuple[int, int]] = []
    ask(
        bright,
        greys,
        NOISE,
        lambda _: in_steps(120),
        batch_size=64,
        device=CPU,
        on_progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(done, 25) for done in range(1, 26)]


def test_votes_have_the_rate_of_the_stated_noise(bright: nn.Module, greys: Split) -> None:
    """P(mean of 9 pixels over 1/2) under N(0, sigma^2) a pixel; the third image has 97 of 255."""
    (found,) = ask(bright, greys.subset([2]), NOISE, lambda _: plain(20_000), batch_size=2000, device=CPU)
    p = 1 - torch.distributions.Normal(97 / 255, NOISE.sigma / 3).cdf(torch.tensor(0.5))
    # Four standard errors: once in 16,000 seeds.
    assert abs(np.mean(found) - float(p)) < 4 * float((p * (1 - p) / 20_000).sqrt())


def test_an_answer_that_is_no_number_is_no_vote(greys: Split) -> None:
    class Root(nn.Module):
        """Fine on images, NaN on what noise makes of them."""

        def forward(self, x: Tensor) -> Tensor:
            f = x.sqrt().flatten(1).sum(1)
            return torch.stack([f, -f], 1)

    with pytest.raises(CheckpointError, match=r"NaN or infinity .* noise of sigma 0\.5") as caught:
        asked(Root(), greys)
    assert "\n" not in str(caught.value)
