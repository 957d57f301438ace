import pytest
import torch
from torch import Tensor

from kdcompress.data import Split, channel_statistics, split_from_pixels
from kdcompress.errors import DataError

N = 10


def pixels() -> Tensor:
    return torch.randint(0, 256, (N, 2, 3, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def in_memory() -> Split:
    return split_from_pixels(pixels(), torch.arange(N), [f"id{i}" for i in range(N)])


def on_disk() -> Split:
    stored = pixels()
    return Split(torch.arange(N), tuple(f"id{i}" for i in range(N)), lambda rows: stored[rows], torch.arange(N))


def gathered(split: Split, batch_size: int = 4, **options: object) -> tuple[Tensor, Tensor]:
    inputs, labels = zip(*split.batches(batch_size, **options), strict=True)  # type: ignore[arg-type]
    return torch.cat(inputs), torch.cat(labels)


@pytest.mark.parametrize("split", [in_memory(), on_disk()], ids=["in memory", "on disk"])
class TestBothKinds:
    def test_batches_hold_every_image_once_in_order_with_its_label(self, split: Split) -> None:
        inputs, labels = gathered(split)
        assert torch.equal(inputs, pixels().float() / 255)
        assert labels.tolist() == list(range(N))

    def test_batches_follow_the_order_asked_for(self, split: Split) -> None:
        order = torch.tensor([7, 1, 1, 0, 9])
        inputs, labels = gathered(split, 2, order=order)
        assert labels.tolist() == order.tolist()
        assert torch.equal(inputs, pixels()[order].float() / 255)

    @pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
    def test_a_small_last_batch_is_kept_or_dropped(self, split: Split, drop_last: bool, sizes: list[int]) -> None:
        assert [len(labels) for _, labels in split.batches(4, drop_last=drop_last)] == sizes

    def test_a_subset_of_a_subset_points_at_the_right_images(self, split: Split) -> None:
        twice = split.subset([8, 3, 5]).subset(torch.tensor([2, 0]))
        inputs, labels = gathered(twice)
        assert (twice.ids, labels.tolist()) == (("id5", "id8"), [5, 8])
        assert torch.equal(inputs, pixels()[[5, 8]].float() / 255)

    def test_an_empty_subset_has_no_batches(self, split: Split) -> None:
        assert list(split.subset([]).batches(4)) == []

    def test_statistics_are_those_of_all_pixels(self, split: Split) -> None:
        values = pixels().double().transpose(0, 1).flatten(1) / 255
        mean, std = channel_statistics(split)
        # Rounded to 4 digits, so half of the last digit, and a little for the comparison's own rounding.
        assert mean == pytest.approx(values.mean(1).tolist(), abs=5.1e-5)
        assert std == pytest.approx(values.std(1, correction=0).tolist(), abs=5.1e-5)


def test_inputs_are_float32_in_the_unit_interval_and_labels_int64() -> None:
    inputs, labels = next(split_from_pixels(torch.tensor([[[[0, 255]]]]).byte(), torch.tensor([1])).batches(1))
    assert (inputs.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert inputs.flatten().tolist() == [0.0, 1.0]


def test_a_batch_may_be_changed_without_changing_the_data() -> None:
    split = in_memory()
    next(split.batches(4))[0].zero_()
    assert torch.equal(gathered(split)[0], pixels().float() / 255)


def test_a_shuffle_is_seeded_and_its_first_n_are_those_of_a_larger_n() -> None:
    split = in_memory()
    everything = split.shuffled(None, seed=3).ids
    assert sorted(everything) == sorted(split.ids)
    assert split.shuffled(4, seed=3).ids == everything[:4]
    assert split.shuffled(99, seed=3).ids == everything
    assert split.shuffled(None, seed=4).ids != everything


def test_a_shuffle_does_not_depend_on_how_the_images_are_stored() -> None:
    split = in_memory()
    assert split.subset(list(range(N))[::-1]).shuffled(5, seed=0).ids == split.shuffled(5, seed=0).ids


def test_subsets_share_their_pixels() -> None:
    split = in_memory()
    assert split.subset([0]).pixels is split.pixels


def test_a_constant_channel_can_be_divided_by_its_deviation() -> None:
    _, std = channel_statistics(split_from_pixels(torch.zeros(2, 1, 2, 2).byte(), torch.arange(2)))
    assert std == (0.0039,)


def test_an_error_while_reading_ahead_reaches_the_caller() -> None:
    def read(rows: list[int]) -> Tensor:
        if 5 in rows:
            raise DataError("id5 is damaged")
        return pixels()[rows]

    split = Split(torch.arange(N), tuple(map(str, range(N))), read, torch.arange(N))
    batches = split.batches(2)
    assert [next(batches)[1].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match="id5 is damaged"):
        next(batches)


def test_an_abandoned_iterator_stops_reading() -> None:
    asked: list[list[int]] = []

    def read(rows: list[int]) -> Tensor:
        asked.append(rows)
        return pixels()[rows]

    batches = Split(torch.arange(N), tuple(map(str, range(N))), read, torch.arange(N)).batches(1)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(asked) <= 2  # the batch that was taken, and the one read ahead


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_under_one_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        next(in_memory().batches(batch_size))


@pytest.mark.parametrize("index", [N, -N - 1])
def test_an_index_outside_the_split_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        in_memory().subset([index])
