"""Bad input: exit code 2, one line (what was expected, found and is to be done), no traceback, nothing left behind."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.reports import network, report


class Pickled:
    """Writes a file if it is ever unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return (exec, (f"open({str(self.marker)!r}, 'w').close()",))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the output would go, beside nothing."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def distil(run: Any, teacher: list[str], small: list[str], pictures: Path, place: Path) -> Callable[..., Any]:
    """A distillation that would succeed, with some options replaced or added; None drops one."""

    def command(**changes: object) -> Any:
        words = [*teacher, *small, "--data", str(pictures), "--out", str(place / "out")]
        for name, value in changes.items():
            option = f"--{name}".replace("_", "-")
            if option in words:
                at = words.index(option)
                del words[at : at + 2]
            if value is not None:
                words += [option, str(value)]
        return run("distill", *words)

    return command


def one_line(ran: Any, *said: str) -> None:
    """The contract of a refusal."""
    assert ran.code == 2, ran.stderr
    assert ran.stdout == ""
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and ran.stderr.rstrip("\n").endswith(errors[0]), ran.stderr
    assert "Traceback" not in ran.stderr
    for part in said:
        assert part in errors[0], errors[0]


def refused(ran: Any, place: Path, *said: str) -> None:
    one_line(ran, *said)
    assert list(place.iterdir()) == []


def test_the_command_that_the_others_vary_succeeds(distil: Callable[..., Any], place: Path) -> None:
    assert distil().code == 0
    assert [path.name for path in place.iterdir()] == ["out"]


def test_a_missing_teacher(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(teacher="nowhere.pt"), place, "nowhere.pt", "expected a model file", "found nothing there", "check")


def test_a_missing_data_folder(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(data="nowhere"), place, "--data must be", "found nothing at nowhere")


@pytest.mark.parametrize("name", ["n" * 300, "~nobody-of-this-name/images"])
def test_a_data_folder_that_cannot_be_looked_for(distil: Callable[..., Any], place: Path, name: str) -> None:
    refused(distil(data=name), place, "--data must be", f"{name} cannot be read")


def test_missing_starting_weights(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(student_weights="nowhere.pt"), place, "nowhere.pt", "expected a model file", "check")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"iga_mode": "fast"}, "--iga-mode: input should be 'auto', 'exact', 'compiled' or 'finite-difference'"),
        ({"align": "gradients"}, "--align: input should be 'ce' or 'jacobian'"),
        ({"iga_norm": "l3"}, "--iga-norm: input should be 'l2', 'l1', 'l2-squared' or 'l2-log'"),
        ({"iga_micro_batch": 1}, "--iga-micro-batch: input should be greater than or equal to 2, got 1"),
        ({"iga_mode": "finite-difference", "iga_norm": "l1"}, "finite-difference is for --iga-norm l2, got l1"),
        ({"cache_views": 4}, "--cache-views is for --cache-teacher, which is not asked for; add it"),
        ({"cache_dir": "x"}, "--cache-dir is for --cache-teacher"),
        ({"cache_views": 0}, "--cache-views: input should be greater than or equal to 1, got 0"),
    ],
    ids=str,
)
def test_options_of_the_gradient_term(
    distil: Callable[..., Any], place: Path, options: dict[str, object], said: str
) -> None:
    refused(distil(**options), place, said)


