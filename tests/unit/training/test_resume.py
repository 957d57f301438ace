"""A run stopped anywhere and resumed is the run that was never stopped: the same weights and figures, bit by bit."""

import errno
import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from kdcompress.data import loading
from kdcompress.errors import Stopped, TrainingError, UsageError
from kdcompress.progress import Beginning, Listener, Step
from kdcompress.settings import CacheSettings, DataSettings, DistillSettings, LossSettings, TrainSettings
from kdcompress.training import checkpoints, network
from kdcompress.training.checkpoints import unfinished
from kdcompress.training.finite import Finite
from kdcompress.training.run_record import RunRecord
from kdcompress.training.runs import distill, train
from kdcompress.training.stopping import gently

Distilling = Callable[..., DistillSettings]
Training = Callable[..., TrainSettings]
EVERY_STEP = 1e-9  # minutes


class Killed(BaseException):
    """What no code expects."""


def go(settings: DistillSettings | TrainSettings, out: Path, **options: Any) -> RunRecord:
    return (
        distill(settings, out, **options) if isinstance(settings, DistillSettings) else train(settings, out, **options)
    )


def killing(step: int) -> Listener:
    """At the end of a step, before its checkpoint."""

    def look(now: Step) -> None:
        if now.step == step:
            raise Killed

    return Listener(step=look)


