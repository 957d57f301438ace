"""Fixed views with the teacher's lessons: what they hold, when they are made again, and what stops them."""

import dataclasses
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdcompress.engine import exact
from kdcompress.errors import UsageError
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import cross_entropy, distillation_kl
from kdcompress.models.checkpoints import save_model
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.teachers import load_model
from kdcompress.progress import Listener
from kdcompress.settings import CacheSettings, DistillSettings, LossSettings
from kdcompress.training import mapped_file, runs, teacher_cache
from kdcompress.training.batches import Batches
from kdcompress.training.ingredients import new_network, teacher_and_data, training_split
from kdcompress.training.lessons import kind_of, lesson
from kdcompress.training.recipes import distillation

Distilling = Callable[..., DistillSettings]
CPU = torch.device("cpu")


@pytest.fixture
def settings(distilling: Distilling, tmp_path: Path) -> Distilling:
    """A run with two views a picture and six epochs; keywords as in `distilling`."""

    def made(views: int = 2, **changes: Any) -> DistillSettings:
        cache = CacheSettings(cache_teacher=True, cache_views=views, cache_dir=tmp_path / "cache")
        return distilling(**({"epochs": 6} | changes)).model_copy(update={"cache": cache})

    return made


def opened(settings: DistillSettings, iga_weight: float = 1.0, notes: list[str] | None = None) -> Batches:
    teacher, data = teacher_and_data(settings.teacher, settings.data, settings.run, Listener())
    listener = Listener(note=lambda note: None if notes is None else notes.append(note))
    kind = kind_of(settings.loss, iga_weight)
    return teacher_cache.cached_batches(settings, teacher, data, kind, CPU, listener)


def files(settings: DistillSettings) -> list[Path]:
    assert settings.cache.cache_dir is not None
    return sorted(settings.cache.cache_dir.glob("*/*.safetensors"))


@pytest.mark.parametrize("align", ["ce", "jacobian"])
def test_losses_are_those_of_a_teacher_asked_now_about_the_same_views(settings: Distilling, align: str) -> None:
    chosen = settings(loss=LossSettings(align=align, input_noise="none"))
    teacher, data = teacher_and_data(chosen.teacher, chosen.data, chosen.run, Listener())
    student, _ = new_network("resnet18", dict(chosen.student_args), None, None, data, chosen.run, Listener())
    student.eval()  # no dropout, so that two calls are one function
    recipe = distillation(
        teacher.model, chosen.loss, chosen.threat.threat, iga_weight=1.0, seed=0, align=exact(2), classes=3
    )
    batches = opened(chosen)
    for x, y, f_t, g_t, *v in [*batches(1), *batches(2)]:
        f, g = logits_and_input_gradient(teacher.model, x, v[0] if v else y, create_graph=False)
        torch.testing.assert_close(f_t, f)  # float32's rounding: the batches are others
        torch.testing.assert_close(g_t, g, rtol=1e-4, atol=1e-6)
        known = recipe.terms(student, recipe.weights(1, 1), x, y, f_t, g_t, *v)
        f_s, distance = exact(2)(student, x, v[0] if v else y, g)
        expected = {"ce": cross_entropy(f_s, y), "kl": distillation_kl(f_s, f, 1.0), "iga": distance}
        for name in ("ce", "kl", "iga"):
            torch.testing.assert_close(known[name], expected[name], rtol=1e-4, atol=1e-6)
        if align == "ce":
            asked = recipe.terms(student, recipe.weights(1, 1), x, y)
            torch.testing.assert_close(asked["iga"], known["iga"], rtol=1e-4, atol=1e-6)


def by_image(batches: Batches, epoch: int) -> dict[tuple[float, ...], Tensor]:
    """Inputs by the teacher's logits of them, which name the view of an image."""
    return {tuple(f.tolist()): x for xs, _, fs, *_ in batches(epoch) for x, f in zip(xs, fs, strict=True)}