def test_a_web_page_named_pt(distil: Callable[..., Any], place: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    path.write_text("<!DOCTYPE html>\n<html><body>Sign in</body></html>\n")
    refused(distil(teacher=path), place, "teacher.pt", "expected a model file", "web page", "download the file itself")


def test_a_truncated_file_named_pt(distil: Callable[..., Any], place: Path, tmp_path: Path, weights: Path) -> None:
    path = tmp_path / "teacher.pt"
    path.write_bytes(weights.read_bytes()[:1000])
    refused(distil(teacher=path), place, "teacher.pt", "truncated", "copy or download it again")


def test_a_truncated_safetensors_file(distil: Callable[..., Any], place: Path, tmp_path: Path, student: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes((student / "student.safetensors").read_bytes()[:-100])
    refused(distil(teacher=path), place, "teacher.safetensors", "truncated", "copy or download it again")


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_with_code_in_it_is_never_executed(
    distil: Callable[..., Any], place: Path, tmp_path: Path, how: str
) -> None:
    marker, path = tmp_path / "executed", tmp_path / "teacher.pt"
    content = {"1.weight": torch.zeros(4, 192), "extra": Pickled(marker)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    refused(distil(teacher=path), place, "teacher.pt")
    assert not marker.exists()


def test_the_wrong_architecture_is_told_by_the_first_keys(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(teacher_arch="resnet18"), place, "1.weight", "conv1.weight", "name the architecture")


def test_the_wrong_shape_is_told_with_both_shapes(
    distil: Callable[..., Any], place: Path, tmp_path: Path, factory: Path
) -> None:
    path = tmp_path / "teacher.pt"
    torch.save({"1.weight": torch.zeros(4, 48), "1.bias": torch.zeros(4)}, path)
    refused(distil(teacher=path), place, "1.weight", "(4, 48)", "(4, 192)")


def test_the_wrong_number_of_classes(distil: Callable[..., Any], place: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    torch.save({"1.weight": torch.zeros(7, 192), "1.bias": torch.zeros(7)}, path)
    refused(distil(teacher=path, teacher_arg="classes=7"), place, "expected 4 classes as in the data", "7")


def test_an_eps_of_8_asks_whether_8_in_255_was_meant(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(eps="8"), place, "--eps must be in (0, 1], got 8", "did you mean 8/255?")


def test_an_unknown_timm_name_suggests_the_nearest(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(student="resnet81"), place, "--student", "got resnet81", "did you mean", "resnet18")


def test_an_unknown_student_argument(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(student_arg="depht=3"), place, "--student-arg depht", "no argument of resnet18")


def test_an_argument_without_a_value(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(student_arg="layers"), place, "--student-arg must be key=value", "got 'layers'")


def test_normalisation_that_nobody_names_is_a_question(distil: Callable[..., Any], place: Path) -> None:
    refused(distil(teacher_mean=None), place, "normalised", "--teacher-mean", "none")


@pytest.mark.parametrize("text", ["0.5,half,0.5", "", "0.5,0.5", "nan,nan,nan"])
def test_normalisation_that_makes_no_sense(distil: Callable[..., Any], place: Path, text: str) -> None:
    refused(distil(teacher_mean=text, teacher_std="0.2"), place, "--teacher-mean")


def test_an_empty_class_folder(distil: Callable[..., Any], place: Path, pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    (data / "train" / "nothing").mkdir()
    refused(distil(data=data), place, "train/nothing", "expected images", "empty", "add images or remove the folder")


def test_a_corrupt_image(distil: Callable[..., Any], place: Path, pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    image = data / "train" / "north" / "03.png"
    image.write_bytes(image.read_bytes()[:60])
    refused(distil(data=data), place, "north/03.png")


def test_a_teacher_that_returns_probabilities(distil: Callable[..., Any], place: Path, factory: Path) -> None:
    ran = distil(teacher_arch=f"{factory}:probabilities")
    refused(ran, place, "outputs must be logits", "probabilities", "remove its softmax")


def test_a_teacher_without_robustness_is_stopped_and_insisting_goes_on(
    run: Any, small: list[str], pictures: Path, factory: Path, place: Path, tmp_path: Path
) -> None:
    torch.save({"1.weight": torch.zeros(4, 192), "1.bias": torch.zeros(4)}, tmp_path / "t.pt")
    words = ("distill", "--teacher", tmp_path / "t.pt", "--teacher-arch", f"{factory}:linear", "--teacher-mean", "none")
    words = (*words, *small, "--data", pictures, "--out", place / "out")
    refused(run(*words), place, "too little robustness", "clean accuracy 0.25", "--insist")
    ran = run(*words, "--insist")
    assert ran.code == 0 and "--insist" in ran.stderr


def test_an_output_folder_that_already_holds_a_run_is_left_alone(
    run: Any, teacher: list[str], small: list[str], pictures: Path, student: Path
) -> None:
    before = {path.name: path.read_bytes() for path in student.iterdir()}
    ran = run("distill", *teacher, *small, "--data", pictures, "--out", student)
    one_line(ran, f"--out {student} already holds a run", "student.safetensors", "--overwrite")
    assert {path.name: path.read_bytes() for path in student.iterdir()} == before
    assert list(student.parent.iterdir()) == [student]


def test_an_output_folder_with_other_files_is_refused_even_with_overwrite(
    run: Any, teacher: list[str], small: list[str], pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    ran = run("distill", *teacher, *small, "--data", pictures, "--out", tmp_path, "--overwrite")
    one_line(ran, "thesis.tex", "name a new folder")
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_a_missing_folder_above_the_output_is_not_left_behind(
    run: Any, teacher: list[str], small: list[str], pictures: Path, place: Path
) -> None:
    ran = run("distill", *teacher, *small, "--data", pictures, "--out", place / "a" / "b", "--student", "resnet81")
    refused(ran, place, "resnet81")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, ["--epochs", "got 0"]),
        ({"batch_size": 1}, ["--batch-size", "got 1"]),
        ({"iga_weight": "much"}, ["--iga-weight", "got much"]),
        ({"iga_weight": -1}, ["--iga-weight", "got -1"]),
        ({"iga_ramp": 2}, ["--iga-ramp", "got 2"]),
        ({"temperature": 0}, ["--temperature", "got 0"]),
        ({"input_noise": "pink"}, ["--input-noise", "uniform", "none", "got pink"]),
        ({"augment": "mixup"}, ["--augment", "got mixup"]),
        ({"schedule": "linear"}, ["--schedule", "'cosine'", "got linear"]),
        ({"optimizer": "adam"}, ["--optimizer", "'sgd'", "got adam"]),
        ({"momentum": 0.9}, ["--momentum is for --optimizer sgd, got adamw"]),
        ({"average": "mean"}, ["--average", "'swa'", "got mean"]),
        ({"ema": 1}, ["--ema", "less than 1", "got 1"]),
        ({"average": "swa", "swa_start": 2}, ["--swa-start", "got 2"]),
        ({"precision": "fp8"}, ["--precision", "got fp8"]),
        ({"device": "tpu"}, ["--device", "got tpu"]),
        ({"device": "cuda:99"}, ["--device must be on this machine, got cuda:99", "found: cpu"]),
        ({"seed": -1}, ["--seed", "got -1"]),
        ({"student_stride": 3}, ["--student-stride must be a power of two", "got 3"]),
        ({"image_size": 0}, ["--image-size", "got 0"]),
        ({"train_images": 10_000}, ["--train-images", "80", "got 10000"]),
        ({"data": "a\nb"}, ["--data"]),
    ],
)
def test_an_option_with_an_impossible_value(
    distil: Callable[..., Any], place: Path, changes: dict[str, object], said: list[str]
) -> None:
    refused(distil(**changes), place, *said)


def test_a_run_whose_loss_overflows(distil: Callable[..., Any], place: Path) -> None:
    ran = distil(lr="1e30", epochs=3)
    left = place / "out.unfinished" / "failed-step.safetensors"
    one_line(ran, "finite", "--lr", f"the batch and the weights are in {left}")
    assert left.is_file() and [path.name for path in place.iterdir()] == ["out.unfinished"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["needs a model file", "--teacher"]),
        (["nowhere.safetensors"], ["nowhere.safetensors", "found nothing there"]),
        (["MODEL", "--attack", "fgsm"], ["--attack", "got fgsm"]),
        (["MODEL", "--images", 0], ["--images", "got 0"]),
        (["MODEL", "--attack", "none", "--min-robust-accuracy", 0.5], ["--min-robust-accuracy needs an attack"]),
        (["MODEL", "--max-robust-drop", 0.1], ["--max-robust-drop compares two networks"]),
        (["MODEL", "--confidence", 0.99], ["--confidence stops", "--min-robust-accuracy"]),
        (["MODEL", "--teacher-arch", "resnet18"], ["--teacher-arch is about --teacher", "not given"]),
        (["MODEL", "--surrogate-mean", "none"], ["--surrogate-mean is about --surrogate", "not given"]),
        (["MODEL", "--keep-dir", "MODEL"], ["--keep-dir must be a folder", "got the file"]),
        (["MODEL", "--min-robust-accuracy", 0.5, "--confidence", 99], ["--confidence", "got 99"]),
        (["MODEL", "--min-certified-accuracy", 0.4], ["--min-certified-accuracy must be RADIUS:ACCURACY", "got 0.4"]),
        (["MODEL", "--min-certified-accuracy", "3:0.4"], ["radius 3", "--n 3000", "--sigma 0.25", "0.685 at most"]),
        (["MODEL", "--certify-images", 0, "--min-certified-accuracy", "0:0.4"], ["got --certify-images 0"]),
        (["MODEL", "--max-macs", 0], ["--max-macs", "got 0"]),
        (["MODEL", "--max-latency-ms", "nan"], ["--max-latency-ms", "got nan"]),
        (["MODEL", "--min-clean-accuracy", 75], ["--min-clean-accuracy", "got 75"]),
        (["MODEL", "--gate-on", "mean"], ["--gate-on", "got mean"]),
        (["MODEL", "--report", "nowhere/report.json"], ["--report nowhere/report.json", "create nowhere"]),
        (["MODEL", "--report", "."], ["--report must be a file", "folder"]),
        (["MODEL", "--arch", "resnet34"], ["resnet18", "--arch"]),
        (["MODEL", "--mean", "0.1", "--std", "0.9"], ["--mean", "leave them out"]),
        (["MODEL", "--sigma", 0], ["--sigma", "got 0"]),
        (["FOLDER"], ["expected a model file, found a folder"]),
        (["RECORD"], ["found JSON", ".safetensors"]),
    ],
)
def test_an_evaluation_that_cannot_run(
    run: Any, student: Path, pictures: Path, words: list[object], said: list[str], tmp_path: Path
) -> None:
    named = {"MODEL": student / "student.safetensors", "FOLDER": student, "RECORD": student / "student.json"}
    command = [named.get(word, word) if isinstance(word, str) else word for word in words]
    one_line(run("evaluate", *command, "--data", pictures, "--eps", "4/255", "--device", "cpu"), *said)


def test_an_evaluation_on_data_without_a_test_split(run: Any, student: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "train", tmp_path / "data" / "train")
    ran = run("evaluate", student / "student.safetensors", "--data", tmp_path / "data", "--eps", "4/255")
    one_line(ran, "expected a test split", "found only train")


def test_an_evaluation_that_cannot_run_writes_no_report(run: Any, student: Path, pictures: Path, place: Path) -> None:
    ran = run("evaluate", "nowhere", "--data", pictures, "--eps", "4/255", "--report", place / "report.json")
    refused(ran, place, "nowhere")


def test_a_student_made_for_other_classes_is_not_evaluated(run: Any, student: Path) -> None:
    ran = run("evaluate", student / "student.safetensors", "--data", "digits", "--image-size", 8, "--eps", "4/255")
    one_line(ran, "student.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--model", "resnet81"], ["--model", "resnet18"]),
        (["--recipe", "trade"], ["--recipe", "'trades'", "got trade"]),
        (["--beta", "3"], ["--beta is of --recipe trades", "got --recipe at"]),
        (["--recipe", "fast", "--attack-steps", "3"], ["--recipe fast", "got --attack-steps 3"]),
        (["--attack-steps", "0"], ["--attack-steps", "got 0"]),
        (["--model-arg", "layers"], ["--model-arg must be key=value"]),
    ],
)
def test_a_training_that_cannot_run(run: Any, pictures: Path, place: Path, changes: list[str], said: list[str]) -> None:
    words = ["--model", "resnet18", "--data", str(pictures), "--eps", "4/255", "--out", str(place / "out"), *changes]
    refused(run("train", *words), place, *said)


