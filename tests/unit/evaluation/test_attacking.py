"""Verdicts under attack, on a network whose robust accuracy is known; and what a kill costs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from kdcompress.attacks.plans import Plan, Stage, plan_of
from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.errors import UsageError
from kdcompress.evaluation.accuracy import Verdicts
from kdcompress.evaluation.attacking import Conditions, under_attack
from kdcompress.evaluation.kept import Kept
from kdcompress.progress import AttackProgress
from kdcompress.threat import NORMS, Norm, ThreatModel

CPU = torch.device("cpu")


def conditions(plan: Plan | str = "pgd-5", radii: tuple[float, ...] = (0.05,), chunk: int = 25) -> Conditions:
    chosen = plan_of(plan, classes=2, norm="Linf") if isinstance(plan, str) else plan
    return Conditions(chosen, "Linf", radii, seed=0, chunk=chunk, batch_size=chunk, device=CPU)


def attacked(model: nn.Module, images: Split, how: Conditions, **rest: object) -> Verdicts:
    return under_attack(model, images, how, **rest)  # type: ignore[arg-type]


def one_stage(answer: Callable[[Tensor, Tensor], Tensor], name: str = "own") -> Plan:
    return Plan("own", (Stage(name, lambda model, x, y, threat, seed: (answer(x, y), ()), 1.0),))


def exactly(images: Split, eps: float) -> Tensor:
    """Right, and further than eps from one half."""
    mean = torch.cat([x for x, _ in images.batches(99)]).flatten(1).mean(1)
    return ((mean > 0.5) == (images.labels == 1)) & ((mean - 0.5).abs() > eps)


@pytest.mark.parametrize("eps", [0.005, 0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("chunk", [1, 7, 25])
def test_on_a_linear_network_pgd_finds_the_true_robust_accuracy_whatever_the_chunks(
    bright: nn.Module, greys: Split, eps: float, chunk: int
) -> None:
    found = attacked(bright, greys, conditions(radii=(eps,), chunk=chunk))
    assert torch.equal(found.stood(eps), exactly(greys, eps))
    assert torch.equal(found.right, exactly(greys, 0.0))
    assert found.plan.name == "PGD-5"


@pytest.mark.parametrize("attack", ["pgd-5", "apgd"])
def test_robust_accuracy_over_eps_is_the_true_one_at_every_radius(bright: nn.Module, greys: Split, attack: str) -> None:
    radii = (0.005, 0.02, 0.05, 0.1)
    found = attacked(bright, greys, conditions(attack, radii))
    for eps in radii:
        assert torch.equal(found.stood(eps), exactly(greys, eps))


def test_images_that_fell_at_one_radius_are_not_attacked_at_the_next(bright: nn.Module, greys: Split) -> None:
    asked: list[tuple[float, int]] = []

    def run(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> tuple[Tensor, tuple[str, ...]]:
        asked.append((threat.eps, len(x)))
        return x - (2 * y - 1).view(-1, 1, 1, 1) * threat.eps, ()

    attacked(bright, greys, conditions(Plan("own", (Stage("own", run, 1.0),)), (0.02, 0.05)))
    assert asked == [(0.02, int(exactly(greys, 0.0).sum())), (0.05, int(exactly(greys, 0.02).sum()))]


def test_an_image_that_is_wrong_stays_wrong_even_if_the_attack_makes_it_right(bright: nn.Module, greys: Split) -> None:
    towards_the_label = one_stage(lambda x, y: x + (2 * y - 1).view(-1, 1, 1, 1) * 0.3)
    found = attacked(bright, greys, conditions(towards_the_label, (0.3,)))
    assert not found.right[-1] and not found.stood(0.3)[-1]
    assert torch.equal(found.stood(0.3), found.right)


def test_an_answer_outside_the_ball_is_brought_back_before_it_counts(bright: nn.Module, greys: Split) -> None:
    wild = one_stage(lambda x, y: x - (2 * y - 1).view(-1, 1, 1, 1) * 5.0)
    found = attacked(bright, greys, conditions(wild, (0.02,)))
    assert torch.equal(found.stood(0.02), exactly(greys, 0.02))


def test_an_answer_that_is_no_number_breaks_nothing(bright: nn.Module, greys: Split) -> None:
    found = attacked(bright, greys, conditions(one_stage(lambda x, y: x * torch.nan), (0.3,)))
    assert torch.equal(found.stood(0.3), exactly(greys, 0.0))


def test_every_chunk_has_a_seed_of_its_own(bright: nn.Module, greys: Split) -> None:
    seeds: list[int] = []

    def run(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> tuple[Tensor, tuple[str, ...]]:
        seeds.append(seed)
        return x, ()

    attacked(bright, greys, replace(conditions(Plan("own", (Stage("own", run, 1.0),)), chunk=10), seed=5))
    assert seeds == [5, 6, 7]


def test_the_real_package_breaks_what_can_be_broken(bright: nn.Module, greys: Split) -> None:
    near = greys.subset([11, 12, 13, 24])  # within 3 of 127.5, and the wrong label
    found = attacked(bright, near, conditions("autoattack"))
    assert found.stood(0.05).tolist() == [False] * 4
    assert found.right.tolist() == [True, True, True, False]
    assert "not AutoAttack" in found.plan.name  # two classes


def test_images_that_are_all_wrong_need_no_attack(bright: nn.Module, greys: Split) -> None:
    found = attacked(bright, greys.subset([24, 24]), conditions("autoattack"))
    assert found.right.tolist() == found.stood(0.05).tolist() == [False, False]


@pytest.fixture
def digits() -> tuple[nn.Module, Split]:
    """Ten classes, and images that are right."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval().requires_grad_(False)
    pixels = torch.randint(0, 256, (10, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return model, split_from_pixels(pixels, model(pixels / 255).argmax(1))


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.04), ("L2", 0.2), ("L1", 0.8)])
def test_verdicts_equal_those_of_the_package_called_directly_for_each_chunk(
    norm: Norm, eps: float, digits: tuple[nn.Module, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, attribute, most in (
        ("APGDAttack", "n_iter", 10),
        ("APGDAttack_targeted", "n_iter", 10),
        ("FABAttack_PT", "n_iter", 10),
        ("SquareAttack", "n_queries", 50),
    ):
        kind = getattr(pyautoattack.autoattack, name)
        fixed = property(lambda self, most=most: most, lambda self, value: None)  # seconds instead of minutes
        monkeypatch.setattr(pyautoattack.autoattack, name, type(name, (kind,), {attribute: fixed}))
    model, images = digits
    how = Conditions(plan_of("autoattack", classes=10, norm=norm), norm, (eps,), 3, 4, 4, CPU)
    found = attacked(model, images, how).stood(eps)
    direct = []
    for number, (x, y) in enumerate(images.batches(4)):
        package = pyautoattack.AutoAttack(model, norm=norm, eps=eps, seed=3 + number, version="standard")
        answer, _ = package.run_standard_evaluation(x, y, batch_size=4)
        direct.append(model(answer).argmax(1) == y)
    assert torch.equal(found, torch.cat(direct))
    assert 0 < found.sum() < 10


class KilledError(Exception):
    pass


def killing(model: nn.Module, forwards: int) -> nn.Module:
    """The same network, until it has been called so often."""

    class Mortal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = forwards

        def forward(self, x: Tensor) -> Tensor:
            self.left -= 1
            if self.left < 0:
                raise KilledError
            logits: Tensor = model(x)
            return logits

    return Mortal()


@pytest.mark.parametrize("norm", NORMS)
def test_killed_anywhere_and_started_again_it_ends_with_the_same_verdicts(
    norm: Norm, digits: tuple[nn.Module, Split], tmp_path: Path
) -> None:
    model, images = digits
    how = Conditions(plan_of("apgd", classes=10, norm=norm), norm, (0.02, 0.04), 0, 4, 4, CPU)
    whole = attacked(model, images, how)
    notes: list[str] = []
    for attempt in range(100):
        try:
            # Enough for the longest stage (900 forwards and what surrounds it), so that each attempt finishes one.
            found = attacked(killing(model, 1100 + 7 * attempt), images, how, kept=Kept(tmp_path), note=notes.append)
            break
        except KilledError:
            continue
    assert attempt > 1
    assert torch.equal(found.steps, whole.steps)
    assert torch.equal(found.shown, whole.shown)
    assert torch.equal(found.predicted, whole.predicted)
    assert any("taken up again" in note for note in notes)


def test_a_finished_evaluation_is_not_attacked_again_and_one_of_more_images_finds_its_chunks(
    digits: tuple[nn.Module, Split], tmp_path: Path
) -> None:
    model, images = digits
    how = replace(conditions(chunk=4), plan=plan_of("pgd-5", classes=10, norm="Linf"))
    first = attacked(model, images.subset(range(8)), how, kept=Kept(tmp_path))
    few = killing(model, 4)  # two forwards a chunk, to see that it is the same network
    again = attacked(few, images.subset(range(8)), how, kept=Kept(tmp_path))
    assert torch.equal(first.steps, again.steps)
    assert (first.taken_up, again.taken_up) == (0, 8)
    more = attacked(killing(model, 16), images, how, kept=Kept(tmp_path))
    assert torch.equal(more.steps[:8], first.steps)
    assert more.taken_up == 8 < more.attacked
    stopped = attacked(model, images, how, kept=Kept(tmp_path), enough=lambda standing, tried: True)
    assert stopped.taken_up == stopped.attacked == 4


def test_a_network_that_answers_otherwise_by_now_is_attacked_anew(
    bright: nn.Module, greys: Split, tmp_path: Path
) -> None:
    notes: list[str] = []
    attacked(bright, greys, conditions(), kept=Kept(tmp_path))
    other = lambda x: -bright(x)  # noqa: E731  the factory's code was changed
    module = type("Other", (nn.Module,), {"forward": lambda self, x: other(x)})()
    found = attacked(module, greys, conditions(), kept=Kept(tmp_path), note=notes.append)
    assert torch.equal(found.right, ~exactly(greys, 0.0))
    assert any("otherwise" in note for note in notes) and found.taken_up == 0


def test_kept_verdicts_that_cannot_be_written_are_told_once_and_cost_nothing(
    bright: nn.Module, greys: Split, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    notes: list[str] = []
    found = attacked(bright, greys, conditions(chunk=10), kept=Kept(blocked / "kept"), note=notes.append)
    assert torch.equal(found.stood(0.05), exactly(greys, 0.05))
    assert len(notes) == 1 and "cannot be kept" in notes[0]


def test_a_damaged_file_is_as_good_as_none(bright: nn.Module, greys: Split, tmp_path: Path) -> None:
    attacked(bright, greys, conditions(chunk=10), kept=Kept(tmp_path))
    for number, file in enumerate(sorted(tmp_path.iterdir())):
        file.write_bytes([b"", b"nonsense", file.read_bytes()[:-3]][number])
    found = attacked(bright, greys, conditions(chunk=10), kept=Kept(tmp_path))
    assert torch.equal(found.stood(0.05), exactly(greys, 0.05))


def test_it_stops_after_the_chunk_that_was_enough_and_says_which_images_were_not_tried(
    bright: nn.Module, greys: Split
) -> None:
    asked: list[tuple[int, int]] = []

    def enough(standing: int, tried: int) -> bool:
        asked.append((standing, tried))
        return tried >= 16

    found = attacked(bright, greys, conditions(chunk=8), enough=enough)
    kept = exactly(greys, 0.05)
    assert asked == [(int(kept[:8].sum()), 8), (int(kept[:16].sum()), 16)]
    assert found.tried.tolist() == [True] * 16 + [False] * 9
    assert torch.equal(found.right, exactly(greys, 0.0))  # of all images
    assert found.text(0.05)[16:] == "".join("?" if right else "x" for right in found.right[16:].tolist())
    assert found.text(0.05)[-1] == "x"
    assert found.attacked == 16


def test_whether_it_is_enough_is_asked_about_the_radius_that_was_named(bright: nn.Module, greys: Split) -> None:
    asked: list[int] = []

    def enough(standing: int, tried: int) -> bool:
        asked.append(standing)
        return False

    attacked(bright, greys, replace(conditions(radii=(0.02, 0.1), chunk=8), eps=0.02), enough=enough)
    kept = exactly(greys, 0.02)
    assert asked == [int(kept[:tried].sum()) for tried in (8, 16, 24)]
    assert kept[:24].sum() > exactly(greys, 0.1)[:24].sum()


def test_as_many_images_as_are_named_are_attacked_and_all_are_classified(bright: nn.Module, greys: Split) -> None:
    heard: list[AttackProgress] = []
    found = attacked(bright, greys, conditions(chunk=8), first=12, on_progress=heard.append)
    assert found.attacked == 12
    assert {now.images for now in heard} == {12}
    assert torch.equal(found.right, exactly(greys, 0.0))


@pytest.mark.parametrize("kills", [0, 2])
def test_what_the_attack_warned_of_is_kept_with_the_verdicts(
    kills: int, bright: nn.Module, greys: Split, tmp_path: Path
) -> None:
    def run(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> tuple[Tensor, tuple[str, ...]]:
        return x, (f"warned of chunk {seed}",)

    how = conditions(Plan("own", (Stage("own", run, 1.0),)), chunk=10)
    attacked(bright, greys.subset(range(25 - 10 * kills)), how, kept=Kept(tmp_path))
    again = attacked(bright, greys, how, kept=Kept(tmp_path))
    assert again.warnings == ("warned of chunk 0", "warned of chunk 1", "warned of chunk 2")


def test_a_network_with_other_gradients_by_now_is_attacked_anew(
    bright: nn.Module, greys: Split, tmp_path: Path
) -> None:
    class Detached(nn.Module):
        """The same answers, and gradients of the wrong sign."""

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = bright(x)
            return 2 * logits.detach() - logits

    masked = attacked(Detached(), greys, conditions(), kept=Kept(tmp_path))
    assert masked.stood(0.05).sum() > exactly(greys, 0.05).sum()
    honest = attacked(bright, greys, conditions(), kept=Kept(tmp_path))
    assert torch.equal(honest.stood(0.05), exactly(greys, 0.05))


@pytest.mark.parametrize("everywhere", [False, True])
def test_out_of_memory_halves_the_slice_and_changes_nothing_else(
    everywhere: bool, bright: nn.Module, greys: Split
) -> None:
    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 6 and (everywhere or torch.is_grad_enabled()):
                raise torch.OutOfMemoryError("CUDA out of memory")
            logits: Tensor = bright(x)
            return logits

    notes: list[str] = []
    found = attacked(Small(), greys, conditions(), note=notes.append)
    assert torch.equal(found.stood(0.05), exactly(greys, 0.05))
    assert found.batch_size == int(notes[-1].split()[8])
    assert 1 < found.batch_size <= 6


def test_out_of_memory_with_one_image_is_the_users_to_solve(bright: nn.Module, greys: Split) -> None:
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory")
            logits: Tensor = bright(x)
            return logits

    with pytest.raises(UsageError, match="lower --chunk"):
        attacked(Full(), greys, conditions())


def test_stages_on_a_surrogate_attack_it_and_verdicts_are_the_networks(bright: nn.Module, greys: Split) -> None:
    class Blind(nn.Module):
        """The same decisions, without gradients."""

        def forward(self, x: Tensor) -> Tensor:
            return (bright(x) > 0).float() + 0 * x.sum()

    stage = plan_of("pgd-5", classes=2, norm="Linf").stages[0]
    alone = attacked(Blind(), greys, conditions())
    helped = attacked(Blind(), greys, conditions(Plan("t", (replace(stage, on=0),))), surrogates=[bright])
    assert alone.stood(0.05).sum() > helped.stood(0.05).sum()
    assert torch.equal(helped.stood(0.05), exactly(greys, 0.05))


def test_a_randomised_network_gets_the_same_verdicts_under_the_same_seed_and_shared_randomness_is_left_alone(
    bright: nn.Module, greys: Split
) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = bright(x + 0.05 * torch.randn_like(x))
            return logits

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = attacked(Noisy(), greys, conditions(chunk=10))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(attacked(Noisy(), greys, conditions(chunk=10)).steps, first.steps)


def test_progress_counts_images_and_those_that_stand_and_tells_the_time_left(bright: nn.Module, greys: Split) -> None:
    heard: list[AttackProgress] = []
    attacked(bright, greys, conditions(chunk=10), on_progress=heard.append)
    kept = exactly(greys, 0.05)
    assert [now.done for now in heard] == sorted(now.done for now in heard)
    assert (heard[0].done, heard[0].tried, heard[0].images, heard[0].chunks) == (0, 10, 25, 3)
    assert heard[0].seconds_left is None
    last = heard[-1]
    assert (last.done, last.tried, last.standing) == (25, 25, int(kept.sum()))
    assert last.seconds_left == pytest.approx(0, abs=1e-6)
    middle = next(now for now in heard if now.done == 10)
    assert middle.seconds_left is not None and middle.seconds_left > 0