def test_epochs_go_through_the_views_in_turn_and_in_another_order_each(settings: Distilling) -> None:
    batches = opened(settings(batch_size=27))  # all training images in one batch
    epochs = [by_image(batches, epoch) for epoch in (1, 2, 3)]
    assert epochs[0].keys() == epochs[2].keys() and list(epochs[0]) != list(epochs[2])
    assert not epochs[0].keys() & epochs[1].keys()
    for name, x in epochs[0].items():
        assert torch.equal(x, epochs[2][name])


def test_views_have_crops_and_noise_and_stay_in_the_ball_around_an_image(settings: Distilling) -> None:
    chosen = settings(batch_size=27, augment="none")
    _, data = teacher_and_data(chosen.teacher, chosen.data, chosen.run, Listener())
    images = next(training_split(data).batches(27))[0]
    for xs, _, *_ in opened(chosen)(1):
        apart = (xs[:, None] - images[None]).abs().flatten(2).amax(2).amin(1)
        # float16 keeps eleven digits: the ball of .03 to half of 2^-11.
        assert float(apart.min()) > 0.02 and float(apart.max()) <= 0.03 + 2.5e-4
        assert float(xs.min()) >= 0 and float(xs.max()) <= 1
    cropped = next(iter(opened(settings(batch_size=27))(1)))[0]
    assert float((cropped[:, None] - images[None]).abs().flatten(2).amax(2).amin(1).max()) > 0.1


def test_views_hold_the_gaussian_noise_they_were_asked_about_another_for_each_view(settings: Distilling) -> None:
    chosen = settings(batch_size=27, augment="none", noise_sigma=0.5)
    teacher, data = teacher_and_data(chosen.teacher, chosen.data, chosen.run, Listener())
    images = next(training_split(data).batches(27))[0]
    batches = opened(chosen)
    noise = []
    for epoch in (1, 2):
        ((xs, _, f_t, *_),) = batches(epoch)
        torch.testing.assert_close(f_t, teacher.model(xs))  # float32's rounding: the batches are others
        apart = (xs[:, None] - images[None]).flatten(2).square().mean(2).sqrt()
        # Of 192 entries each: the spread of N(0, .5^2) to a few hundredths, nearest to the image that it was added to.
        assert ((apart.amin(1) - 0.5).abs() < 0.1).all()
        assert float(xs.min()) < 0 and float(xs.max()) > 1
        noise.append(xs - images[apart.argmin(1)])
    assert abs(float(torch.cat(noise).std()) - 0.5) < 0.01
    assert not torch.equal(noise[0].sort(0).values, noise[1].sort(0).values)


def test_a_later_student_and_another_seed_ask_the_teacher_nothing(
    settings: Distilling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    opened(settings(), notes=notes)
    assert "2 of 2 views of 30 images are made" in notes[0]
    monkeypatch.setattr(teacher_cache, "lesson", lambda *_: pytest.fail("asked again"))
    opened(settings(seed=5), notes=notes)
    assert "2 views of 30 images found" in notes[1]
    other = settings().model_copy(update={"student_args": {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 4)}})
    record = runs.distill(other, tmp_path / "out")
    assert record.settings["cache"]["cache_views"] == 2


def test_more_views_are_added_to_those_that_are_there(settings: Distilling) -> None:
    notes: list[str] = []
    opened(settings(views=2), notes=notes)
    before = [path.stat().st_mtime_ns for path in files(settings())]
    opened(settings(views=4), notes=notes)
    assert "2 of 4 views" in notes[1]
    assert [path.stat().st_mtime_ns for path in files(settings())][:2] == before
    assert len(files(settings())) == 4


def test_no_more_views_are_made_than_there_are_epochs(settings: Distilling) -> None:
    opened(settings(views=50, epochs=3))
    assert len(files(settings())) == 3


def test_plain_kd_keeps_no_gradients(settings: Distilling) -> None:
    batches = opened(settings(), iga_weight=0.0)
    assert [len(batch) for batch in batches(1)] == [3, 3, 3]
    assert set(load_file(files(settings())[0])) == {"inputs", "logits"}


