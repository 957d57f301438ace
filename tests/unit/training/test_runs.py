"""Whole runs: what they leave, that they repeat, and that they leave nothing where they fail."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdcompress import data
from kdcompress.data import Split, load_data
from kdcompress.errors import KdcompressError, TeacherError, TrainingError, UsageError
from kdcompress.models.checkpoints import read_checkpoint
from kdcompress.models.cost import parameter_count
from kdcompress.models.teachers import load_model
from kdcompress.progress import Epoch, Listener, Validation
from kdcompress.settings import DistillSettings, LossSettings, RunSettings, TeacherCheckSettings, TrainSettings
from kdcompress.training import batches, lessons, loop, network, recipes, runs, teacher_check
from kdcompress.training.batches import Batches
from kdcompress.training.folder import RUN_FILES
from kdcompress.training.run_record import RunRecord
from kdcompress.training.statistics import refreshing

Distilling = Callable[..., DistillSettings]
Training = Callable[..., TrainSettings]
KD, KDIGA = LossSettings(iga_weight=0.0), LossSettings(iga_weight=0.5)


def weights(out: Path) -> dict[str, Tensor]:
    return read_checkpoint(out / "student.safetensors").state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("loss", [KD, KDIGA], ids=["kd", "kdiga"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit_whatever_ran_before(
    distilling: Distilling, tmp_path: Path, loss: LossSettings
) -> None:
    torch.manual_seed(1)
    runs.distill(distilling(loss), tmp_path / "a")
    torch.manual_seed(2)
    torch.rand(3)
    runs.distill(distilling(loss), tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_another_seed_gives_other_weights(distilling: Distilling, tmp_path: Path) -> None:
    runs.distill(distilling(seed=0), tmp_path / "a")
    runs.distill(distilling(seed=1), tmp_path / "b")
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_adversarial_training_repeats_under_its_seed_too(training: Training, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        runs.train(training(seed=seed), tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_runs_with_and_without_the_gradient_term_start_alike_and_see_the_same_batches_and_noise(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    starts: list[dict[str, Tensor]] = []
    original, build = lessons.into_ball, runs.new_network

    def spied(x: Tensor, delta: Tensor, threat: Any) -> Tensor:
        seen.append((x.clone(), delta.clone()))
        return original(x, delta, threat)

    def built(*arguments: Any) -> Any:
        network, record = build(*arguments)
        starts.append({name: value.clone() for name, value in network.state_dict().items()})
        return network, record

    monkeypatch.setattr(lessons, "into_ball", spied)
    monkeypatch.setattr(runs, "new_network", built)
    runs.distill(distilling(KD), tmp_path / "kd")
    half = len(seen)
    runs.distill(distilling(KDIGA), tmp_path / "kdiga")
    del seen[half]  # of the batch that the gradient term is tried on
    assert half == 6 and len(seen) == 12  # 27 images in threes of nine, two epochs
    assert same(*starts)
    for (x, noise), (other_x, other_noise) in zip(seen[:half], seen[half:], strict=True):
        assert torch.equal(x, other_x) and torch.equal(noise, other_noise)
    assert not same(weights(tmp_path / "kd"), weights(tmp_path / "kdiga"))
    assert not torch.equal(seen[0][0], seen[3][0])  # epochs differ in order and views


def test_the_holdout_chooses_the_epoch_and_no_image_of_it_is_trained_on(
    distilling: Distilling, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: set[bytes] = set()
    validated: set[bytes] = set()
    fit = network.fit

    def spied(model: nn.Module, recipe: Any, batches: Any, **rest: Any) -> Any:
        def watched(epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
            for x, y in batches(epoch, skip):
                trained.update(image.numpy().tobytes() for image in x)
                yield x, y

        return fit(model, recipe, Batches(watched), **rest)

    batches = Split.batches

    def looked(self: Split, *arguments: Any, **rest: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in batches(self, *arguments, **rest):
            if len(self) == 3:
                validated.update(image.numpy().tobytes() for image in x)
            yield x, y

    monkeypatch.setattr(network, "fit", spied)
    monkeypatch.setattr(Split, "batches", looked)
    record = runs.distill(distilling(augment="none"), tmp_path / "out")
    data = load_data(str(folder), splits=("train",), seed=0)
    assert data.test is None and data.holdout is not None and data.train is not None
    holdout = {image.numpy().tobytes() for x, _ in batches(data.holdout, 99) for image in x}
    train = {image.numpy().tobytes() for x, _ in batches(data.train, 99) for image in x}
    assert validated == holdout
    assert trained == train
    assert not holdout & train
    assert (record.selected.images, record.data["holdout"], record.data["train"]) == (3, 3, 27)


@pytest.mark.parametrize(("augment", "changed"), [("none", False), ("crop", True), ("crop-flip", True), ("auto", True)])
def test_augmentation_is_as_asked(
    training: Training, folder: Path, tmp_path: Path, augment: str, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, int]] = []
    original = batches.augment

    def spied(x: Tensor, **how: Any) -> Tensor:
        asked.append((how["flips"], how["crop_padding"]))
        return original(x, **how)

    monkeypatch.setattr(batches, "augment", spied)
    runs.train(training(augment=augment), tmp_path / "out")
    flips = augment in ("crop-flip", "auto")  # colour images are flipped by auto
    assert set(asked) == {(flips, 1 if changed else 0)}


@pytest.mark.parametrize("flips", [False, True])
def test_cutout_and_idbh_are_those_of_the_data_room_and_flip_where_auto_does(folder: Path, flips: bool) -> None:
    loaded = replace(load_data(str(folder), splits=("train",)), flips=flips)
    x = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(2)

    def views(augment: str) -> Tensor:
        return batches.random_views(x, loaded, RunSettings(augment=augment), draws())

    rest = draws()
    cropped = data.augment(x, generator=rest, flips=flips, crop_padding=1)
    assert torch.equal(views("auto"), cropped)
    assert torch.equal(views("cutout"), data.cutout(cropped, generator=rest))
    assert torch.equal(views("idbh"), data.idbh(x, generator=draws(), flips=flips))


@pytest.mark.parametrize(
    "run",
    [
        {"schedule": "cosine", "optimizer": "sgd", "average": "swa", "augment": "idbh"},
        {"schedule": "step", "average": "none", "augment": "cutout"},
    ],
    ids=["cosine-sgd-swa-idbh", "step-adamw-none-cutout"],
)
def test_other_ways_of_training_repeat_under_their_seed_and_leave_best_and_last(
    training: Training, tmp_path: Path, run: dict[str, object]
) -> None:
    record = runs.train(training(epochs=3, **run), tmp_path / "a")
    runs.train(training(epochs=3, **run), tmp_path / "b")
    for name in ("student.safetensors", "last.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert record.last.epoch == 3
    assert record.last.weights == ("averaged" if run["average"] == "swa" else "raw")
    assert record.last.sha256 == load_model(tmp_path / "a" / "last.safetensors").sha256


def test_swas_network_is_left_with_the_statistics_that_its_weights_have(training: Training, tmp_path: Path) -> None:
    settings = training(epochs=2, average="swa", swa_start=0.5)
    runs.train(settings, tmp_path / "out")
    left = load_model(tmp_path / "out" / "last.safetensors").model
    before = {name: value.clone() for name, value in left.state_dict().items() if "running" in name}
    images = load_data(settings.data.data, splits=("train",), seed=settings.run.seed)
    refreshing(images, settings.run, torch.device("cpu"))(left)
    assert before
    for name, value in before.items():
        torch.testing.assert_close(
            left.state_dict()[name], value, rtol=1e-4, atol=1e-5
        )  # another layout rounds otherwise


def test_the_last_weights_are_those_of_the_last_epoch_and_load_by_themselves(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.0, 0.1, 0.0])
    kept: list[loop.Fitted] = []
    fit = network.fit
    chosen = lambda model: Validation(1.0, next(scores), 3)  # noqa: E731
    monkeypatch.setattr(network, "fit", lambda *a, **k: (kept.append(fit(*a, **k | {"validate": chosen})), kept[0])[1])
    record = runs.distill(distilling(), tmp_path / "out")
    assert (record.selected.epoch, record.last.epoch, record.last.robust_accuracy) == (1, 2, 0.1)
    x = torch.rand(4, 3, 8, 8)
    for name, candidate in (("student", kept[0].best), ("last", kept[0].last)):
        model = candidate.model.to(memory_format=torch.contiguous_format)  # another layout rounds otherwise
        assert torch.equal(load_model(tmp_path / "out" / f"{name}.safetensors").model(x), model(x))
    assert record.sha256 != record.last.sha256


def test_a_distilled_student_is_loaded_from_its_file_alone_wherever_it_lies(
    distilling: Distilling, tmp_path: Path
) -> None:
    record = runs.distill(distilling(), tmp_path / "out")
    moved = tmp_path / "moved.bin"
    (tmp_path / "out" / "student.safetensors").rename(moved)
    (tmp_path / "out" / "student.json").unlink()
    loaded = load_model(moved)
    assert loaded.record == record.model
    assert loaded.sha256 == record.sha256
    assert loaded.record.classes == ("0", "1", "2")


def test_the_saved_student_is_the_network_that_was_validated(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[nn.Module] = []
    fit = network.fit
    monkeypatch.setattr(network, "fit", lambda *a, **k: (found := fit(*a, **k), kept.append(found.best.model))[0])
    runs.distill(distilling(), tmp_path / "out")
    x = torch.rand(4, 3, 8, 8)
    validated = kept[0].to(memory_format=torch.contiguous_format)  # another layout rounds otherwise
    assert torch.equal(load_model(tmp_path / "out" / "student.safetensors").model(x), validated(x))


def test_the_folder_holds_the_weights_the_record_and_a_line_an_epoch(distilling: Distilling, tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    out = tmp_path / "out"
    record = runs.distill(distilling(epochs=3), out, listener=Listener(epoch=epochs.append))
    assert sorted(path.name for path in out.iterdir()) == sorted(RUN_FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    text = (out / "student.json").read_text()
    assert json.loads(text) == json.loads(record.model_dump_json())
    assert RunRecord.model_validate_json(text).model_dump_json() == record.model_dump_json()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["terms"] for line in lines] == [epoch.terms for epoch in epochs]
    assert set(lines[0]["terms"]) == {"ce", "kl", "iga"}
    assert lines[record.selected.epoch - 1]["is_best"]


def test_the_record_says_what_made_the_weights(distilling: Distilling, teacher_file: Path, tmp_path: Path) -> None:
    settings = distilling(seed=5)
    record = runs.distill(settings, tmp_path / "out")
    teacher = load_model(teacher_file)
    student = load_model(tmp_path / "out" / "student.safetensors")
    # By way of JSON, which has no tuples.
    assert DistillSettings.model_validate(record.settings).model_dump(mode="json") == settings.model_dump(mode="json")
    assert record.threat_model == {"norm": "Linf", "eps": 0.03}
    assert record.iga_weight == pytest.approx(recipes.scaled_iga_weight(settings.threat.threat, 3 * 8 * 8))
    assert record.teacher is not None and record.teacher.sha256 == teacher.sha256
    assert record.teacher.check is not None and set(record.teacher.check) >= {
        "clean_accuracy",
        "pgd_accuracy",
        "remainder",
    }
    size = record.compression
    assert size.params == parameter_count(student.model)
    assert size.params_ratio == parameter_count(teacher.model) / parameter_count(student.model)
    assert size.macs_ratio is not None and size.macs_ratio > 1
    assert size.file_bytes == (tmp_path / "out" / "student.safetensors").stat().st_size
    assert size.file_ratio == teacher_file.stat().st_size / size.file_bytes
    assert {"torch", "timm", "python", "kdcompress"} <= set(record.versions)
    assert record.cost.steps == 6


def test_a_network_trained_without_a_teacher_has_no_ratios_and_no_gradient_weight(
    training: Training, tmp_path: Path
) -> None:
    record = runs.train(training(), tmp_path / "out")
    assert (record.teacher, record.iga_weight, record.compression.params_ratio) == (None, None, None)
    assert load_model(tmp_path / "out" / "student.safetensors").record == record.model


def before_and_after(out: Path, run: Callable[[], object], failure: type[BaseException]) -> None:
    """`run` fails, and every file beside `out` is what it was."""

    def files() -> dict[str, bytes | None]:
        return {str(path): path.read_bytes() if path.is_file() else None for path in out.parent.rglob("*")}

    before = files()
    with pytest.raises(failure):
        run()
    shutil.rmtree(out.with_name("out.unfinished"), ignore_errors=True)  # a failed batch, kept for a report
    assert files() == before


@pytest.mark.parametrize("old", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("how", ["diverges", "interrupted", "teacher", "writing"])
def test_a_run_that_fails_leaves_nothing_and_an_old_run_survives_it(
    distilling: Distilling, tmp_path: Path, old: bool, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if old:
        runs.distill(distilling(), out)
    settings, listener, failure = distilling(), Listener(), KdcompressError
    if how == "diverges":
        settings, failure = distilling(lr=1e30, epochs=3), TrainingError
    elif how == "interrupted":

        def stop(epoch: Epoch) -> None:
            raise KeyboardInterrupt

        listener, failure = Listener(epoch=stop), KeyboardInterrupt  # type: ignore[assignment]
    elif how == "teacher":
        settings, failure = distilling(check=TeacherCheckSettings()), TeacherError
    else:

        def full(self: Path, *arguments: object, **rest: object) -> int:
            raise OSError(28, "No space left on device", str(self))

        monkeypatch.setattr(Path, "write_text", full)
        failure = OSError  # type: ignore[assignment]
    before_and_after(out, lambda: runs.distill(settings, out, overwrite=old, listener=listener), failure)


def test_an_untrained_teacher_stops_the_run_before_training_with_its_figures_and_the_way_on(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "fit", lambda *a, **k: pytest.fail("trained all the same"))
    with pytest.raises(TeacherError, match=r"robustness.*0\.\d\d\d.*--insist"):
        runs.distill(distilling(check=TeacherCheckSettings()), tmp_path / "out")


def test_insisting_goes_on_and_says_so(distilling: Distilling, tmp_path: Path) -> None:
    notes: list[str] = []
    runs.distill(distilling(), tmp_path / "out", listener=Listener(note=notes.append))
    assert any("--insist" in note for note in notes)
    assert not any("\n" in note for note in notes)


def test_the_check_looks_at_training_images_only_and_at_no_more_than_asked(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []
    original = teacher_check.check_teacher
    monkeypatch.setattr(
        teacher_check, "check_teacher", lambda t, images, *a, **k: seen.append(images) or original(t, images, *a, **k)
    )
    runs.distill(distilling(check=TeacherCheckSettings(insist=True, check_images=5)), tmp_path / "out")
    assert len(seen[0]) == 5


def test_a_second_run_needs_to_be_told_to_overwrite(distilling: Distilling, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs.distill(distilling(seed=0), out)
    first = weights(out)
    with pytest.raises(UsageError, match="--overwrite"):
        runs.distill(distilling(seed=1), out)
    assert same(weights(out), first)
    runs.distill(distilling(seed=1), out, overwrite=True)
    assert not same(weights(out), first)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "resnet81"}, "--model must be"),
        ({"model_args": {"layer": 3}}, "--model-arg layer"),
        ({"model_stride": 3}, "--model-stride must be"),
    ],
)
def test_training_names_its_own_options_and_not_those_of_distilling(
    training: Training, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError) as caught:
        runs.train(training().model_copy(update=change), tmp_path / "out")
    assert named in str(caught.value) and "--student" not in str(caught.value)


def test_a_batch_larger_than_the_data_is_the_whole_data(training: Training, tmp_path: Path) -> None:
    assert runs.train(training(batch_size=1000), tmp_path / "out").cost.steps == 1


def test_starting_weights_are_taken_over(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.distill(distilling(seed=0), tmp_path / "first")
    started: list[dict[str, Tensor]] = []
    fit = network.fit
    monkeypatch.setattr(
        network,
        "fit",
        lambda net, *a, **k: (
            started.append({n: v.clone() for n, v in net.network.state_dict().items()}) or fit(net, *a, **k)
        ),
    )
    settings = distilling(seed=1).model_copy(update={"student_weights": tmp_path / "first" / "student.safetensors"})
    runs.distill(settings, tmp_path / "second")
    assert same(started[0], weights(tmp_path / "first"))

    def normalisation(out: Path) -> tuple[float, ...] | None:
        return read_checkpoint(out / "student.safetensors").mean

    runs.distill(distilling(seed=1), tmp_path / "fresh")  # other images are held out of training
    assert normalisation(tmp_path / "second") == normalisation(tmp_path / "first") != normalisation(tmp_path / "fresh")


@pytest.mark.parametrize("kind", ["distill", "at", "noise"])
def test_a_run_on_noise_says_so_is_judged_under_noise_and_repeats(
    distilling: Distilling, training: Training, tmp_path: Path, kind: str
) -> None:
    def run(out: Path, seed: int = 0) -> RunRecord:
        if kind == "distill":
            return runs.distill(distilling(KDIGA, noise_sigma=0.3, seed=seed), out)
        return runs.train(training(noise_sigma=0.3, seed=seed).model_copy(update={"recipe": kind}), out)

    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    assert first.settings["run"]["noise_sigma"] == 0.3
    assert first.selected.noisy_accuracy is not None and 0 <= first.selected.noisy_accuracy <= 1
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b")) and first.selected == again.selected
    run(tmp_path / "c", seed=1)
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_a_run_without_noise_is_not_judged_under_it(training: Training, tmp_path: Path) -> None:
    assert runs.train(training(), tmp_path / "out").selected.noisy_accuracy is None


def test_training_on_noise_needs_to_know_how_much(training: Training) -> None:
    with pytest.raises(UsageError, match="--noise-sigma"):
        TrainSettings.of(**(training().model_dump() | {"recipe": "noise"}))


def test_the_epoch_of_a_run_on_noise_is_chosen_under_noise() -> None:
    calm, steady = Validation(0.9, 0.5, 10, 0.3), Validation(0.8, 0.1, 10, 0.6)
    assert steady.score() > calm.score()


@pytest.mark.parametrize(
    ("worse", "better", "classes"),
    [
        (Validation(0.2, 4 / 240, 240), Validation(0.8, 0.0, 240), 10),  # a few lucky images
        (Validation(0.1, 0.1, 240), Validation(0.8, 0.0, 240), 10),  # every image answered alike
        (Validation(0.96, 0.0, 240), Validation(0.95, 0.49, 240), 2),
        (Validation(0.8, 0.0, 240), Validation(0.7, 0.08, 240), 10),
        (Validation(0.8, 0.0, 10_000), Validation(0.7, 0.002, 10_000), 1000),
    ],
)
def test_neither_luck_nor_guessing_chooses_an_epoch(worse: Validation, better: Validation, classes: int) -> None:
    assert worse.score(classes) < better.score(classes)


def test_robust_accuracy_comes_before_clean_accuracy() -> None:
    assert Validation(0.9, 0.5, 10).score() > Validation(0.95, 0.4, 10).score()
