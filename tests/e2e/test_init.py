"""What `kdcompress init` proposes for a teacher and images."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import timm
from PIL import Image

from kdcompress.models.arguments import parse_arguments
from kdcompress.models.proposal import arguments_of, parameters_of
from kdcompress.starting import proposed_student
from tests.e2e.conftest import write_pictures

DIGITS_TEACHER = Path(__file__).parents[2] / "kdcompress" / "assets" / "digits_teacher.safetensors"


def test_the_student_is_smaller_than_the_teacher_and_what_is_said_of_its_size_is_so(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "run.toml"
    assert run("init", "--teacher", DIGITS_TEACHER, "--data", "digits", "--out", out).code == 0
    proposed = tomllib.loads(out.read_text())["distill"]
    arguments = parse_arguments(proposed["student-arg"], "--student-arg")
    network = timm.create_model(proposed["student"], num_classes=10, in_chans=1, **arguments)
    size = sum(one.numel() for one in network.parameters())
    assert size < 224_722 / 2
    assert f"{size / 1000:,.0f}k parameters for the teacher's 225k" in out.read_text()


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("teacher", [60_000_000, 25_000_000, 11_000_000, 700_000, 150_000])
def test_the_student_has_half_of_the_teachers_parameters_at_most(teacher: int, classes: int) -> None:
    proposed = tomllib.loads("\n".join(proposed_student(teacher, classes, 3)))
    arguments = parse_arguments(proposed.get("student-arg", []), "--student-arg")
    network = timm.create_model(proposed["student"], num_classes=classes, **arguments)
    assert sum(one.numel() for one in network.parameters()) <= teacher / 2
    assert bool(arguments) == (teacher < 23_000_000)


@pytest.mark.parametrize(("classes", "channels"), [(10, 3), (1000, 1)])
@pytest.mark.parametrize("first", [None, 64, 32, 16, 8, 4])
def test_parameters_are_counted_as_timm_builds_them(first: int | None, classes: int, channels: int) -> None:
    network = timm.create_model("resnet18", num_classes=classes, in_chans=channels, **arguments_of(first))
    assert sum(one.numel() for one in network.parameters()) == parameters_of(first, classes, channels)


def test_of_a_teacher_smaller_than_all_that_are_tried_it_is_the_smallest() -> None:
    (_, arguments) = proposed_student(10_000, 10, 3)
    assert "channels=4,8,16,32" in arguments and "32k parameters for the teacher's 10k" in arguments


def test_a_size_that_the_teacher_was_not_made_for_is_refused(run: Any, tmp_path: Path) -> None:
    ran = run(
        *("init", "--teacher", DIGITS_TEACHER, "--data", "digits", "--image-size", 32, "--out", tmp_path / "x.toml")
    )
    assert ran.code == 2 and "was made for images of 16x16, got --image-size 32" in ran.stderr


def test_images_of_another_size_become_the_teachers(run: Any, student: Path, pictures: Path, tmp_path: Path) -> None:
    for file in [one for one in pictures.rglob("*.png") if one.stem in ("00", "01")]:
        larger = tmp_path / "large" / file.relative_to(pictures)
        larger.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).resize((12, 12)).save(larger)
    out = tmp_path / "run.toml"
    ran = run("init", "--teacher", student / "student.safetensors", "--data", tmp_path / "large", "--out", out)
    assert ran.code == 0, ran.stderr
    assert tomllib.loads(out.read_text())["image-size"] == 8


def test_images_of_other_channels_are_refused(run: Any, tmp_path: Path) -> None:
    colour = write_pictures(tmp_path / "ten", {"train": 1, "test": 1}, ("a", "b", "c", "d"))
    for name in "efghij":
        for split in ("train", "test"):
            target = colour / split / name
            target.mkdir()
            Image.open(colour / split / "a" / "00.png").save(target / "00.png")
    ran = run("init", "--teacher", DIGITS_TEACHER, "--data", colour, "--out", tmp_path / "x.toml")
    assert ran.code == 2 and "takes images of 1 channels" in ran.stderr, ran.stderr
    assert not (tmp_path / "x.toml").exists()


def test_images_of_several_sizes_become_the_teachers_or_as_asked(
    run: Any, student: Path, pictures: Path, teacher: list[str], tmp_path: Path
) -> None:
    for number, file in enumerate(one for one in pictures.rglob("*.png") if one.stem in ("00", "01")):
        other = tmp_path / "mixed" / file.relative_to(pictures)
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).resize((10 + number % 3, 12)).save(other)
    out, data = tmp_path / "run.toml", ("--data", tmp_path / "mixed")
    ran = run("init", "--teacher", student / "student.safetensors", *data, "--out", out)
    assert ran.code == 0, ran.stderr
    assert tomllib.loads(out.read_text())["image-size"] == 8
    ran = run("init", *teacher[:2], *data, "--out", tmp_path / "other.toml")
    assert ran.code == 2 and "--image-size" in ran.stderr
    ran = run("init", *teacher[:2], *data, "--image-size", 9, "--out", tmp_path / "other.toml")
    assert ran.code == 0, ran.stderr
    assert tomllib.loads((tmp_path / "other.toml").read_text())["image-size"] == 9


def test_a_teacher_of_an_odd_name_goes_through_the_file(run: Any, tmp_path: Path) -> None:
    odd = tmp_path / "t\U0001f600.safetensors"
    odd.write_bytes(DIGITS_TEACHER.read_bytes())
    out = tmp_path / "run.toml"
    assert run("init", "--teacher", odd, "--data", "digits", "--out", out).code == 0
    assert tomllib.loads(out.read_text(encoding="utf-8"))["teacher"] == str(odd)