def lines(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, but for what depends on the clock."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def folder_of(out: Path) -> Path:
    return out.with_name(out.name + ".unfinished")


@pytest.fixture
def cases(distilling: Distilling, training: Training, tmp_path: Path) -> dict[str, DistillSettings | TrainSettings]:
    run = {"epochs": 3, "checkpoint_every": EVERY_STEP}
    exact = LossSettings(iga_mode="exact")
    cache = CacheSettings(cache_teacher=True, cache_views=2, cache_dir=tmp_path / "views")
    return {
        "kdiga-noise, EMA, AdamW, one-cycle": distilling(exact, **run),
        "jacobian, SWA, SGD, cosine, IDBH": distilling(
            LossSettings(align="jacobian", iga_mode="exact"),
            **run,
            **{"average": "swa", "swa_start": 0.5, "optimizer": "sgd", "schedule": "cosine", "augment": "idbh"},
        ),
        "rslad, no average, step": distilling(
            LossSettings(recipe="rslad", inner_steps=2), **run, average="none", schedule="step"
        ),
        "teacher cache": distilling(exact, **run).model_copy(update={"cache": cache}),
        "every second step, bf16": distilling(LossSettings(iga_mode="exact", iga_every=2), **run, precision="bf16"),
        "adversarial training": training(**run),
        "noise": training(**run, noise_sigma=0.1),
    }


@pytest.mark.parametrize(
    "case",
    [
        "kdiga-noise, EMA, AdamW, one-cycle",
        "jacobian, SWA, SGD, cosine, IDBH",
        "rslad, no average, step",
        "teacher cache",
        "every second step, bf16",
        "adversarial training",
        "noise",
    ],
)
def test_killed_at_every_step_it_ends_with_the_weights_and_metrics_of_a_run_that_was_not(
    case: str, cases: dict[str, DistillSettings | TrainSettings], tmp_path: Path
) -> None:
    whole = go(cases[case], tmp_path / "whole")
    assert whole.cost.steps >= 6
    out = tmp_path / "killed"
    for step in range(2, whole.cost.steps + 1):  # the first has no checkpoint before it
        with pytest.raises(Killed):
            go(cases[case], out, resume=True, listener=killing(step))
    resumed = go(cases[case], out, resume=True)
    assert (resumed.sha256, resumed.last.sha256) == (whole.sha256, whole.last.sha256)
    assert lines(out) == lines(tmp_path / "whole")
    assert resumed.selected == whole.selected and resumed.cost.steps == whole.cost.steps
    assert not folder_of(out).exists()


def test_steps_that_were_left_out_are_left_out_again(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finite, "holds", lambda self, loss: int(float(loss) * 1e5) % 4 > 0)
    settings, out = distilling(LossSettings(iga_mode="exact"), epochs=3, checkpoint_every=EVERY_STEP), tmp_path / "run"
    whole = go(settings, tmp_path / "whole")
    assert 0 < sum(line["skipped"] for line in lines(tmp_path / "whole")) < whole.cost.steps
    for step in range(2, whole.cost.steps + 1):
        with pytest.raises(Killed):
            go(settings, out, resume=True, listener=killing(step))
    assert go(settings, out, resume=True).sha256 == whole.sha256
    assert lines(out) == lines(tmp_path / "whole")


def test_a_batch_that_ends_the_run_is_kept_for_whoever_looks_into_it(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out = distilling(LossSettings(iga_mode="exact"), epochs=12), tmp_path / "run"
    asked: list[float] = []
    monkeypatch.setattr(Finite, "holds", lambda self, loss: asked.append(float(loss)) or len(asked) < 3)
    with pytest.raises(TrainingError, match=r"the batch and the weights are in .*run\.unfinished/failed-step"):
        distill(settings, out)
    kept = load_file(folder_of(out) / "failed-step.safetensors")
    x, y = kept["batch/0"], kept["batch/1"]
    assert x.dim() == 4 and len(x) == len(y) == settings.run.batch_size and x.min() >= 0 and x.max() <= 1
    assert any(name.startswith("model/") for name in kept)
    monkeypatch.undo()
    distill(settings, out)  # nothing to go on with, so it begins, and tidies up
    assert out.is_dir() and not folder_of(out).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_and_the_next_goes_on_there(
    number: signal.Signals, distilling: Distilling, tmp_path: Path
) -> None:
    settings, out = distilling(LossSettings(iga_mode="exact")), tmp_path / "run"  # checkpoints are minutes apart
    asked = Listener(step=lambda now: os.kill(os.getpid(), number) if now.step == 3 else None)
    with pytest.raises(Stopped, match=r"after step 3 of .*--resume") as stopped:
        distill(settings, out, listener=asked)
    assert stopped.value.number == number and not out.exists()
    notes: list[str] = []
    record = distill(settings, out, resume=True, listener=Listener(note=notes.append))
    assert record.sha256 == distill(settings, tmp_path / "whole").sha256
    assert any("goes on after step 3" in note for note in notes)


def test_a_signal_during_a_validation_does_not_wait_for_its_end(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out, pgd = distilling(LossSettings(iga_mode="exact"), epochs=3), tmp_path / "run", network.pgd
    validations: list[int] = []

    def signalled(*arguments: Any, **options: Any) -> Any:
        validations.append(1)
        if len(validations) == 3:  # the raw weights' of the first epoch are the second; the hold-out is one batch
            os.kill(os.getpid(), signal.SIGTERM)
        return pgd(*arguments, **options)

    monkeypatch.setattr(network, "pgd", signalled)
    with pytest.raises(Stopped):
        distill(settings, out)
    monkeypatch.undo()
    record = distill(settings, out, resume=True)
    assert record.sha256 == distill(settings, tmp_path / "whole").sha256
    assert lines(out) == lines(tmp_path / "whole")


def test_asked_twice_it_ends_at_once() -> None:
    with gently() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Stopped):
        stop.heed()


def test_signals_go_their_old_way_afterwards_and_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with gently():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    seen: list[Any] = []

    def elsewhere() -> None:
        with gently():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.fixture
def stopped(distilling: Distilling, tmp_path: Path) -> tuple[DistillSettings, Path]:
    """Settings, and the --out of a run that was killed at its fourth step."""
    settings, out = distilling(LossSettings(iga_mode="exact"), checkpoint_every=EVERY_STEP), tmp_path / "run"
    with pytest.raises(Killed):
        distill(settings, out, listener=killing(4))
    return settings, out


def test_the_two_newest_checkpoints_are_kept_and_a_damaged_one_costs_a_step(
    stopped: tuple[DistillSettings, Path], tmp_path: Path
) -> None:
    settings, out = stopped
    before, newest = sorted(folder_of(out).glob("step-*"))
    assert [path.name.split("-")[1] for path in (before, newest)] == ["000000002", "000000003"]
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    notes: list[str] = []
    record = distill(settings, out, resume=True, listener=Listener(note=notes.append))
    assert record.sha256 == distill(settings, tmp_path / "whole").sha256
    assert any(newest.name in note for note in notes) and any("after step 2 of" in note for note in notes)


@pytest.mark.parametrize("cut", [0, 10, 1000])
def test_a_checkpoint_cut_short_is_left_out(cut: int, stopped: tuple[DistillSettings, Path]) -> None:
    settings, out = stopped
    for path in folder_of(out).glob("step-*"):
        path.write_bytes(path.read_bytes()[:cut])
    notes: list[str] = []
    distill(settings, out, resume=True, listener=Listener(note=notes.append))
    assert any("starts anew" in note for note in notes)


def test_an_unfinished_run_is_not_lost_by_accident(stopped: tuple[DistillSettings, Path]) -> None:
    settings, out = stopped
    with pytest.raises(UsageError, match=r"unfinished run.*--resume.*--overwrite"):
        distill(settings, out)
    assert list(folder_of(out).glob("step-*"))
    distill(settings, out, overwrite=True)
    assert not folder_of(out).exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": LossSettings(iga_mode="exact", temperature=2)}, "--temperature was 1.0 .* got 2.0"),
        ({"student": "resnet34"}, "--student was resnet18 .* got resnet34"),
        ({"student_args": {}}, "--student-arg was"),
    ],
)
def test_other_options_are_refused_by_name(
    change: dict[str, Any], named: str, stopped: tuple[DistillSettings, Path]
) -> None:
    settings, out = stopped
    with pytest.raises(UsageError, match=named):
        distill(settings.model_copy(update=change), out, resume=True)
    assert list(folder_of(out).glob("step-*"))


