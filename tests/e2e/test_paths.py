"""The whole path on 80 training images: distil, train, evaluate, judge."""

import json
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from PIL import Image

from kdcompress.data import load_data
from kdcompress.evaluation.accuracy import predicted
from kdcompress.models.teachers import load_model
from kdcompress.report import Report

SCHEMA = json.loads((files("kdcompress") / "report.schema.json").read_text(encoding="utf-8"))


def strict(text: str) -> Any:
    """JSON and nothing else, without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in the JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def quick(pictures: Path) -> list[object]:
    """What an evaluation of a moment needs."""
    return ["--data", pictures, "--eps", "4/255", "--device", "cpu", "--attack", "pgd-3", *("--n0", 5, "--n", 20)]


def test_a_student_is_distilled_from_a_torch_file_and_a_factory(student: Path) -> None:
    record = strict((student / "student.json").read_text())
    assert sorted(path.name for path in student.iterdir()) == [
        *("last.safetensors", "metrics.jsonl", "run.toml", "student.json", "student.safetensors")
    ]
    assert record["teacher"]["check"]["pgd_accuracy"] == 1.0
    assert record["model"]["classes"] == ["east", "north", "south", "west"]
    assert record["settings"]["run"]["epochs"] == 2


def test_both_are_evaluated_and_the_report_on_stdout_and_in_the_file_is_the_same(
    run: Any, student: Path, teacher: list[str], quick: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    ran = run("evaluate", student / "student.safetensors", *teacher, *quick, "--format", "json", "--report", out)
    assert ran.code == 0, ran.stderr
    assert out.read_text() == ran.stdout
    found = strict(ran.stdout)
    jsonschema.validate(found, SCHEMA)
    report = Report.model_validate(found)
    assert list(report.models) == ["student", "teacher"]
    for model in report.models.values():
        assert model.robust_accuracy is not None and model.robust_accuracy.attack == "PGD-3"
        assert model.robust_accuracy.value <= model.clean_accuracy.value
        assert model.clean_accuracy.n == 16
        assert model.certified is not None
    assert report.models["teacher"].robust_accuracy.value == 1.0  # type: ignore[union-attr]
    assert report.paired is not None and report.paired.n == 16
    counts = (report.paired.both_kept, report.paired.teacher_only, report.paired.student_only, report.paired.both_lost)
    assert sum(counts) == 16
    assert report.ratios["params"] == report.models["teacher"].params / report.models["student"].params
    assert list(tmp_path.iterdir()) == [out]


def test_the_clean_accuracy_is_that_of_the_network_in_memory(
    run: Any, student: Path, quick: list[object], pictures: Path
) -> None:
    ran = run("evaluate", student / "student.safetensors", *quick, "--certify-images", 0, "--format", "json")
    data = load_data(str(pictures), splits=("test",))
    assert data.test is not None
    model = load_model(student / "student.safetensors").model
    expected = predicted(model, data.test, batch_size=5, device=torch.device("cpu")) == data.test.labels
    assert strict(ran.stdout)["models"]["student"]["clean_accuracy"]["value"] == float(expected.double().mean())


def test_the_student_needs_nothing_but_its_file(run: Any, student: Path, quick: list[object], tmp_path: Path) -> None:
    moved = tmp_path / "alone"
    shutil.copy(student / "student.safetensors", moved)
    options = (*quick, "--certify-images", 0, "--format", "json")
    at_home, away = (
        strict(run("evaluate", path, *options).stdout) for path in (student / "student.safetensors", moved)
    )
    for report in (at_home, away):
        del report["seconds"], report["models"]["student"]["latency_ms"], report["settings"]
        del report["models"]["student"]["masking"]["seconds"]
    assert at_home == away


def test_autoattack_runs_in_full_on_images_that_are_easily_turned(run: Any, teacher: list[str], pictures: Path) -> None:
    ran = run(
        *("evaluate", *teacher, "--data", pictures, "--device", "cpu", "--format", "json"),
        *("--eps", "0.4", "--images", 4, "--certify-images", 0),  # quadrants differ by .55: .275 would do
    )
    assert ran.code == 0, ran.stderr
    robust = strict(ran.stdout)["models"]["teacher"]["robust_accuracy"]
    assert robust == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.602, abs=1e-3), "n": 4} | {
        "attack": "AutoAttack standard, 3 targets",
        "stages": ["apgd-ce", "apgd-t", "fab-t", "square"],
        "chunk": 250,
        "interval": "Clopper-Pearson",
        "confidence": 0.95,
        "surrogate": None,
    }


def test_two_networks_of_which_one_may_stop_early_are_not_compared_image_by_image(
    run: Any, student: Path, teacher: list[str], quick: list[object]
) -> None:
    gate = ("--min-robust-accuracy", "0.01", "--confidence", "0.99")
    ran = run("evaluate", student / "student.safetensors", *teacher, *quick, *gate, "--format", "json")
    report = strict(ran.stdout)
    assert report["paired"] is None
    assert any("not compared image by image" in note for note in report["notes"])


def test_a_table_is_printed_where_no_json_is_asked_for(
    run: Any, student: Path, teacher: list[str], quick: list[object]
) -> None:
    ran = run("evaluate", student / "student.safetensors", *teacher, *quick)
    assert ran.code == 0
    assert "clean accuracy" in ran.stdout and "teacher (/ student)" in ran.stdout and "resnet18" in ran.stdout
    with pytest.raises(json.JSONDecodeError):
        json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["--min-clean-accuracy", 1, "--min-robust-accuracy", 1], 0),  # the teacher is perfect
        (["--min-clean-accuracy", 1, "--gate-on", "bound"], 1),  # but 16 images do not prove it
        (["--max-params", 772], 0),
        (["--max-params", 771], 1),
        (["--min-clean-accuracy", 0, "--max-params", 1], 1),
    ],
)
def test_gates_decide_the_exit_code_and_the_report_is_written_either_way(
    run: Any, teacher: list[str], quick: list[object], gates: list[object], code: int, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    ran = run("evaluate", *teacher, *quick, *gates, "--certify-images", 0, "--format", "json", "--report", out)
    assert ran.code == code, ran.stderr
    assert "Traceback" not in ran.stderr
    found = strict(out.read_text())
    assert out.read_text() == ran.stdout
    assert all(gate["met"] for gate in found["gates"]) is (code == 0)
    assert len(found["gates"]) == sum(str(word).startswith(("--min", "--max")) for word in gates)


def test_a_drop_gate_compares_the_two(run: Any, student: Path, teacher: list[str], quick: list[object]) -> None:
    both = ("evaluate", student / "student.safetensors", *teacher, *quick, "--certify-images", 0, "--format", "json")
    paired = strict(run(*both).stdout)["paired"]
    assert paired["drop"] > 0  # two epochs are not enough
    assert not paired["preserved"] and paired["within"] == 0.03
    # The interval's upper end decides, though --gate-on is point.
    met, missed = (run(*both, "--max-robust-drop", most) for most in (min(1, paired["high"]), paired["high"] - 0.01))
    assert (met.code, missed.code) == (0, 1)
    assert strict(met.stdout)["paired"]["preserved"] and not strict(missed.stdout)["paired"]["preserved"]


@pytest.mark.parametrize(
    ("demand", "by", "code"),
    [("0.04:1", "point", 0), ("0.04:0.9", "bound", 1), ("0.04:0", "bound", 0), ("0:1", "point", 0)],
)
def test_certified_accuracy_is_gated_at_a_radius_of_ones_own(
    run: Any, teacher: list[str], quick: list[object], demand: str, by: str, code: int
) -> None:
    words = ("evaluate", *teacher, *quick, "--certify-images", 3, "--sigma", 0.1, "--n", 100, "--gate-on", by)
    ran = run(*words, "--min-certified-accuracy", demand)
    assert ran.code == code, ran.stdout + ran.stderr
    radius = float(demand.partition(":")[0])
    assert f"certified at L2 {radius:.3f}" in ran.stdout


def test_macs_and_latency_are_gated(run: Any, teacher: list[str], quick: list[object]) -> None:
    words = ("evaluate", *teacher, *quick, "--certify-images", 0)
    assert run(*words, "--max-macs", 768, "--max-latency-ms", 10_000).code == 0
    ran = run(*words, "--max-macs", 767, "--max-latency-ms", 1e-9)
    assert ran.code == 1 and ran.stdout.count("gate MISSED") == 2


def test_gates_judge_the_student_where_a_teacher_is_named(
    run: Any, student: Path, teacher: list[str], quick: list[object]
) -> None:
    both = ("evaluate", student / "student.safetensors", *teacher, *quick, "--certify-images", 0, "--format", "json")
    gates = ("--min-robust-accuracy", 1, "--min-clean-accuracy", 1, "--max-params", 1000)
    found = strict((ran := run(*both, *gates)).stdout)
    teacher_robust, student_robust = (
        found["models"][name]["robust_accuracy"]["value"] for name in ("teacher", "student")
    )
    assert teacher_robust == 1 > student_robust and ran.code == 1
    assert {gate["model"] for gate in found["gates"]} == {"student"}
    judged = {gate["name"]: gate["value"] for gate in found["gates"]}
    assert judged["--min-robust-accuracy"] == student_robust
    assert judged["--min-clean-accuracy"] == found["models"]["student"]["clean_accuracy"]["value"]
    assert judged["--max-params"] == found["models"]["student"]["params"]


def test_a_student_is_evaluated_at_the_size_it_was_made_for(
    run: Any, student: Path, quick: list[object], pictures: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    for path in pictures.rglob("*.png"):
        into = large / path.relative_to(pictures)
        into.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((32, 32), Image.Resampling.NEAREST).save(into)
    words = ("evaluate", student / "student.safetensors", *quick, "--certify-images", 0, "--format", "json")
    small = strict(run(*words).stdout)["models"]["student"]
    shrunk = strict(run(*words, "--data", large).stdout)["models"]["student"]
    assert (shrunk["clean_accuracy"], shrunk["macs"]) == (small["clean_accuracy"], small["macs"])
    ran = run(*words, "--data", large, "--image-size", 16)
    assert (ran.code, ran.stdout) == (2, "") and "add --image-size 8" in ran.stderr


@pytest.mark.parametrize("how", ["link", "device"])
def test_a_report_goes_through_a_link_or_into_a_device_and_both_stay(
    run: Any, teacher: list[str], quick: list[object], tmp_path: Path, how: str
) -> None:
    target, place = tmp_path / "real.json", tmp_path / "report.json"
    if how == "link":
        place.symlink_to(target)
    else:
        os.mkfifo(place)
        reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    ran = run("evaluate", *teacher, *quick, "--certify-images", 0, "--format", "json", "--report", place)
    assert ran.code == 0, ran.stderr
    if how == "link":
        assert place.is_symlink() and target.read_text() == ran.stdout
    else:
        assert place.is_fifo() and os.read(reader, 1 << 16).decode() == ran.stdout
        os.close(reader)


def test_a_report_that_cannot_be_written_in_the_end_does_not_cost_the_result(
    run: Any, teacher: list[str], quick: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdcompress.cli.output.write_whole", full)
    place = tmp_path / "report.json"
    ran = run("evaluate", *teacher, *quick, "--certify-images", 0, "--format", "json", "--report", place)
    assert ran.code == 2 and "Traceback" not in ran.stderr
    assert strict(ran.stdout)["models"] and ran.stderr.splitlines()[-1].startswith(f"error: {place} cannot be written")


def test_an_undecided_gate_is_printed_as_such(run: Any, teacher: list[str], quick: list[object]) -> None:
    ran = run("evaluate", *teacher, *quick, "--certify-images", 0, "--min-clean-accuracy", 0.99)
    assert "undecided" in ran.stdout and "gate met" in ran.stdout


def test_a_network_trained_without_a_teacher_can_teach(
    run: Any, small: list[str], pictures: Path, tmp_path: Path
) -> None:
    network = [*("--model", "resnet18", "--model-arg", "layers=1,1,1,1", "--model-arg", "channels=4,8,8,8"), *small[6:]]
    ran = run("train", "--recipe", "at", *network, "--attack-steps", 2, "--data", pictures, "--out", tmp_path / "t")
    assert ran.code == 0, ran.stderr
    taught = tmp_path / "t" / "student.safetensors"
    ran = run("distill", "--teacher", taught, *small, "--data", pictures, "--out", tmp_path / "s", "--insist")
    assert ran.code == 0, ran.stderr
    record = strict((tmp_path / "s" / "student.json").read_text())
    assert record["teacher"]["sha256"] == strict((tmp_path / "t" / "student.json").read_text())["sha256"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", ["embed_dim=16", "depth=2", "num_heads=2"]),  # fused attention
        ("lcnet_035", []),  # hardsigmoid, as in MobileNetV3
    ],
)
def test_students_whose_layers_lack_a_second_derivative_are_distilled_with_the_gradient_term(
    run: Any, teacher: list[str], pictures: Path, name: str, arguments: list[str], tmp_path: Path
) -> None:
    options = [part for argument in arguments for part in ("--student-arg", argument)]
    ran = run(
        *("distill", *teacher, "--student", name, *options, "--data", pictures, "--out", tmp_path / "out"),
        *("--eps", "4/255", "--epochs", 1, "--batch-size", 36, "--iga-weight", 1, "--iga-ramp", 0, "--device", "cpu"),
    )
    assert ran.code == 0, ran.stderr
    (line,) = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert strict(line)["terms"]["iga"] > 0
    assert load_model(tmp_path / "out" / "student.safetensors").record.arch == name


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("distill", ["--schedule", "cosine", "--average", "swa", "--swa-start", 0.5, "--augment", "idbh"]),
        ("train", ["--schedule", "step", "--optimizer", "sgd", "--average", "none", "--augment", "cutout"]),
    ],
)
def test_ways_of_training_are_chosen_and_best_and_last_are_evaluated(
    run: Any,
    teacher: list[str],
    small: list[str],
    pictures: Path,
    quick: list[object],
    tmp_path: Path,
    command: str,
    words: list[object],
) -> None:
    out = tmp_path / "out"
    network = [*teacher, *small] if command == "distill" else [word.replace("student", "model") for word in small]
    ran = run(command, *network, *words, "--data", pictures, "--out", out)
    assert ran.code == 0, ran.stderr
    assert "last, epoch 2, in last.safetensors: clean" in ran.stdout
    record = strict((out / "student.json").read_text())
    settled = record["settings"]["run"]
    assert (settled["lr"], settled["weight_decay"]) == ((3e-3, 0.01) if command == "distill" else (0.1, 5e-4))
    lines = [strict(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(line["validated"] in ("averaged", "raw") for line in lines)
    for name, sha256 in (("student", record["sha256"]), ("last", record["last"]["sha256"])):
        ran = run("evaluate", out / f"{name}.safetensors", *quick, "--certify-images", 0, "--format", "json")
        assert ran.code == 0, ran.stderr
        assert strict(ran.stdout)["models"]["student"]["sha256"] == sha256
    ran = run("evaluate", out / "last.safetensors", *quick, "--report", out / "student.json")
    assert ran.code == 2 and "would take the place of the record of MODEL" in ran.stderr


def test_a_run_on_the_built_in_digits_needs_no_files_but_the_teachers(
    run: Any, small: list[str], tmp_path: Path
) -> None:
    network = ["--model", "resnet18", "--model-arg", "layers=1,1,1,1", "--model-arg", "channels=2,2,2,2"]
    tiny = (
        "--image-size",
        8,
        "--train-images",
        40,
        "--eps",
        0.1,
        "--epochs",
        1,
        "--attack-steps",
        1,
        "--device",
        "cpu",
    )
    ran = run("train", *network, *tiny, "--data", "digits", "--out", tmp_path / "t", "--format", "json")
    assert ran.code == 0, ran.stderr
    assert strict(ran.stdout)["data"] == {"name": "digits", "train": 40, "holdout": 240, "damaged": 0}


@pytest.mark.parametrize("mode", ["exact", "finite-difference"])
def test_the_mode_of_the_gradient_term_is_told_and_recorded(
    run: Any, teacher: list[str], small: list[str], pictures: Path, tmp_path: Path, mode: str
) -> None:
    out = tmp_path / "out"
    ran = run("distill", *teacher, *small, "--data", pictures, "--iga-mode", mode, "--out", out)
    assert ran.code == 0, ran.stderr
    assert "gradient term: " + mode.replace("-difference", " differences") in ran.stderr
    gradient = strict((out / "student.json").read_text())["gradient"]
    assert gradient["mode"] == mode and gradient["milliseconds"].keys() == {mode}


def test_a_run_that_replaces_its_like_takes_over_its_choice(
    run: Any, teacher: list[str], small: list[str], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("distill", *teacher, *small, "--data", pictures, "--out", out, "--overwrite")
    assert run(*words).code == 0
    record = strict((out / "student.json").read_text())
    record["gradient"]["milliseconds"] = {"exact": 1.0, "compiled": 2.0}  # as after a longer run
    (out / "student.json").write_text(json.dumps(record))
    again = run(*words)
    assert "a step, as in the run before" in again.stderr
    other = run(*words, "--batch-size", 20)
    assert "gradient term: exact" in other.stderr and "as in the run before" not in other.stderr


def test_plain_kd_chooses_nothing(
    run: Any, teacher: list[str], small: list[str], pictures: Path, tmp_path: Path
) -> None:
    ran = run("distill", *teacher, *small, "--data", pictures, "--iga-weight", 0, "--out", tmp_path / "out")
    assert ran.code == 0 and "gradient term" not in ran.stderr
    assert strict((tmp_path / "out" / "student.json").read_text())["gradient"] is None


@pytest.mark.parametrize("words", [["--align", "jacobian"], ["--iga-norm", "l1"], ["--iga-micro-batch", 8]])
def test_variants_of_the_gradient_term_train(
    run: Any, teacher: list[str], small: list[str], pictures: Path, tmp_path: Path, words: list[object]
) -> None:
    ran = run("distill", *teacher, *small, "--data", pictures, *words, "--out", tmp_path / "out")
    assert ran.code == 0, ran.stderr
    epochs = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(epoch["terms"]["iga"] > 0 for epoch in epochs)


def test_a_second_student_reads_what_the_teacher_said_to_the_first(
    run: Any, teacher: list[str], small: list[str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    command = ["distill", *teacher, *small, "--data", pictures, "--cache-teacher", "--cache-views", 2]
    first = run(*command, "--out", tmp_path / "first")
    assert first.code == 0, first.stderr
    assert f"2 of 2 views of 80 images are made, 1 MB in {tmp_path}/caches/kdcompress/" in first.stderr
    second = run(*command, "--student-arg", "drop_rate=0.1", "--seed", 1, "--out", tmp_path / "second")
    assert second.code == 0, second.stderr
    assert "2 views of 80 images found" in second.stderr