@pytest.mark.parametrize(
    "change",
    [
        {"augment": "none"},
        {"loss": LossSettings(input_noise="none")},
        {"loss": LossSettings(align="jacobian")},
        {"noise_sigma": 0.25},
    ],
    ids=["augment", "noise", "align", "sigma"],
)
def test_other_preprocessing_has_other_views(settings: Distilling, change: dict[str, Any]) -> None:
    opened(settings())
    opened(settings(**change))
    assert len({path.parent for path in files(settings())}) == 2


def test_another_threat_has_other_views_where_noise_is_drawn_from_it(settings: Distilling) -> None:
    opened(settings())
    changed = settings()
    opened(changed.model_copy(update={"threat": changed.threat.model_copy(update={"eps": 0.01})}))
    assert len({path.parent for path in files(changed)}) == 2


@pytest.mark.parametrize("augment", ["cutout", "idbh"])
def test_stronger_views_are_kept_too_each_its_own(settings: Distilling, augment: str) -> None:
    plain, strong = settings(augment="none", batch_size=27), settings(augment=augment, batch_size=27)
    opened(plain)
    batches = opened(strong)
    assert len({path.parent for path in files(strong)}) == 2
    first, second = (next(iter(batches(epoch)))[0] for epoch in (1, 2))
    # Noise of .03 hides an erased pixel from comparison with 0, but not its darkness: images are brighter than .15.
    assert float((first < 0.04).float().mean()) > 0.02
    assert not torch.equal(first.sort(0).values, second.sort(0).values)


@pytest.mark.parametrize("harm", ["truncated", "rubbish", "other tensors"])
def test_a_damaged_view_is_made_again(settings: Distilling, harm: str) -> None:
    opened(settings())
    path = files(settings())[1]
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:-50], "rubbish": b"x" * 300}.get(harm, b""))
    if harm == "other tensors":
        save_file({"inputs": torch.zeros(3)}, path)
    opened(settings())
    assert path.read_bytes() == whole


class Louder(nn.Module):
    """Another function of the same weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return 2 * logits


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As when the code of the teacher's factory is edited: the key stays what it was."""

    def edit() -> None:
        real = teacher_and_data

        def changed(*args: Any) -> Any:
            teacher, data = real(*args)
            return dataclasses.replace(teacher, model=Louder(teacher.model)), data  # type: ignore[arg-type]

        monkeypatch.setitem(globals(), "teacher_and_data", changed)

    return edit


def logits(settings: DistillSettings) -> list[Tensor]:
    return [load_file(path)["logits"] for path in files(settings)]


def test_views_of_another_function_under_the_same_weights_are_made_again(
    settings: Distilling, edited: Callable[[], None]
) -> None:
    opened(settings(views=3))
    before = logits(settings())
    edited()
    notes: list[str] = []
    opened(settings(views=2), notes=notes)
    assert "not of this teacher's function: made again" in notes[0]
    opened(settings(views=3))  # the third, which the run before did not need, is not the old one
    for old, new in zip(before, logits(settings()), strict=True):
        torch.testing.assert_close(new, 2 * old)


def test_a_remaking_that_was_interrupted_leaves_no_old_view_behind(
    settings: Distilling, edited: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(settings())
    before = logits(settings())
    edited()
    with monkeypatch.context() as patch:
        patch.setattr(teacher_cache, "lesson", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(settings())
    opened(settings())
    for old, new in zip(before, logits(settings()), strict=True):
        torch.testing.assert_close(new, 2 * old)


def interrupted(*_: object) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("part", ["pixel", "label", "teacher", "normalisation"])
def test_other_images_labels_or_teachers_have_other_views(
    settings: Distilling, part: str, tmp_path: Path, folder: Path, teacher_file: Path
) -> None:
    opened(settings())
    chosen = settings()
    if part in ("pixel", "label"):
        copied = shutil.copytree(folder, tmp_path / folder.name)
        first = copied / "train" / "0" / "0.png"
        if part == "pixel":
            image = Image.open(first)
            image.putpixel((3, 3), (1, 2, 3))
            image.save(first)
        else:
            first.rename(copied / "train" / "1" / "0a.png")
        chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"data": str(copied)})})
    else:
        loaded = load_model(teacher_file)
        model, record = loaded.model, loaded.record
        if part == "teacher":
            next(model.network.parameters()).data.flatten()[0] += 1e-3
        else:
            record = record.model_copy(update={"mean": (0.31, 0.3, 0.3)})
            model = NormalisedModel(model.network, record.mean, record.std)
        save_model(tmp_path / "other.safetensors", model, record)
        path = tmp_path / "other.safetensors"
        chosen = chosen.model_copy(update={"teacher": chosen.teacher.model_copy(update={"path": path})})
    opened(chosen)
    assert len({path.parent for path in files(chosen)}) == 2


