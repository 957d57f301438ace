"""The interface: options and their help, streams, exit codes, interrupts, and how fast it answers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from kdcompress import settings
from kdcompress.__main__ import app
from kdcompress.errors import TeacherError
from kdcompress.evaluation import evaluate as evaluating
from kdcompress.progress import Listener
from kdcompress.training import network, runs

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]

OPTIONS = {
    "distill": "--teacher --teacher-arch --teacher-arg --teacher-mean --teacher-std --student --student-arg "
    "--student-stride --student-weights --data --norm --eps --epochs --batch-size --lr --ce-weight --kl-weight "
    "--iga-weight --iga-start --iga-ramp --align --iga-norm --iga-mode --iga-micro-batch --temperature --input-noise "
    "--seed --device --out --overwrite --format --log-to",
    "prune": "--ratio --teacher --teacher-arch --teacher-arg --teacher-mean --teacher-std --data --norm --eps --recipe "
    "--epochs --batch-size --lr --ce-weight --kl-weight --iga-weight --iga-start --iga-ramp --align --iga-norm "
    "--iga-mode --temperature --input-noise --seed --device --cache-teacher --resume --out --overwrite --format "
    "--log-to",
    "train": "--recipe --model --model-arg --data --norm --eps --epochs --batch-size --lr --seed --device --out "
    "--overwrite --format --log-to",
    "evaluate": "--arch --arg --mean --std --teacher --teacher-arch --teacher-arg --teacher-mean --teacher-std --data "
    "--norm --eps --images --attack --seed --device --min-clean-accuracy --min-robust-accuracy --max-robust-drop "
    "--max-params --min-certified-accuracy --max-macs --max-latency-ms --confidence --allow-untrusted --gate-on "
    "--report --html --markdown --card --junit --table --format",
    "certify": "--arch --arg --mean --std --teacher --teacher-arch --teacher-arg --teacher-mean --teacher-std --data "
    "--norm --eps --images --kinds --propositions --audit-images --clever-images --clever-batches --clever-samples "
    "--clever-radius --smoothing --sigma --n0 --n --alpha --batch-size --memory --seed --device --keep-dir --fresh "
    "--min-verified-accuracy --min-certified-accuracy --gate-on --report --html --table --format",
    "compare": "--model --max-clean-drop --max-robust-drop --max-latency-ratio --allow-untrusted --report --markdown "
    "--junit --format",
    "bench": "--teacher --teacher-arch --teacher-mean --student --student-arg --data --eps --batch-size --device "
    "--epochs --compiled --report --format",
    "export": "--arch --mean --data --data-dir --image-size --format --out --opset --images --int8 --norm "
    "--calibration-images --eps --attack --seed --device --keep-dir --fresh --max-robust-drop --report --json",
    "inspect": "--report --format",
    "init": "--teacher --data --data-dir --out --overwrite --format",
    "plan": "--teacher-arch --student --image-size --classes --train-images --recipe --ce-weight "
    "--kl-weight --clean-weight --iga-weight --iga-start --iga-ramp --iga-every --align --iga-norm --iga-mode "
    "--temperature --input-noise --inner-attack --inner-steps --epochs --batch-size --precision "
    "--gpus --gpu-memory --tflops --link --report --format",
    "demo": "--images --seed --device --report --picture --format",
}


@pytest.fixture
def distil(teacher: list[str], small: list[str], pictures: Path, tmp_path: Path) -> list[str]:
    """A distillation that succeeds."""
    return ["distill", *teacher, *small, "--data", str(pictures), "--out", str(tmp_path / "out")]


def process(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same as a user's shell runs it."""
    return subprocess.run(
        [sys.executable, "-m", "kdcompress", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_a_command_has_the_options_that_are_promised(name: str) -> None:
    there = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert set(OPTIONS[name].split()) <= there


@pytest.mark.parametrize("name", COMMANDS)
def test_help_exits_with_0_and_lists_every_option_with_words_about_it(run: Any, name: str) -> None:
    ran = run(name, "--help")
    assert (ran.code, ran.stderr) == (0, "")
    flat = re.sub(r"[\s│]+", " ", ran.stdout)
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"{name} {parameter.name} has no help"
        words = re.sub(r"\s+", " ", parameter.help.replace("[default", "(default"))
        assert parameter.opts[0] in ran.stdout or parameter.name.upper() in ran.stdout, parameter.name
        assert words.split("[")[0].split("(default")[0].split(".")[0][:40] in flat, f"{parameter.name}: {words}"


def test_the_commands_are_listed(run: Any) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert all(name in ran.stdout for name in OPTIONS)


TRAINING = (settings.RunSettings, settings.LossSettings, settings.GateSettings)
HOMES = {
    "evaluate": (settings.EvaluationSettings, settings.GateSettings),
    "certify": (settings.EvaluationSettings, settings.CertifyGates),
    "export": (settings.EvaluationSettings, settings.ExportSettings),
    "train": (settings.RunSettings, settings.TrainSettings),
    "plan": (settings.RunSettings, settings.LossSettings, settings.PlanSettings),
}
ITS_OWN = {("certify", "images"), ("export", "images"), ("plan", "epochs"), ("plan", "batch_size"), ("plan", "gpus")}
"""Where a command has its own default, since what it measures takes longer, or what it plans is larger."""
OF_THE_RECIPE = {field for recipe in settings.RECIPES.values() for field in recipe} | {"ce_weight", "inner_steps"}
"""What is not given there is the recipe's."""


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_command_line_assumes_is_what_the_settings_say(name: str) -> None:
    checked = 0
    for parameter in COMMANDS[name].params:
        for home in HOMES.get(name, TRAINING):
            field = home.model_fields.get(parameter.name)
            if name in ("distill", "plan", "prune") and parameter.name in OF_THE_RECIPE:
                assert parameter.default is None, parameter.name
            elif field is not None and not field.is_required() and (name, parameter.name) not in ITS_OWN:
                # One that depends on other options is None as typed.
                expected = None if field.default_factory is not None else field.default
                assert parameter.default == expected, parameter.name
                checked += 1
    assert checked >= {"demo": 2, "bench": 5, "compare": 2, "inspect": 0, "init": 0}.get(name, 9)


@pytest.mark.parametrize("name", ["distill", "train"])
def test_defaults_that_depend_on_other_options_are_said_in_words(name: str) -> None:
    said = {parameter.name: getattr(parameter, "help", "") for parameter in COMMANDS[name].params}
    for option in ("lr", "weight_decay", "momentum"):
        for optimizer in settings.OPTIMIZERS.values():
            assert optimizer[option] is None or f"{optimizer[option]:g}" in said[option]
    for option, run in (("ema", {"average": "ema"}), ("swa_start", {"average": "swa"})):
        assert f"{getattr(settings.RunSettings(**run), option):g}" in said[option]


def test_the_version_is_the_packages(run: Any) -> None:
    ran = run("--version")
    assert ran.code == 0 and ran.stdout.startswith(f"kdcompress {version('kdcompress')}, python ")
    assert all(f"{name} {version(name)}" in ran.stdout for name in ("torch", "timm", "pyautoattack"))


@pytest.mark.parametrize(
    "words",
    [
        ["distill", "--iga-wieght", "1", ">", "--iga-wieght", "--iga-weight"],
        ["evaluate", "--data", "digits", ">", "--eps"],
        ["evaluate", "--data", "digits", "--eps", "4/255", "--images", "many", ">", "--images", "many", "integer"],
        ["evaluate", "--data", "digits", "--eps", "4/255", "--norm", "L0", ">", "--norm", "L0", "Linf"],
        ["evaluate", "--data", "digits", "--eps", "4/255", "--format", "xml", ">", "--format", "xml", "json"],
        ["compare", ">", "REPORTS"],
        ["compare", "a.json", "b.json", "--max-robust-drop", "some", ">", "--max-robust-drop", "some"],
        ["demo", "--images", "9999", ">", "--images", "360", "9999"],
        ["demo", "twice", ">", "twice"],
        ["distil", ">", "distill"],
        ["distill", "--norm", "linf", ">", "did you mean Linf?"],
        ["export", "--format", "onx", ">", "did you mean onnx?"],
    ],
    ids=" ".join,
)
def test_what_is_typed_wrong_exits_with_2_and_one_line_on_stderr(run: Any, words: list[str]) -> None:
    where = words.index(">")
    ran = run(*words[:where])
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1 and "--help'" in ran.stderr
    assert all(word in ran.stderr for word in words[where + 1 :])


@pytest.mark.parametrize(
    "words",
    [
        ["--eps", "4/255,", ">", "--eps", "number"],
        ["--eps", "4/255,8", ">", "--eps", "did you mean 8/255"],
        ["--eps", "1/255,2/255", "--attack", "none", ">", "--eps", "several"],
        ["--eps", "1/255", "--attack", "autoattack-fast", ">", "--attack", "autoattack-plus"],
        ["--eps", "1/255", "--confidence", "0.99", ">", "--min-robust-accuracy"],
        ["--eps", "1/255", "--surrogate", "p.pt", ">", "--surrogate", "MODEL"],
        ["--eps", "1/255", "--html", "a", "--report", "./a", ">", "--html", "--report", "different"],
        ["--eps", "1/255", "--table", "no/where", ">", "--table", "folder"],
        ["--eps", "1/255", "--chunk", "0", ">", "--chunk"],
    ],
    ids=" ".join,
)
def test_what_an_evaluation_cannot_do_is_refused_before_any_file_is_read(run: Any, words: list[str]) -> None:
    where = words.index(">")
    ran = run("evaluate", "--teacher", "t.pt", "--data", "digits", *words[:where])
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1
    assert all(word in ran.stderr for word in words[where + 1 :])


def test_training_under_l1_is_refused(run: Any, distil: list[str]) -> None:
    ran = run(*distil, "--norm", "L1")
    assert ran.code == 2 and "--norm L1 is for evaluate" in ran.stderr


def test_without_a_command_the_commands_are_shown(run: Any) -> None:
    ran = run()
    assert ran.code == 2
    assert all(name in ran.stdout for name in OPTIONS) and ran.stderr == ""


def test_json_is_all_there_is_on_stdout_and_progress_is_on_stderr(run: Any, distil: list[str]) -> None:
    ran = run(*distil, "--format", "json")
    assert ran.code == 0
    assert json.loads(ran.stdout)["schema_version"] == "1.0"
    assert "epoch 1" in ran.stderr and "checking the teacher" in ran.stderr
    assert "epoch" not in ran.stdout.replace('"epoch', "")


def test_the_summary_is_on_stdout_and_progress_is_not(run: Any, distil: list[str]) -> None:
    ran = run(*distil)
    assert ran.code == 0
    assert "parameters" in ran.stdout and "checking the teacher" not in ran.stdout


@pytest.mark.parametrize("callback", ["note", "step", "epoch"])
def test_ctrl_c_gives_130_one_line_and_nothing_half_written(
    run: Any, distil: list[str], tmp_path: Path, callback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    @contextmanager
    def interrupted(console: object) -> Iterator[Listener]:
        yield Listener(**{callback: stop})

    monkeypatch.setattr("kdcompress.render.progress.listening", interrupted)
    ran = run(*distil)
    assert (ran.code, ran.stdout) == (130, "")
    assert ran.stderr.startswith("interrupted") and ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bug_gives_3_with_the_traceback_and_the_versions_on_stderr(
    run: Any, distil: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by our own fault")

    monkeypatch.setattr(network, "fit", broken)
    ran = run(*distil)
    assert (ran.code, ran.stdout) == (3, "")
    assert "Traceback" in ran.stderr and "ZeroDivisionError: by our own fault" in ran.stderr
    assert "torch " in ran.stderr and "bug" in ran.stderr
    assert not any(line.startswith("error:") for line in ran.stderr.splitlines())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(28, "No space left on device", "student.json"), "the disk is full, writing student.json"),
        (MemoryError(), "--batch-size"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "--batch-size"),
        (TeacherError("two\nlines"), "error: two lines"),
    ],
)
def test_failures_of_the_machine_are_one_line_and_2(
    run: Any, distil: list[str], failure: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(network, "fit", fails)
    ran = run(*distil)
    assert ran.code == 2
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("error:") and said in last and "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_an_evaluation_reaches_its_settings(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[settings.EvaluateSettings] = []

    def caught(asked: settings.EvaluateSettings, **_: object) -> None:
        seen.append(asked)
        raise TeacherError("enough")

    monkeypatch.setattr(evaluating, "evaluate_with_evidence", caught)
    ran = run(
        *("evaluate", "s.pt", "--arch", "resnet18", "--arg", "depth=3", "--mean", "0.1,0.2,0.3", "--std", "1,1,1"),
        *("--teacher", "t.pt", "--teacher-arch", "f.py:g", "--teacher-arg", "a=b", "--teacher-mean", "none"),
        *("--data", "torch/cifar10", "--data-dir", "there", "--image-size", 16, "--norm", "L2", "--eps", "0.5,0.25"),
        *("--images", 7, "--attack", "pgd-9", "--certify-images", 5, "--sigma", 0.5, "--n0", 11, "--n", 12),
        *("--smoothing", "adaptive"),
        *("--alpha", 0.01, "--batch-size", 13, "--seed", 14, "--device", "cpu", "--min-clean-accuracy", 0.1),
        *("--min-robust-accuracy", 0.2, "--max-params", 15, "--gate-on", "bound"),
        *("--surrogate", "p.pt", "--surrogate-arch", "resnet34", "--surrogate-arg", "b=1", "--surrogate-mean", "none"),
        *("--chunk", 17, "--no-masking-checks", "--keep-dir", "kept", "--max-robust-drop", 0.3),
        *("--min-certified-accuracy", "0.25:0.40", "--max-macs", 16, "--max-latency-ms", 1.5, "--confidence", 0.99),
        "--allow-untrusted",
    )
    assert "enough" in ran.stderr
    assert seen[0].model_dump(mode="json") == {
        "student": {
            "path": "s.pt",
            "arch": "resnet18",
            "args": {"depth": 3},
            "mean": [0.1, 0.2, 0.3],
            "std": [1, 1, 1],
        },
        "teacher": {"path": "t.pt", "arch": "f.py:g", "args": {"a": "b"}, "mean": "none", "std": None},
        "surrogate": {"path": "p.pt", "arch": "resnet34", "args": {"b": 1}, "mean": "none", "std": None},
        "data": {
            "data": "torch/cifar10",
            "data_dir": "there",
            "image_size": 16,
            "train_images": None,
            "skip_corrupt": False,
        },
        "threat": {"norm": "L2", "eps": 0.5},
        "more_eps": [0.25],
        "evaluation": {
            **{"attack": "pgd-9", "images": 7, "seed": 14, "device": "cpu", "batch_size": 13, "sigma": 0.5},
            **{"chunk": 17, "masking": False, "keep_dir": "kept"},
            **{"n0": 11, "n": 12, "alpha": 0.01, "certify_images": 5, "smoothing": "adaptive"},
        },
        "gates": {
            **{"min_clean_accuracy": 0.1, "min_robust_accuracy": 0.2, "max_robust_drop": 0.3, "max_params": 15},
            **{"min_certified_accuracy": [0.25, 0.4], "max_macs": 16, "max_latency_ms": 1.5},
            **{"gate_on": "bound", "confidence": 0.99, "allow_untrusted": True},
        },
    }


def test_every_option_of_a_distillation_reaches_its_settings(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def caught(
        asked: settings.DistillSettings, out: Path, *, overwrite: bool, resume: bool, listener: Listener
    ) -> None:
        seen.extend([asked, out, overwrite, resume])
        raise TeacherError("enough")

    monkeypatch.setattr(runs, "distill", caught)
    ran = run(
        *("distill", "--teacher", "t.pt", "--teacher-arch", "f.py:g", "--teacher-arg", "a=b", "--teacher-mean", "0.5"),
        *(
            "--teacher-std",
            "0.25",
            "--insist",
            "--student",
            "vit",
            "--student-arg",
            "layers=1,2",
            "--student-arg",
            "b=x",
        ),
        *("--student-stride", 4, "--student-weights", "w.pt", "--data", "d", "--data-dir", "there", "--image-size", 16),
        *("--train-images", 99, "--skip-corrupt", "--norm", "L2", "--eps", 0.5, "--ce-weight", 0.1, "--kl-weight", 0.2),
        *(
            "--iga-weight",
            0.3,
            "--iga-start",
            0.5,
            "--iga-ramp",
            0.4,
            "--temperature",
            5,
            "--input-noise",
            "none",
            "--epochs",
            6,
        ),
        *("--align", "jacobian", "--iga-norm", "l1", "--iga-mode", "compiled", "--iga-micro-batch", 3),
        *("--recipe", "kdiga", "--clean-weight", 0.6, "--iga-every", 2, "--label-smoothing", 0.15),
        *("--cache-teacher", "--cache-views", 3, "--cache-dir", "kept"),
        *("--batch-size", 7, "--lr", 0.8, "--weight-decay", 0.9, "--augment", "crop"),
        *("--schedule", "step", "--optimizer", "sgd", "--momentum", 0.3, "--average", "swa", "--swa-start", 0.6),
        *("--noise-sigma", 0.7, "--precision", "bf16", "--sync-batchnorm", "--seed", 12, "--device", "cpu"),
        *("--out", tmp_path / "o", "--overwrite", "--resume", "--checkpoint-every", 2.5),
    )
    assert "enough" in ran.stderr
    asked, out, overwrite, resume = seen
    assert (out, overwrite, resume) == (tmp_path / "o", True, True)
    found = asked.model_dump(mode="json")
    assert found.pop("check")["insist"] is True
    assert found == {
        "cache": {"cache_teacher": True, "cache_views": 3, "cache_dir": "kept"},
        "teacher": {"path": "t.pt", "arch": "f.py:g", "args": {"a": "b"}, "mean": [0.5], "std": [0.25]},
        "student": "vit",
        "student_args": {"layers": [1, 2], "b": "x"},
        "student_stride": 4,
        "student_weights": "w.pt",
        "data": {"data": "d", "data_dir": "there", "image_size": 16, "train_images": 99, "skip_corrupt": True},
        "threat": {"norm": "L2", "eps": 0.5},
        "loss": {
            **{"ce_weight": 0.1, "kl_weight": 0.2, "iga_weight": 0.3, "iga_start": 0.5, "iga_ramp": 0.4},
            **{
                "temperature": 5,
                "input_noise": "none",
                "iga_norm": "l1",
                "align": "jacobian",
                "iga_mode": "compiled",
                "iga_micro_batch": 3,
            },
            **{"recipe": "kdiga", "clean_weight": 0.6, "iga_every": 2, "label_smoothing": 0.15},
            **{"self_weight": 0.0, "igdm_weight": 0.0, "trust_power": 0.1},
            **{"inner_attack": "none", "inner_steps": 10, "labels_at": "z", "soft_labels_at": "z"},
        },
        "run": {
            **{"epochs": 6, "batch_size": 7, "lr": 0.8, "weight_decay": 0.9, "ema": None, "augment": "crop"},
            **{"schedule": "step", "optimizer": "sgd", "momentum": 0.3, "average": "swa", "swa_start": 0.6},
            **{
                "seed": 12,
                "device": "cpu",
                "precision": "bf16",
                "noise_sigma": 0.7,
                "checkpoint_every": 2.5,
                "sync_batchnorm": True,
            },
        },
    }


def test_the_options_of_an_inner_attack_reach_the_settings(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[settings.DistillSettings] = []

    def caught(asked: settings.DistillSettings, out: Path, **rest: Any) -> None:
        seen.append(asked)
        raise TeacherError("enough")

    monkeypatch.setattr(runs, "distill", caught)
    words = ("distill", "--teacher", "t.pt", "--student", "s", "--data", "d", "--eps", "0.1", "--out", "o")
    run(
        *words,
        "--recipe",
        "iad",
        "--self-weight",
        0.5,
        "--igdm-weight",
        0.25,
        "--inner-attack",
        "kl",
        "--inner-steps",
        4,
    )
    loss = seen[0].loss
    assert (loss.recipe, loss.self_weight, loss.igdm_weight) == ("iad", 0.5, 0.25)
    assert (loss.inner_attack, loss.inner_steps, loss.input_noise) == ("kl", 4, "none")
    run(*words, "--recipe", "rslad", "--iga-weight", "auto")
    assert seen[1].loss == settings.LossSettings(recipe="rslad", iga_weight="auto")


# The rest asks a process of its own.


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["distill", "--help"],
        ["distill", "--no-such-option"],
        ["evaluate", "--data", "digits", "--eps", "8"],
        ["evaluate", "m.pt", "--data", "digits", "--eps", "0.1", "--attack", "fgsm"],
    ],
    ids=" ".join,
)
def test_help_and_usage_errors_answer_without_importing_torch(words: list[str]) -> None:
    watch = (
        "import sys; from kdcompress.__main__ import app\n"
        f"try: app({words!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        "print('LOADED', code, sorted({'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stderr.splitlines()[-1] == f"LOADED {0 if words[-1] in ('--help', '--version') else 2} []", ran.stderr


def test_the_real_command_refuses_in_one_line(teacher: list[str], pictures: Path, tmp_path: Path) -> None:
    ran = process("evaluate", tmp_path / "nowhere.pt", "--data", pictures, "--eps", "4/255", "--device", "cpu")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert [line for line in ran.stderr.splitlines() if line.startswith("error:")] == [ran.stderr.splitlines()[-1]]
    assert "Traceback" not in ran.stderr and "Warning" not in ran.stderr


def test_the_real_command_misses_a_gate_with_1_obeys_no_color_and_shows_no_bars(
    teacher: list[str], pictures: Path, tmp_path: Path
) -> None:
    ran = process(
        *("evaluate", *teacher, "--data", pictures, "--eps", "4/255", "--device", "cpu", "--attack", "pgd-2"),
        *("--certify-images", 0, "--max-params", 1, "--report", tmp_path / "report.json"),
        env=os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 1, ran.stderr
    assert "MISSED --max-params" in ran.stdout
    assert json.loads((tmp_path / "report.json").read_text())["gates"][0]["met"] is False
    assert not re.search(r"\x1b|\r", ran.stdout + ran.stderr)
    assert "Traceback" not in ran.stderr and "Warning" not in ran.stderr


def test_a_reader_that_leaves_early_is_no_bug(student: Path, pictures: Path) -> None:
    words = ("evaluate", student / "student.safetensors", "--data", pictures, "--eps", "4/255", "--device", "cpu")
    words = (*words, "--attack", "none", "--certify-images", "0", "--format", "json")
    read, write = os.pipe()
    os.close(read)  # nobody listens
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "kdcompress", *map(str, words)],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    finally:
        os.close(write)
    assert "Traceback" not in ran.stderr and "BrokenPipe" not in ran.stderr, ran.stderr
    assert ran.returncode == 2


def test_an_interrupt_that_fell_into_an_import_exits_with_130_too(tmp_path: Path) -> None:
    """CPython remembers a KeyboardInterrupt that passed through `exec` of a text, as dataclasses use it.

    `python -m` would then end with the signal.
    """
    (tmp_path / "interrupted.py").write_text(
        """
import kdcompress.__main__ as program

def app():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        raise SystemExit(130)

program.app = app
program.main()
"""
    )
    ran = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, timeout=60, check=False)
    assert ran.returncode == 130


def test_a_real_interrupt_while_training_leaves_nothing_and_exits_with_130(distil: list[str], tmp_path: Path) -> None:
    longer = [*distil, "--epochs", "100000"]
    # Where these tests run in the background, the shell has SIGINT ignored, and the child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-m", "kdcompress", *longer],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:  # until the gradient term is compiled, which so long a run is worth
            if line.startswith("loss:"):
                break
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        try:
            # The compiler may swallow it: then it is heeded when it has ended, in a minute.
            out, err = running.communicate(timeout=240)
        finally:
            running.kill()
    assert (running.returncode, out) == (130, ""), err
    assert "interrupted" in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_of_the_loss_that_is_asked_for(run: Any) -> None:
    small = ("--image-size", "32", "--classes", "10", "--train-images", "2000", "--batch-size", "64", "--gpus", "1")
    words = ("plan", "--teacher-arch", "resnet18", "--student", "resnet18", *small, "--format", "json")
    ran = run(*words, "--recipe", "rslad", "--clean-weight", "0", "--iga-weight", "auto/4", "--iga-every", "2")
    assert ran.code == 0, ran.stderr
    loss = json.loads(ran.stdout)["settings"]["loss"]
    assert (loss["recipe"], loss["clean_weight"], loss["iga_weight"], loss["iga_every"]) == ("rslad", 0.0, "auto/4", 2)
