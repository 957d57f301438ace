from collections import Counter

import pytest

from kdcompress.data.selection import balanced_positions, holdout_positions, seeded_order

IDS = [f"{name}/{i:04d}" for name, size in (("ant", 50), ("bee", 30), ("cow", 3)) for i in range(size)]
LABELS = [0] * 50 + [1] * 30 + [2] * 3


def test_a_seeded_order_is_a_permutation_that_does_not_depend_on_the_order_given() -> None:
    there = [IDS[i] for i in seeded_order(IDS, 1, "test")]
    back = [IDS[::-1][i] for i in seeded_order(IDS[::-1], 1, "test")]
    assert sorted(there) == sorted(IDS)
    assert there == back


def test_seeds_and_purposes_give_different_orders() -> None:
    orders = [seeded_order(IDS, seed, purpose) for seed in (0, 1, -1) for purpose in ("a", "b")]
    assert len({tuple(order) for order in orders}) == 6


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 40, 83])
def test_balanced_classes_differ_by_one_image_unless_a_class_runs_out(count: int) -> None:
    chosen = balanced_positions(IDS, LABELS, count, seed=0)
    counts = Counter(LABELS[i] for i in chosen)
    assert len(set(chosen)) == count
    largest = max(counts.values())
    for label, size in Counter(LABELS).items():
        assert counts[label] >= min(size, largest - 1)


def test_a_larger_balanced_choice_contains_the_smaller_one() -> None:
    assert set(balanced_positions(IDS, LABELS, 10, seed=3)) < set(balanced_positions(IDS, LABELS, 20, seed=3))


@pytest.mark.parametrize("count", [3, 8, 16, 40])
def test_held_out_classes_are_in_proportion(count: int) -> None:
    chosen = holdout_positions(IDS, LABELS, count, seed=0)
    counts = Counter(LABELS[i] for i in chosen)
    assert len(set(chosen)) == count
    for label, size in Counter(LABELS).items():
        # Webster's rule keeps three classes within one image of their exact share.
        assert abs(counts[label] - count * size / len(LABELS)) <= 1


def test_every_class_keeps_an_image_for_training() -> None:
    held = holdout_positions(IDS, LABELS, len(IDS), seed=0)
    assert Counter(LABELS[i] for i in held) == {0: 49, 1: 29, 2: 2}
    assert holdout_positions(["a/0", "b/0"], [0, 1], 2, seed=0) == []


def test_a_class_whose_share_is_under_half_an_image_gives_none() -> None:
    # 8 of 83: the exact shares are 4.8, 2.9 and 0.3.
    assert Counter(LABELS[i] for i in holdout_positions(IDS, LABELS, 8, seed=0)) == {0: 5, 1: 3}