def test_a_teacher_in_half_precision_is_kept_in_float32(settings: Distilling, monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(*args: Any) -> tuple[Tensor, ...]:
        return tuple(part.bfloat16() for part in lesson(*args))

    monkeypatch.setattr(teacher_cache, "lesson", halved)
    (x, _, f_t, *_), *_ = opened(settings())(1)
    assert f_t.dtype == x.dtype == torch.float32


def test_a_cache_inside_the_runs_folder_is_refused(settings: Distilling, tmp_path: Path) -> None:
    chosen = settings()
    with pytest.raises(UsageError, match=r"--cache-dir .* must lie outside --out"):
        runs.distill(chosen, tmp_path)
    with pytest.raises(UsageError, match=r"--cache-dir .* must lie outside --out"):
        runs.distill(chosen, tmp_path / "cache")


def test_views_can_be_read_by_whoever_may_read_the_folder(settings: Distilling) -> None:
    opened(settings())
    mask = os.umask(0)
    os.umask(mask)
    assert files(settings())[0].stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_view_that_may_not_be_read_is_told(settings: Distilling, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(teacher_cache, "read_mapped", refused)  # root may read everything
    with pytest.raises(UsageError, match=r"--cache-dir .* cannot be used: Permission denied"):
        opened(settings())


def test_a_disk_that_is_too_small_is_told_before_the_teacher_is_asked(
    settings: Distilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1_000))
    monkeypatch.setattr(teacher_cache, "lesson", lambda *_: pytest.fail("asked all the same"))
    with pytest.raises(UsageError, match=r"--cache-views 2 needs 1 MB in .*ask for fewer, or name another --cache-dir"):
        opened(settings())
    assert files(settings()) == []


def test_a_folder_that_cannot_be_written_is_told(settings: Distilling) -> None:
    chosen = settings()
    assert chosen.cache.cache_dir is not None
    chosen.cache.cache_dir.write_text("a file")
    with pytest.raises(UsageError, match=r"--cache-dir .* cannot be used"):
        opened(chosen)


def test_an_interrupted_view_leaves_nothing_and_what_a_killed_one_left_goes_after_a_day(
    settings: Distilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(teacher_cache, "lesson", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(settings())
    chosen = settings()
    assert chosen.cache.cache_dir is not None
    (folder,) = chosen.cache.cache_dir.iterdir()
    assert list(folder.iterdir()) == []
    old, young = folder / ".view-000.safetensors-a.part", folder / ".view-000.safetensors-b.part"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    opened(chosen)
    assert young.exists() and not old.exists()


def test_a_mapped_file_is_safetensors(tmp_path: Path) -> None:
    shapes = {"b": ("F16", (3, 5)), "a": ("F32", (2,))}

    def fill(arrays: mapped_file.Arrays) -> None:
        arrays["b"][:] = 2.0
        arrays["a"][:] = 7.0

    mapped_file.write_mapped(tmp_path / "x.safetensors", shapes, fill)
    read = load_file(tmp_path / "x.safetensors")
    assert torch.equal(read["b"], torch.full((3, 5), 2.0, dtype=torch.float16))
    assert torch.equal(read["a"], torch.full((2,), 7.0))
