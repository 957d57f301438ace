"""CLEVER in a report."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kdcompress.data import Split, split_from_pixels
from kdcompress.evaluation.clever import clever_scores, nearest_rivals
from kdcompress.evaluation.kept_scores import KeptScores
from kdcompress.maths.radii import first_order_radius
from kdcompress.report import Clever
from kdcompress.settings import CleverSettings

CPU = torch.device("cpu")


def scores(model: nn.Module, images: Split, batch_size: int = 64, **settings: object) -> Clever | None:
    chosen = CleverSettings(**({"clever_radius": 0.2, "clever_batches": 5, "clever_samples": 4} | settings))  # type: ignore[arg-type]
    return clever_scores(model, images, "Linf", chosen, batch_size=batch_size, device=CPU)


def test_on_a_linear_network_every_score_is_the_distance_up_to_the_radius(bright: nn.Module, greys: Split) -> None:
    found = scores(bright, greys, clever_radius=0.1)
    assert found is not None
    distance = (torch.arange(91, 166, 3).double() / 255 - 0.5).abs().clamp_max(0.1)
    distance[-1] = 0  # misclassified
    assert found.scores == pytest.approx(distance.tolist(), rel=1e-3, abs=1e-6)  # float32 pixels
    assert found.median == pytest.approx(float(distance.median()), rel=1e-3)
    assert found.at_cap == int((distance == 0.1).sum()) > 0
    assert (found.kind, found.norm, found.n, found.rivals, found.not_fitted) == ("estimate", "Linf", 25, 1, 0)
    assert (found.R, found.Nb, found.Ns, found.seed) == (0.1, 5, 4, 0)


def test_the_batch_and_the_images_that_follow_change_nothing(greys: Split) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 5)).eval().requires_grad_(False)
    few = greys.subset([3, 8, 20])
    whole, part = (
        scores(model, few, clever_batches=20),
        scores(model, few.subset([0, 1]), batch_size=3, clever_batches=20),
    )
    assert whole is not None and part is not None
    assert whole.scores[:2] == pytest.approx(part.scores, rel=1e-4)
    again = scores(model, few, clever_batches=20)
    assert again == whole and scores(model, few, clever_batches=20, seed=1) != whole


def test_a_network_without_gradients_has_no_score(greys: Split) -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], 1)

    assert scores(Constant().eval(), greys.subset([0, 1])) is None


def test_the_nearest_rivals_hold_the_first_order_radius_and_those_ahead_come_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6)).eval().requires_grad_(False)
    x = torch.rand(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    rivals = nearest_rivals(model, x, y, "L2", 2)
    W = model.get_parameter("1.weight")
    f = model(x)
    for i in range(8):
        by_hand = (f[i, y[i]] - f[i]) / torch.linalg.vector_norm(W[y[i]] - W, dim=1)
        by_hand[y[i]] = torch.inf
        assert rivals[i].tolist() == by_hand.topk(2, largest=False).indices.tolist()
        assert by_hand.min().item() == pytest.approx(first_order_radius(model, x, y, "L2")[i].item(), rel=1e-5)
    wrong = f.topk(2, 1).indices[:, 1]
    assert torch.equal(nearest_rivals(model, x, wrong, "L2", 9)[:, 0], y)
    assert nearest_rivals(model, x, y, "L2", 9).shape == (8, 5)


class Counted(nn.Module):
    """Counts the points it sees."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.count = inner, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += len(x)
        logits: torch.Tensor = self.inner(x)
        return logits


def test_a_score_that_was_kept_is_not_sampled_again_unless_the_network_changed(greys: Split, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 5)).eval().requires_grad_(False)
    few, network = greys.subset([3, 8]), Counted(inner)
    chosen = CleverSettings(clever_radius=0.2, clever_batches=5, clever_samples=4)

    def run() -> tuple[Clever | None, int]:
        network.count = 0
        found = clever_scores(network, few, "Linf", chosen, batch_size=64, device=CPU, kept=KeptScores(tmp_path))
        return found, network.count

    first, all_of_them = run()
    again, hardly_any = run()
    assert again == first and hardly_any < all_of_them / 4
    with torch.no_grad():
        inner[3].weight.mul_(-1)  # type: ignore[union-attr, operator]
    changed, sampled = run()
    assert changed != first and sampled == all_of_them


def test_a_score_that_was_kept_is_of_the_label_that_it_was_found_for(greys: Split, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 5)).eval().requires_grad_(False)
    x, _ = next(greys.subset([3]).batches(1))
    right = int(model(x).argmax())
    pixels = (255 * x).round().to(torch.uint8)
    chosen = CleverSettings(clever_radius=0.2, clever_batches=5, clever_samples=4)
    found = []
    for label in (right, (right + 1) % 5):
        images = split_from_pixels(pixels, torch.tensor([label]))
        score = clever_scores(model, images, "Linf", chosen, batch_size=64, device=CPU, kept=KeptScores(tmp_path))
        assert score is not None
        found += score.scores
    assert found[0] > 0 and found[1] == 0


def test_where_scores_cannot_be_kept_it_is_said_and_they_are_found(greys: Split, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = KeptScores(tmp_path / "file" / "folder")
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval().requires_grad_(False)
    chosen = CleverSettings(clever_radius=0.2, clever_batches=5, clever_samples=4)
    found = clever_scores(model, greys.subset([0]), "Linf", chosen, batch_size=64, device=CPU, kept=kept)
    assert found is not None and kept.note is not None and "cannot be kept" in kept.note