def test_other_images_and_another_teacher_are_refused(stopped: tuple[DistillSettings, Path], tmp_path: Path) -> None:
    settings, out = stopped
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(settings.teacher.path.read_bytes())
    moved = settings.model_copy(update={"teacher": settings.teacher.model_copy(update={"path": teacher})})
    fewer = settings.model_copy(update={"data": settings.data.model_copy(update={"train_images": 20})})
    with pytest.raises(UsageError, match="--train-images was None"):
        distill(fewer, out, resume=True)
    other = distill(settings, tmp_path / "other")
    teacher.write_bytes((tmp_path / "other" / "student.safetensors").read_bytes())
    with pytest.raises(UsageError, match=f"--teacher was sha256 .* got sha256 {other.sha256[:12]}"):
        distill(moved, out, resume=True)
    teacher.write_bytes(settings.teacher.path.read_bytes())
    assert distill(moved, out, resume=True).cost.steps > 0  # the same file at another place


def other_teacher(settings: DistillSettings, folder: Path) -> DistillSettings:
    """The same run from a teacher of the same shape and other weights."""
    record = distill(settings, folder / "other")
    assert record.sha256
    path = folder / "other" / "student.safetensors"
    return settings.model_copy(update={"teacher": settings.teacher.model_copy(update={"path": path})})


def test_a_finished_run_of_another_teacher_other_weights_or_other_images_is_not_taken_for_this_one(
    distilling: Distilling, tmp_path: Path
) -> None:
    settings, out = distilling(LossSettings(iga_mode="exact")), tmp_path / "run"
    distill(settings, out)
    changed = other_teacher(settings, tmp_path)
    weights = settings.model_copy(update={"student_weights": out / "student.safetensors"})
    images = tmp_path / "images"
    shutil.copytree(settings.data.data, images)
    elsewhere = settings.model_copy(update={"data": settings.data.model_copy(update={"data": str(images)})})
    for other in (changed, weights, elsewhere):
        with pytest.raises(UsageError, match="already holds a run"):
            distill(other, out, resume=True)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(settings.teacher.path.read_bytes())
    same = settings.model_copy(update={"teacher": settings.teacher.model_copy(update={"path": moved})})
    notes: list[str] = []
    distill(same, out, resume=True, listener=Listener(note=notes.append))
    assert any("is finished" in note for note in notes)