def test_a_line_of_an_error_is_one_line_whatever_the_name_has_in_it(run: Any, student: Path) -> None:
    ran = run("evaluate", student / "student.safetensors", "--data", "first\nsecond\nerror: third", "--eps", "4/255")
    one_line(ran, "first second error: third")


def test_a_cache_without_a_home_to_put_it(
    run: Any, teacher: list[str], small: list[str], pictures: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    command = ["distill", *teacher, *small, "--data", pictures, "--out", place / "out"]
    refused(run(*command, "--cache-teacher"), place, "found no home folder", "name a --cache-dir")
    assert run(*command).code == 0  # who wants no cache needs no home


# Names that are no UTF-8: Linux lets a file be called anything, and Python spells the odd bytes as lone surrogates.
ODD = "\udcff"
WRITTEN_OUT = r"\udcff"
QUICK = ("--eps", "4/255", "--device", "cpu", "--attack", "pgd-2", "--certify-images", "0")


@pytest.fixture
def odd_pictures(pictures: Path, tmp_path: Path) -> Path:
    """The pictures in a folder, a class and a file with odd bytes in their names."""
    root = tmp_path / f"root{ODD}"
    shutil.copytree(pictures, root)
    for split in ("train", "test"):
        (root / split / "east").rename(root / split / f"east{ODD}")
        (root / split / "west" / "00.png").rename(root / split / "west" / f"00{ODD}.png")
    return root


def test_names_that_are_no_utf8_go_through_a_distillation_and_an_evaluation(
    run: Any, weights: Path, factory: Path, small: list[str], odd_pictures: Path, tmp_path: Path
) -> None:
    code, teacher, out = (tmp_path / name for name in (f"nets{ODD}.py", f"robust{ODD}.pt", f"out{ODD}"))
    shutil.copy(factory, code)
    shutil.copy(weights, teacher)
    named = ["--teacher", teacher, "--teacher-arch", f"{code}:linear", "--teacher-mean", "none"]
    ran = run("distill", *named, *small, "--data", odd_pictures, "--out", out)
    assert ran.code == 0, ran.stderr
    record = json.loads((out / "student.json").read_text(encoding="utf-8"))
    assert record["model"]["classes"] == [f"east{WRITTEN_OUT}", "north", "south", "west"]
    assert record["teacher"]["path"].endswith(f"robust{WRITTEN_OUT}.pt")
    results = {
        option: tmp_path / f"result{ODD}.{option}" for option in ("report", "html", "markdown", "junit", "table")
    }
    places = [part for option, path in results.items() for part in (f"--{option}", path)]
    student = out / "student.safetensors"
    one_line(run("evaluate", student, "--data", odd_pictures, *QUICK), "is not valid UTF-8")  # safetensors' own limit
    student = student.rename(tmp_path / "student.safetensors")
    ran = run("evaluate", student, *named, "--data", odd_pictures, *QUICK, *places)
    assert ran.code == 0, ran.stderr
    assert f"root{WRITTEN_OUT}: 16 of 16" in ran.stdout
    found = json.loads(results["report"].read_text(encoding="utf-8"))
    assert found["data"]["name"] == f"root{WRITTEN_OUT}"
    assert found["data"]["classes"] == record["model"]["classes"]
    for option in ("html", "markdown", "junit"):
        assert WRITTEN_OUT.encode() in results[option].read_bytes().replace(rb"\\", b"\\")
        results[option].read_text(encoding="utf-8")
    assert b"west/00\xff.png" in results["table"].read_bytes()  # as it is called on the disk


def test_an_archive_of_such_names_is_read_as_the_folder_is(
    run: Any, small: list[str], odd_pictures: Path, tmp_path: Path
) -> None:
    archive = tmp_path / f"tree{ODD}.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(odd_pictures, "tree")
    network = ["--model", "resnet18", "--model-arg", "layers=1,1,1,1", "--model-arg", "channels=4,4,8,8", *small[6:]]
    ran = run("train", *network, "--attack-steps", 1, "--epochs", 1, "--data", archive, "--out", tmp_path / "out")
    assert ran.code == 0, ran.stderr
    model = tmp_path / "out" / "student.safetensors"
    both = [
        json.loads(run("evaluate", model, "--data", data, *QUICK, "--format", "json").stdout)["data"]
        for data in (archive, odd_pictures)
    ]
    assert both[0].pop("name") == f"tree{WRITTEN_OUT}" and both[1].pop("name") == f"root{WRITTEN_OUT}"
    assert both[0] == both[1]


def test_a_report_of_such_a_name_is_compared(tmp_path: Path) -> None:
    paths = [os.fsencode(tmp_path / name) for name in ("a.json", f"b{ODD}.json", f"c{ODD}.json")]
    for path in paths[:2]:
        Path(os.fsdecode(path)).write_text(report(network("..0x")).model_dump_json())
    words = [*paths[:2], b"--report", paths[2]]
    ran = subprocess.run(
        [sys.executable, "-m", "kdcompress", "compare", *words], capture_output=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert rb"b\udcff.json against a.json" in ran.stdout.replace(b"\n", b"")
    found = json.loads(Path(os.fsdecode(paths[2])).read_text(encoding="utf-8"))
    assert found["columns"][1]["label"] == rf"b{WRITTEN_OUT}.json"


@pytest.mark.parametrize("words", [["evaluate", f"no{ODD}.pt", "--data", "digits"], ["compare", f"a{ODD}", f"b{ODD}"]])
def test_a_refusal_can_name_them(run: Any, words: list[str]) -> None:
    ran = run(*words, *(QUICK if words[0] == "evaluate" else ()))
    one_line(ran, WRITTEN_OUT, "found nothing there")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["evaluate", "m.pt", "--data", "", "--eps", "0.1"], "--data is empty"),
        (["evaluate", "m.pt", "--data=", "--eps", "0.1"], "--data is empty"),
        (["evaluate", "", "--data", "digits", "--eps", "0.1"], "an argument is empty"),
        (["inspect", "", "--format", "json"], "an argument is empty"),
        (["evaluate", "--data", "digits", "--eps=0.1", ""], "an argument is empty"),
        (["evaluate", "--data", "digits", "--eps", "0.1", "--fresh", ""], "an argument is empty"),
        (["evaluate", "--data", "digits", "--seed", "-1", ""], "an argument is empty"),
    ],
)
def test_an_empty_text_is_not_the_current_folder(run: Any, words: list[str], named: str) -> None:
    one_line(run(*words), named)


def test_a_text_that_ends_so_may_be_meant(run: Any, tmp_path: Path) -> None:
    one_line(run("inspect", "--", "--x="), "--x=", "found nothing there")
    one_line(run("evaluate", "m.pt", "--data", "d", "--eps", "0.1", "--arg", "key="), "m.pt")


def test_an_empty_text_in_a_file_or_the_environment(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "run.toml"
    config.write_text('data = ""\n')
    one_line(run("evaluate", "m.pt", "--eps", "0.1", "--config", str(config)), str(config), "data is empty")
    monkeypatch.setenv("KDCOMPRESS_DATA", "")
    one_line(run("evaluate", "m.pt", "--eps", "0.1"), "the environment", "data is empty")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is Linux's")
@pytest.mark.parametrize("words", [["--help"], ["evaluate", "--help"], ["--version"], []])
def test_a_help_that_cannot_be_written(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "kdcompress", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: stdout cannot be written (") and ran.stderr.count("\n") == 1, ran.stderr
