import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdcompress.data import Data, Split, channel_statistics, load_data, loading
from kdcompress.errors import DataError

WriteTree = Callable[..., Path]


def refused(spec: Path | str, **options: object) -> str:
    """The one line that loading ends with."""
    with pytest.raises(DataError) as caught:
        load_data(str(spec), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parts(data: Data) -> tuple[Split, Split, Split]:
    assert data.train and data.holdout and data.test
    return data.train, data.holdout, data.test


def pixels(split: Split) -> torch.Tensor:
    return torch.cat([inputs for inputs, _ in split.batches(7)])


class TestLayout:
    def test_classes_are_the_sorted_folder_names_and_label_their_images(self, write_tree: WriteTree) -> None:
        data = load_data(str(write_tree(classes=("cow", "ant", "bee"))))
        assert data.classes == ("ant", "bee", "cow")
        for split in parts(data):
            assert [data.classes[label] for label in split.labels] == [name.split("/")[0] for name in split.ids]

    def test_colour_images_of_any_shape_keep_it(self, write_tree: WriteTree) -> None:
        data = load_data(str(write_tree(size=(24, 16))))
        assert (data.input_size, data.flips, data.crop_padding) == ((3, 16, 24), True, 2)

    def test_grey_images_have_one_channel_and_no_flips(self, write_tree: WriteTree) -> None:
        data = load_data(str(write_tree(mode="L")))
        assert (data.input_size, data.flips) == ((1, 4, 6), False)

    def test_a_single_folder_around_the_splits_is_looked_through(self, write_tree: WriteTree) -> None:
        root = write_tree("outer/inner")
        assert load_data(str(root.parent)).train is not None

    @pytest.mark.parametrize("name", ["val", "validation"])
    def test_val_is_the_test_split_where_there_is_no_test(self, write_tree: WriteTree, name: str) -> None:
        data = load_data(str(write_tree(splits=("train", name), per_class=3)))
        assert len(parts(data)[2]) == 6
        assert data.notes == (f"there is no test split; {name} stands in for it",)

    def test_val_beside_test_is_ignored_with_a_note(self, write_tree: WriteTree) -> None:
        root = write_tree(splits=("train", "test"), per_class=3)
        write_tree(splits=("val",), per_class=4)
        data = load_data(str(root))
        assert len(parts(data)[2]) == 6
        assert data.notes == ("test is the test split; val is ignored",)

    def test_hidden_and_other_files_are_left_out_and_deeper_images_found(self, write_tree: WriteTree) -> None:
        root = write_tree(per_class=3)
        (root / "train/.cache").mkdir()
        (root / "train/ant/.hidden.png").write_bytes(b"")
        (root / "train/ant/notes.txt").write_bytes(b"")
        (root / "test/ant/more").mkdir()
        (root / "test/ant/0000.png").rename(root / "test/ant/more/0000.PNG")
        train, holdout, test = parts(load_data(str(root)))
        assert len(train) + len(holdout) == 6
        assert "ant/more/0000.PNG" in test.ids

    def test_only_the_splits_asked_for_are_read(self, write_tree: WriteTree) -> None:
        root = write_tree()
        (root / "train/ant/0000.png").write_bytes(b"damaged")
        data = load_data(str(root), splits=("test",))
        assert (data.train, data.holdout) == (None, None)
        assert len(data.test or ()) == 10


class TestHoldout:
    def test_it_is_cut_from_training_and_the_rest_stays(self, write_tree: WriteTree) -> None:
        train, holdout, test = parts(load_data(str(write_tree(per_class=20))))
        assert (len(train), len(holdout), len(test)) == (36, 4, 40)
        assert Counter(holdout.labels.tolist()) == {0: 2, 1: 2}
        assert sorted(train.ids + holdout.ids) == sorted(test.ids)  # the two trees have the same names
        assert len(set(train.ids + holdout.ids)) == 40

    def test_it_has_at_most_the_stated_number(self, write_tree: WriteTree, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading, "HOLDOUT_MOST", 3)
        assert len(parts(load_data(str(write_tree(per_class=20))))[1]) == 3

    def test_its_pixels_are_those_of_its_files(self, write_tree: WriteTree) -> None:
        root = write_tree(per_class=20)
        train, holdout, _ = parts(load_data(str(root)))
        for split in (train, holdout):
            for name, image in zip(split.ids, pixels(split), strict=True):
                stored = np.array(Image.open(root / "train" / name))
                assert torch.equal(image, torch.from_numpy(stored).permute(2, 0, 1).float() / 255)

    def test_it_depends_on_the_seed_alone(self, write_tree: WriteTree) -> None:
        root, copy = write_tree(per_class=20), write_tree("copy", per_class=20)
        first, second, other = (load_data(str(p), seed=s).holdout for p, s in ((root, 0), (copy, 0), (root, 1)))
        assert first and second and other
        assert first.ids == second.ids
        assert first.ids != other.ids

    def test_the_test_split_does_not_depend_on_seed_or_thinning(self, write_tree: WriteTree) -> None:
        root = write_tree(per_class=20)
        plain, thinned = load_data(str(root)), load_data(str(root), seed=5, train_images=10)
        assert torch.equal(pixels(parts(plain)[2]), pixels(parts(thinned)[2]))

    def test_kept_training_images_are_balanced_before_it_is_cut(self, write_tree: WriteTree) -> None:
        train, holdout, _ = parts(load_data(str(write_tree(per_class=20)), train_images=20))
        assert (len(train), len(holdout)) == (18, 2)
        assert Counter(torch.cat([train.labels, holdout.labels]).tolist()) == {0: 10, 1: 10}

    @pytest.mark.parametrize(("count", "loaded"), [(4, 4), (10**6, 12)])
    def test_ranges_take_fewer_images_than_classes_and_no_more_than_there_are(
        self, write_tree: WriteTree, count: int, loaded: int
    ) -> None:
        root = str(write_tree(classes=tuple("abcdef"), per_class=2))
        data = load_data(root, splits=["train"], train_images=count, for_ranges=True)
        assert data.train is not None and len(data.train) == loaded and data.holdout is None

    def test_a_training_split_of_single_images_is_refused(self, write_tree: WriteTree) -> None:
        assert "at least two images of a class" in refused(write_tree(per_class=1))


class TestOnDisk:
    def test_a_split_over_the_limit_gives_the_same_batches(
        self, write_tree: WriteTree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree(per_class=10)
        inside = load_data(str(root), image_size=5, train_images=15)
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 100)
        outside = load_data(str(root), image_size=5, train_images=15)
        for one, other in zip(parts(inside), parts(outside), strict=True):
            assert isinstance(one.pixels, torch.Tensor)
            assert not isinstance(other.pixels, torch.Tensor)
            assert one.ids == other.ids
            assert torch.equal(one.labels, other.labels)
            assert torch.equal(pixels(one), pixels(other))

    def test_a_damaged_image_is_named_when_its_batch_comes(
        self, write_tree: WriteTree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree()
        bad = root / "test/bee/0004.png"
        bad.write_bytes(bad.read_bytes()[:60])
        assert f"{bad}: expected an image" in refused(root, splits=("test",))
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 100)
        test = load_data(str(root), splits=("test",)).test
        assert test is not None
        with pytest.raises(DataError, match=r"bee/0004\.png: expected an image"):
            pixels(test)


class TestRefusals:
    def test_nothing_there(self, tmp_path: Path) -> None:
        assert "image folder, a tar file, digits or a timm scheme" in refused(tmp_path / "no")
        assert refused("digts").endswith("did you mean digits?")
        assert "did you mean torch/cifar10" in refused("torhc/cifar10")

    def test_class_folders_without_splits(self, write_tree: WriteTree) -> None:
        line = refused(write_tree() / "train")
        assert "expected train/<class>/ and test/<class>/" in line
        assert "found folders: ant, bee" in line

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert "found no folders" in refused(tmp_path)

    def test_a_split_without_class_folders(self, write_tree: WriteTree) -> None:
        root = write_tree(splits=("train",))
        (root / "test").mkdir()
        assert f"{root}/test: expected one folder for each class" in refused(root)

    def test_an_empty_class_folder(self, write_tree: WriteTree) -> None:
        root = write_tree()
        (root / "train/wasp").mkdir()
        assert f"{root}/train/wasp: expected images" in refused(root)
        assert "the folder is empty" in refused(root)

    def test_a_class_folder_with_hidden_and_other_files_only(self, write_tree: WriteTree) -> None:
        root = write_tree()
        (root / "train/wasp").mkdir()
        (root / "train/wasp/.DS_Store").write_bytes(b"")
        assert "the folder is empty" in refused(root)
        (root / "train/wasp/readme.txt").write_bytes(b"")
        assert "found 1 other files such as wasp/readme.txt" in refused(root)

    def test_a_single_class(self, write_tree: WriteTree) -> None:
        assert "at least 2 classes are needed, found only: ant" in refused(write_tree(classes=("ant",)))

    @pytest.mark.parametrize("splits", [("train", "test"), ("test",)])
    def test_classes_that_differ_between_the_splits(self, write_tree: WriteTree, splits: tuple[str, ...]) -> None:
        root = write_tree()
        (root / "test/bee").rename(root / "test/wasp")
        assert refused(root, splits=splits).endswith("only in train: bee; only in test: wasp")

    @pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
    def test_a_split_that_is_asked_for_and_missing(self, write_tree: WriteTree, there: str, missing: str) -> None:
        assert f"expected a {missing} split, found only {there}" in refused(write_tree(splits=(there,)))

    def test_images_of_another_size(self, write_tree: WriteTree) -> None:
        root = write_tree()
        write_tree(splits=("test",), size=(8, 8))
        assert f"{root}/test/ant/0000.png is 8x8 pixels, the first image is 6x4" in refused(root)
        assert load_data(str(root), image_size=4).input_size == (3, 4, 4)

    def test_a_broken_link(self, write_tree: WriteTree) -> None:
        root = write_tree()
        (root / "train/ant/linked.png").symlink_to(root / "gone.png")
        assert f"{root}/train/ant/linked.png: expected an image" in refused(root)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_may_not_be_listed(self, write_tree: WriteTree) -> None:
        root = write_tree()
        (root / "train/ant").chmod(0)
        assert "cannot list the folder" in refused(root)
        (root / "train/ant").chmod(0o700)

    @pytest.mark.parametrize("spec", ["digits", "folder"])
    @pytest.mark.parametrize(("option", "value"), [("image_size", 0), ("train_images", 0), ("train_images", 10**6)])
    def test_numbers_out_of_range(self, write_tree: WriteTree, spec: str, option: str, value: int) -> None:
        source = write_tree() if spec == "folder" else spec
        assert f"--{option.replace('_', '-')} must be at" in refused(source, **{option: value})
        assert refused(source, **{option: value}).endswith(f"got {value}")


def test_progress_names_what_is_done_and_reaches_the_total(write_tree: WriteTree) -> None:
    told: list[tuple[str, int, int]] = []
    load_data(str(write_tree(per_class=5)), on_progress=lambda *what: told.append(what))
    assert told == [("decode train", 10, 10), ("decode test", 10, 10)]


def spoil(root: Path, *names: str) -> None:
    for name in names:
        (root / "train" / name).write_bytes(b"damaged")


class TestDamagedImages:
    @pytest.fixture(params=["memory", "disk"])
    def kept_in(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        if request.param == "disk":
            monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        return str(request.param)

    def test_those_of_the_training_split_are_left_out_where_that_is_asked_for(
        self, write_tree: WriteTree, kept_in: str
    ) -> None:
        root = write_tree(per_class=20)
        whole = load_data(str(root))
        assert whole.train and whole.holdout
        bad = (whole.train.ids[0], whole.train.ids[5], whole.holdout.ids[1])
        spoil(root, *bad)
        data = load_data(str(root), skip_corrupt=True)
        train, holdout, test = parts(data)
        seen = torch.cat([inputs for inputs, _ in train.batches(4)])
        labels = torch.cat([labels for _, labels in train.batches(4)])
        expected = whole.train.subset([i for i, name in enumerate(whole.train.ids) if name not in bad])
        assert torch.equal(seen, pixels(expected)) and torch.equal(labels, expected.labels)
        assert len(holdout) == len(whole.holdout) - 1 and bad[2] not in holdout.ids
        assert len(pixels(holdout)) == len(holdout) and len(pixels(test)) == len(test)
        assert len(data.damaged) == 3 and all(any(name in line for line in data.damaged.values()) for name in bad)
        assert channel_statistics(train) == channel_statistics(expected)
        if kept_in == "memory":
            assert train.ids == expected.ids

    def test_the_first_image_may_be_one(self, write_tree: WriteTree, kept_in: str) -> None:
        root = write_tree(per_class=20)
        size = load_data(str(root)).input_size
        spoil(root, *(f"ant/{number:04d}.png" for number in range(3)))
        assert load_data(str(root), skip_corrupt=True).input_size == size

    def test_else_the_first_ends_the_run_and_the_way_out_is_told(self, write_tree: WriteTree) -> None:
        root = write_tree(per_class=20)
        spoil(root, "ant/0003.png")
        assert "ant/0003.png" in refused(root) and "--skip-corrupt" in refused(root)

    def test_one_of_the_test_split_is_never_left_out(self, write_tree: WriteTree) -> None:
        root = write_tree(per_class=20)
        (root / "test/ant/0000.png").write_bytes(b"damaged")
        assert "ant/0000.png" in refused(root, skip_corrupt=True)

    def test_a_batch_of_nothing_else_is_an_error(self, write_tree: WriteTree, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)
        root = write_tree(per_class=20)
        train = load_data(str(root), skip_corrupt=True).train
        assert train is not None
        spoil(root, *train.ids[:4])
        with pytest.raises(DataError, match=r"none of the 4 images of a batch can be read; .*damaged or foreign"):
            list(train.batches(4))

    def test_an_image_of_another_size_is_not_damaged(self, write_tree: WriteTree) -> None:
        root = write_tree(per_class=20)
        Image.new("RGB", (3, 3)).save(root / "train/ant/0007.png")
        assert "--image-size" in refused(root, skip_corrupt=True)