def test_a_finished_run_is_known_by_its_own_file_of_options(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which names its folder by the whole path, and the way of computing the gradient term that was chosen."""
    settings, out = distilling(), tmp_path / "run"
    folder = Path(settings.data.data)
    monkeypatch.chdir(folder.parent)
    relative = settings.data.model_copy(update={"data": folder.name})
    record = distill(settings.model_copy(update={"data": relative}), out)
    assert record.gradient is not None and settings.loss.iga_mode == "auto"
    chosen = settings.loss.model_copy(update={"iga_mode": record.gradient.mode})
    (tmp_path / folder.name).mkdir()  # other images by the name that was typed
    monkeypatch.chdir(tmp_path)
    notes: list[str] = []
    distill(settings.model_copy(update={"loss": chosen}), out, resume=True, listener=Listener(note=notes.append))
    assert "is finished" in notes[-1]
    with pytest.raises(UsageError, match="already holds a run"):
        distill(settings.model_copy(update={"data": relative}), out, resume=True, listener=Listener(note=notes.append))
    assert f"--data was {folder}, got {tmp_path / folder.name}" in notes[-1]


def test_a_run_from_other_starting_weights_is_refused_by_name(distilling: Distilling, tmp_path: Path) -> None:
    first, second = (distilling(LossSettings(iga_mode="exact"), seed=seed) for seed in (1, 2))
    distill(first, tmp_path / "first")
    distill(second, tmp_path / "second")
    begun, another = (
        distilling(LossSettings(iga_mode="exact"), checkpoint_every=EVERY_STEP).model_copy(
            update={"student_weights": tmp_path / name / "student.safetensors"}
        )
        for name in ("first", "second")
    )
    with pytest.raises(Killed):
        distill(begun, tmp_path / "run", listener=killing(3))
    with pytest.raises(UsageError, match="--student-weights was sha256"):
        distill(another, tmp_path / "run", resume=True)
    record = distill(begun, tmp_path / "run", resume=True)
    assert record.started_from == hashlib.sha256((tmp_path / "first" / "student.safetensors").read_bytes()).hexdigest()


def test_damaged_checkpoints_of_later_steps_do_not_cost_the_new_ones(stopped: tuple[DistillSettings, Path]) -> None:
    """A run that began anew beside them, and is killed again, goes on from its own."""
    settings, out = stopped
    folder = folder_of(out)
    for path in folder.glob("step-*"):
        path.unlink()
    for step in (400, 500):
        (folder / f"step-{step:09d}-0123456789abcdef.safetensors").write_bytes(b"damaged")
    with pytest.raises(Killed):
        distill(settings, out, resume=True, listener=killing(4))
    sound = sorted(path.name for path in folder.glob("step-00000000*"))
    assert len(sound) == checkpoints.KEPT  # one more, should the newest one's bytes not survive
    (folder / sound[-1]).write_bytes(b"damaged too")
    notes: list[str] = []
    distill(settings, out, resume=True, listener=Listener(note=notes.append))
    assert not any("starts anew" in note for note in notes)


def test_a_finished_run_is_not_run_again(distilling: Distilling, tmp_path: Path) -> None:
    settings, out = distilling(LossSettings(iga_mode="exact")), tmp_path / "run"
    first = distill(settings, out, resume=True)
    again = distill(settings, out, resume=True, listener=killing(1))
    assert again.model_dump_json() == first.model_dump_json()
    with pytest.raises(UsageError, match="already holds a run"):
        distill(distilling(LossSettings(temperature=3)), out, resume=True)


def test_two_runs_for_one_folder_are_one_too_many(distilling: Distilling, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with (
        unfinished(out, resume=False, overwrite=False, every=0, listener=Listener()),
        pytest.raises(UsageError, match="another run is at work"),
    ):
        distill(distilling(), out, overwrite=True)
    assert not (tmp_path / "deep").exists()  # neither left anything


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(
    distilling: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_whole", full)
    notes: list[str] = []
    settings = distilling(LossSettings(iga_mode="exact"), checkpoint_every=EVERY_STEP)
    distill(settings, tmp_path / "run", listener=Listener(note=notes.append))
    assert any("no checkpoint at step 1" in note and "No space left" in note for note in notes)
    assert (tmp_path / "run" / "student.json").exists()


def test_a_run_says_when_it_begins_goes_on_and_ends_and_keeps_its_id(
    cases: dict[str, DistillSettings | TrainSettings], tmp_path: Path
) -> None:
    settings, out = cases["adversarial training"], tmp_path / "run"
    began: list[Beginning] = []
    ended: list[Any] = []
    with pytest.raises(Killed):
        go(settings, out, resume=True, listener=replace(killing(3), began=began.append, ended=ended.append))
    assert not ended
    listener = Listener(began=began.append, ended=ended.append)
    record = go(settings, out, resume=True, listener=listener)
    assert ended == [json.loads((out / "student.json").read_text())]
    assert [run.step for run in began] == [0, 2] and began[0].id == began[1].id
    assert began[0].settings == record.settings and began[0].versions == record.versions
    go(settings, out, resume=True, listener=listener)  # it is finished: nothing begins
    assert (len(began), len(ended)) == (2, 1)
    go(settings, out, overwrite=True, listener=listener)
    assert began[2].id != began[0].id


def test_begun_elsewhere_is_said(stopped: tuple[DistillSettings, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, out = stopped
    monkeypatch.setattr("kdcompress.training.identity.versions", lambda: {"torch": "9.9"})
    notes: list[str] = []
    distill(settings, out, resume=True, listener=Listener(note=notes.append))
    assert any("resumed on" in note and "torch 9.9" in note and "last bits" in note for note in notes)


def test_images_that_cannot_be_read_are_left_out_counted_and_remembered(
    distilling: Distilling, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = tmp_path / "thirds"
    shutil.copytree(folder, spoiled)
    monkeypatch.setattr(loading, "MEMORY_LIMIT", 0)  # so that they are found on the way
    settings = distilling(LossSettings(iga_mode="exact"), epochs=3, checkpoint_every=EVERY_STEP)
    data = DataSettings(data=str(spoiled), skip_corrupt=True)
    settings, out = settings.model_copy(update={"data": data}), tmp_path / "run"
    (spoiled / "train" / "1" / "4.png").write_bytes(b"damaged")
    notes: list[str] = []
    whole = go(settings, tmp_path / "whole", listener=Listener(note=notes.append))
    assert whole.data["damaged"] == 1 and sum("1/4.png" in note for note in notes) == 1
    for step in range(2, whole.cost.steps + 1):
        with pytest.raises(Killed):
            go(settings, out, resume=True, listener=killing(step))
    resumed = go(settings, out, resume=True)
    assert (resumed.sha256, resumed.data) == (whole.sha256, whole.data)
