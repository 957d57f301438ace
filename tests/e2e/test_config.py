"""Options from a file and the environment, and the file that a run leaves to be run again."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kdcompress.errors import TeacherError
from kdcompress.evaluation import certify as certifying
from kdcompress.evaluation import evaluate as evaluating
from kdcompress.export import exporting
from kdcompress.settings import (
    AuditSettings,
    CacheSettings,
    CertifyGates,
    CertifySettings,
    CleverSettings,
    DataSettings,
    DistillSettings,
    EvaluateSettings,
    EvaluationSettings,
    ExportSettings,
    GateSettings,
    LossSettings,
    ModelFile,
    PruneSettings,
    RunSettings,
    Settings,
    TeacherCheckSettings,
    ThreatSettings,
    TrainSettings,
)
from kdcompress.settings.config import as_options, as_toml, besides_options, named
from kdcompress.training import runs

TEACHER = ModelFile(path=Path("/t/robust.pt"), arch="a.b:c", args={"depth": 3, "act": "1", "k": [1, [2, 3]]})
PAIR: dict[str, Any] = {
    "teacher": TEACHER,
    "student": "resnet18",
    "data": DataSettings(data="digits"),
    "threat": ThreatSettings(eps=8 / 255),
}


class BeganError(Exception):
    """Ends a command where its work would begin."""


@pytest.fixture
def asked(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command line -> the settings that it asks for, or its one line of refusal."""
    heard: list[Any] = []

    def work(settings: Any, out: Path, **_: Any) -> None:
        heard.append((settings, out))
        raise BeganError

    monkeypatch.setattr(runs, "distill", work)
    monkeypatch.setattr(runs, "train", work)
    monkeypatch.setattr(runs, "prune", work)
    monkeypatch.setattr(exporting, "export_model", work)

    def ask(*words: object) -> Any:
        heard.clear()
        ran = run(*words)
        if heard:
            return heard[0]
        assert ran.code == 2 and ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr

    return ask


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "settings",
    [
        DistillSettings(**PAIR),
        *(DistillSettings(**PAIR, loss=LossSettings(recipe=name)) for name in ("kd", "iad", "igdm", "ard")),
        DistillSettings(
            **PAIR | {"teacher": ModelFile(path=Path("/t/x.pt"), mean=(0.1, 1 / 3, 0.5), std="none")},
            student_args={"layers": [1, 1], "act_layer": "silu", "drop": 0.1},
            student_stride=8,
            loss=LossSettings(align="jacobian", iga_weight=3.3, iga_norm="l1", iga_micro_batch=4, iga_mode="exact"),
            run=RunSettings(epochs=3, average="swa", noise_sigma=0.25, sync_batchnorm=True, seed=7, precision="bf16"),
            cache=CacheSettings(cache_teacher=True, cache_views=3, cache_dir=Path("/v")),
        ),
        DistillSettings(**PAIR, run=RunSettings(optimizer="sgd", schedule="step", average="none", augment="idbh")),
        TrainSettings(
            recipe="trades",
            model="resnet18",
            model_args={"layers": [1, 1, 1, 1]},
            data=DataSettings(data="torch/cifar10", data_dir=Path("/d"), train_images=100, skip_corrupt=True),
            threat=ThreatSettings(norm="L2", eps=0.1),
            beta=3.0,
            label_smoothing=0.1,
        ),
        PruneSettings(**PAIR | {"student": Path("/s/student.safetensors")}, ratio=0.3),
        TrainSettings(recipe="at", model="m", attack_steps=3, data=PAIR["data"], threat=PAIR["threat"]),
    ],
)
def test_the_file_asks_for_the_settings_that_it_was_made_from(asked: Any, tmp_path: Path, settings: Settings) -> None:
    command = type(settings).__name__.removesuffix("Settings").lower()
    file = written(tmp_path / "run.toml", as_toml(command, as_options(settings)))
    found, out = asked(command, "--config", file, "--out", tmp_path / "out")
    assert found.model_dump(mode="json") == settings.model_dump(mode="json") and out == tmp_path / "out"


def test_a_run_leaves_the_file_that_runs_it_again(run: Any, student: Path, tmp_path: Path) -> None:
    ran = run("distill", "--config", student / "run.toml")
    assert ran.code == 2 and f"--out {student} already holds a run" in ran.stderr
    ran = run("distill", "--config", student / "run.toml", "--out", tmp_path / "again")
    assert ran.code == 0, ran.stderr
    first, again = (json.loads((folder / "student.json").read_text()) for folder in (student, tmp_path / "again"))
    assert first["last"]["sha256"] == again["last"]["sha256"] and first["sha256"] == again["sha256"]


FILE = """
eps = "4/255"
epochs = 5
seed = 1

[distill]
teacher = "robust.pt"
student = "resnet18"
student-arg = ["layers=1,1,1,1", "act_layer=silu"]
data = "digits"
out = "out"
cache_teacher = true
epochs = 6

[evaluate]
model = "out/student.safetensors"
min-robust-accuracy = 0.4
"""


@pytest.mark.parametrize(
    ("words", "variables", "epochs", "seed"),
    [
        ((), {}, 6, 1),
        ((), {"KDCOMPRESS_EPOCHS": "7"}, 7, 1),
        (("--epochs", "8"), {"KDCOMPRESS_EPOCHS": "7", "KDCOMPRESS_SEED": "9"}, 8, 9),
    ],
)
def test_what_is_typed_counts_before_the_environment_and_that_before_the_file(
    asked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: Any, variables: Any, epochs: int, seed: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, out = asked("distill", "--config", written(tmp_path / "run.toml", FILE), *words)
    assert (found.run.epochs, found.run.seed, out) == (epochs, seed, Path("out"))
    assert found.threat.eps == 4 / 255 and found.cache.cache_teacher
    assert found.student_args == {"layers": (1, 1, 1, 1), "act_layer": "silu"}


def test_the_environment_alone_is_enough(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MODEL": "resnet18",
        "MODEL_ARG": "layers=1,1,1,1 channels=4,4,4,4",
        "DATA": "digits",
        "EPS": "0.1",
        "OUT": "o",
        "OVERWRITE": "1",
    }.items():
        monkeypatch.setenv(f"KDCOMPRESS_{name}", value)
    found, out = asked("train")
    assert found.model_args == {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 4)} and out == Path("o")


def test_json_asked_of_every_command_is_not_the_format_of_an_exported_file(
    run: Any, asked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("m.safetensors", "--data", "digits", "--out", "x.onnx")
    file = written(tmp_path / "options.toml", 'format = "json"')
    assert asked("export", *words, "--config", file)[0].format == "onnx"
    assert f"--json True: {file}\n" in run("export", *words, "--config", file, "--verbose").stderr
    monkeypatch.setenv("KDCOMPRESS_FORMAT", "json")
    assert asked("export", *words)[0].format == "onnx"
    assert "--json True: the environment\n" in run("export", *words, "--verbose").stderr
    own = written(tmp_path / "own.toml", '[export]\nformat = "json"')
    monkeypatch.delenv("KDCOMPRESS_FORMAT")
    assert "--format" in asked("export", *words, "--config", own)
    monkeypatch.setenv("KDCOMPRESS_FORMAT", "torch-export")
    assert asked("export", *words)[0].format == "torch-export"


@pytest.mark.parametrize("command", ["distill", "prune", "train"])
def test_trackers_may_stand_in_the_environment_with_spaces_between_them(
    asked: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    # Every option that may be given several times is split.
    for name in ("STUDENT", "TEACHER", "MODEL", "DATA", "OUT"):
        monkeypatch.setenv(f"KDCOMPRESS_{name}", "a b")
    monkeypatch.setenv("KDCOMPRESS_EPS", "0.1")
    monkeypatch.setenv("KDCOMPRESS_LOG_TO", "tensorboard:here  tensorboard")
    assert "--log-to tensorboard is given twice" in asked(command)
    monkeypatch.setenv("KDCOMPRESS_LOG_TO", "tensorboard:here mlflow")
    found, out = asked(command)
    assert out == Path("a b") and found.data.data == "a b"


def test_a_tracker_may_stand_in_the_file(asked: Any, tmp_path: Path) -> None:
    file = written(
        tmp_path / "run.toml", FILE + '\n[train]\nlog-to = ["wandb", "comet"]\nmodel = "m"\ndata = "d"\nout = "o"\n'
    )
    assert "got comet" in asked("train", "--config", file)


def test_an_argument_and_gates_may_stand_in_the_file(run: Any, tmp_path: Path, student: Path, pictures: Path) -> None:
    text = FILE.replace("out/student.safetensors", str(student / "student.safetensors"))
    words = ("--config", written(tmp_path / "run.toml", text), "--data", pictures, "--attack", "none")
    ran = run("evaluate", *words, "--certify-images", "0", "--device", "cpu")
    assert ran.code == 2 and "--min-robust-accuracy" in ran.stderr  # it was read: nothing is attacked here


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epocs = 3", "no command has an option epocs; did you mean epochs"),
        ("[distill]\nmodel = 'x'", "kdcompress distill has no option model"),
        ("[distil]\nepochs = 3", "expected tables named as commands, got [distil]; did you mean distill?"),
        ("epochs = ", "expected TOML, such as epochs = 30"),
        ("teacher = 't'\nstudent = 's'\ndata = 'd'\neps = 1\nout = 'o'\nepochs = 'many'", "--epochs: "),
        ("[distill.student-arg]\nlayers = 1", "student-arg with a table of values; write key=value texts in a list"),
        ("config = 'other.toml'", "no command has an option config"),
    ],
)
def test_a_file_with_a_fault_is_refused(asked: Any, tmp_path: Path, text: str, said: str) -> None:
    line = asked("distill", "--config", written(tmp_path / "run.toml", text))
    assert said in line


def test_a_file_that_cannot_be_read_is_named(asked: Any, tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in asked("distill", "--config", tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    assert "cannot be read" in asked("distill", "--config", tmp_path / "bytes.toml")


def test_a_variable_that_no_option_knows_is_refused(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCOMPRESS_EPOCS", "3")
    assert "KDCOMPRESS_...: no command has an option epocs; did you mean epochs" in asked("distill")


JACOBIAN = DistillSettings(
    **PAIR,
    loss=LossSettings(align="jacobian", iga_weight=3.0, ce_weight=0.5, label_smoothing=0.1),
    run=RunSettings(epochs=3, ema=0.9, lr=0.02, weight_decay=0.1),
)


@pytest.mark.parametrize(
    ("typed", "fields"),
    [
        (("--recipe", "kd"), {"loss": LossSettings(recipe="kd")}),
        (("--recipe=rslad",), {"loss": LossSettings(recipe="rslad")}),
        (("--recipe", "kdiga"), {"loss": LossSettings(recipe="kdiga", align="jacobian")}),
        (("--recipe", "ard"), {"loss": LossSettings(recipe="ard")}),
        (("--recipe", "kdiga-noise"), {}),
        (("--recipe", "kd", "--iga-weight", "2"), {"loss": LossSettings(recipe="kd", iga_weight=2.0)}),
        (("--optimizer", "sgd"), {"run": RunSettings(epochs=3, ema=0.9, optimizer="sgd")}),
        (("--average", "none"), {"run": RunSettings(epochs=3, average="none", lr=0.02, weight_decay=0.1)}),
        (("--epochs", "9"), {"run": RunSettings(epochs=9, ema=0.9, lr=0.02, weight_decay=0.1)}),
    ],
)
def test_another_recipe_than_the_files_is_not_given_the_weights_of_the_files(
    asked: Any, tmp_path: Path, typed: tuple[str, ...], fields: dict[str, Any]
) -> None:
    file = written(tmp_path / "run.toml", as_toml("distill", as_options(JACOBIAN)))
    found, _ = asked("distill", "--config", file, "--out", tmp_path / "out", *typed)
    assert found.model_dump(mode="json") == JACOBIAN.model_copy(update=fields).model_dump(mode="json")


def test_what_is_left_aside_is_said(run: Any, asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "run.toml", as_toml("distill", as_options(JACOBIAN)))
    monkeypatch.setenv("KDCOMPRESS_OPTIMIZER", "sgd")
    ran = run("distill", "--config", file, "--out", tmp_path / "out", "--recipe", "kd", "--iga-weight", "2")
    notes = [line for line in ran.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert "--recipe is kd, not kdiga-noise as in" in notes[0] and "--input-noise" in notes[0]
    assert "--iga-weight" not in notes[0]  # it was typed, and counts
    assert "--optimizer is sgd, not adamw" in notes[1] and notes[1].endswith(
        "aside what it says of --lr, --weight-decay"
    )
    assert "note: " not in run("distill", "--config", file, "--out", tmp_path / "out", "--recipe", "kd", "-q").stderr


def test_what_a_file_does_not_say_of_its_own_recipe_it_says_of_any(asked: Any, tmp_path: Path) -> None:
    options = {name: value for name, value in as_options(JACOBIAN).items() if name != "recipe"}
    file = written(tmp_path / "run.toml", as_toml("distill", options))
    found, _ = asked("distill", "--config", file, "--out", tmp_path / "out", "--recipe", "kd")
    assert found.loss.iga_weight == 3.0 and found.loss.align == "jacobian"


def test_a_file_says_what_no_option_can_ask_for() -> None:
    whole = DistillSettings(**PAIR, loss=LossSettings(recipe="ard"))
    assert besides_options(whole) == ()
    python = whole.model_copy(
        update={
            "loss": LossSettings(recipe="ard", labels_at="z", trust_power=2),
            "check": TeacherCheckSettings(check_images=32),
        }
    )
    found = besides_options(python)
    assert found == ("trust_power = 2.0", "labels_at = z", "check_images = 32")
    text = as_toml("distill", as_options(python), besides=found)
    assert "# NOT THE WHOLE RUN" in text and "labels_at = z" in text and tomllib.loads(text)


@pytest.mark.parametrize(
    "name", ["t\U0001f600.safetensors", "caf\u00e9 \u4e2d.safetensors", "tab\t.safetensors", "del\x7f.safetensors"]
)
def test_any_name_that_is_text_can_stand_in_the_file(name: str) -> None:
    text = as_toml("distill", {"teacher": f"/t/{name}", "epochs": 3})
    assert tomllib.loads(text)["distill"] == {"teacher": f"/t/{name}", "epochs": 3}


def test_a_name_that_is_no_text_is_left_to_be_typed() -> None:
    text = as_toml("distill", {"teacher": "/t/b\udcff.pt", "epochs": 3})
    assert tomllib.loads(text)["distill"] == {"epochs": 3}
    assert "type --teacher" in text


def test_built_in_images_and_schemes_stay_what_they_are_beside_folders_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "torch/cifar10", "pictures"):
        Path(name).mkdir(parents=True)
    assert [named(name) for name in ("digits", "torch/cifar10", "./digits", "pictures", "elsewhere")] == [
        *("digits", "torch/cifar10", f"{tmp_path}/digits", f"{tmp_path}/pictures", "elsewhere")
    ]


def test_a_function_of_a_file_is_named_by_the_files_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arch, whole in (("nets/my.py:net", f"{tmp_path}/nets/my.py:net"), ("a.b:c", "a.b:c"), ("resnet18", "resnet18")):
        teacher = ModelFile(path=Path("/t/x.pt"), arch=arch)
        assert as_options(DistillSettings(**PAIR | {"teacher": teacher}))["teacher-arch"] == whole


def test_init_writes_a_file_that_a_run_and_an_evaluation_take(
    run: Any, asked: Any, teacher: list[str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("init", "--teacher", teacher[1], "--data", pictures)
    assert ran.code == 0 and ran.stdout.startswith("run.toml is written; 4 lines say FILL IN"), ran.stderr
    text = Path("run.toml").read_text()
    assert "# 4 classes, 3x8x8" in text
    found, _ = asked("distill", "--config", "run.toml", "--eps", "4/255")
    assert found.teacher.arch is None and found.teacher.mean is None  # nothing is guessed
    filled = text.replace('# FILL IN: teacher-arch = "..."', f'teacher-arch = "{teacher[3]}"')
    Path("run.toml").write_text(filled.replace("# FILL IN: ", ""))
    found, out = asked("distill", "--config", "run.toml")
    assert found.teacher.arch == teacher[3] and found.data.data == str(pictures) and out == Path("student")
    ran = run("evaluate", "--config", "run.toml")
    assert ran.code == 2 and "student/student.safetensors: expected a model file, found nothing there" in ran.stderr
    assert "is there already" in run("init", "--teacher", teacher[1], "--data", pictures).stderr


def test_init_refuses_a_teacher_of_other_classes(run: Any, student: Path, tmp_path: Path) -> None:
    ran = run("init", "--teacher", student / "student.safetensors", "--data", "digits", "--out", tmp_path / "x.toml")
    assert ran.code == 2 and "tells 4 classes apart, and --data digits has 10" in ran.stderr
    assert not (tmp_path / "x.toml").exists()


NETWORK = ModelFile(path=Path("/s/net.pt"), arch="/s/a.py:b", args={"depth": 3}, mean=(0.5,), std=(0.25,))
FULL = EvaluationSettings(
    attack="pgd-7", images=9, seed=5, device="cpu", chunk=3, batch_size=2, keep_dir=Path("/k"), masking=False, n=70
)


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("evaluate", EvaluateSettings(student=NETWORK, teacher=None, data=PAIR["data"], threat=PAIR["threat"])),
        (
            "evaluate",
            EvaluateSettings(
                student=NETWORK,
                teacher=TEACHER,
                surrogate=NETWORK,
                data=DataSettings(data="torch/cifar10", data_dir=Path("/d"), image_size=16),
                threat=ThreatSettings(norm="L2", eps=1 / 3),
                more_eps=(0.1, 2 / 7),
                evaluation=FULL,
                gates=GateSettings(
                    min_certified_accuracy=(0.25, 0.1), max_params=7, gate_on="bound", max_robust_drop=0.1
                ),
            ),
        ),
        (
            "certify",
            CertifySettings(
                student=None,
                teacher=TEACHER,
                data=PAIR["data"],
                threat=PAIR["threat"],
                more_eps=(0.2,),
                kinds=("clever", "bounds"),
                propositions=False,
                audit_images=3,
                clever_images=2,
                memory=1.5,
                largest=False,
                clever=CleverSettings(clever_radius=0.3, clever_batches=2, seed=5),
                audit=AuditSettings(seed=5, batch_size=2),
                evaluation=FULL.model_copy(update={"attack": "none", "chunk": None, "masking": True}),
                gates=CertifyGates(min_verified_accuracy=0.1),
            ),
        ),
        (
            "certify",
            CertifySettings(
                student=NETWORK,
                teacher=None,
                data=PAIR["data"],
                threat=PAIR["threat"],
                clever=CleverSettings.for_radii([8 / 255]),
                evaluation=EvaluationSettings(attack="none", images=4),
            ),
        ),
        (
            "export",
            ExportSettings(
                model=NETWORK,
                data=PAIR["data"],
                int8=True,
                threat=PAIR["threat"],
                max_robust_drop=0.1,
                calibration_images=9,
                evaluation=EvaluationSettings(images=7, seed=3, attack="pgd-2", certify_images=0, keep_dir=Path("/k")),
            ),
        ),
    ],
)
def test_a_report_is_a_file_of_the_options_that_it_was_made_with(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, settings: Any
) -> None:
    heard: list[Any] = []

    def work(asked: Any, *_: Any, **__: Any) -> None:
        heard.append(asked)
        raise TeacherError("enough")

    monkeypatch.setattr(evaluating, "evaluate_with_evidence", work)
    monkeypatch.setattr(certifying, "certify_with_names", work)
    monkeypatch.setattr(exporting, "export_model", work)
    marks = {"evaluate": "models", "certify": "audit", "export": "agreements"}
    report = {marks[command]: {}, "settings": settings.model_dump(mode="json")}
    file = written(tmp_path / "report.json", json.dumps(report))
    out = ("--out", tmp_path / "x.onnx") if command == "export" else ()
    roles = {"student": "--arch", "model": "--arch", "teacher": "--teacher-arch", "surrogate": "--surrogate-arch"}
    typed: dict[str, str] = {
        option: named.arch for role, option in roles.items() if (named := getattr(settings, role, None)) is not None
    }
    for option, arch in typed.items():  # whoever wrote the report could have named any function
        others = [word for pair in typed.items() if pair[0] != option for word in pair]
        ran = run(command, "--config", file, *out, *others)
        assert ran.code == 2 and f"type {option} {arch} where you trust it" in ran.stderr and not heard
    ran = run(command, "--config", file, *out, *(word for pair in typed.items() for word in pair))
    assert "enough" in ran.stderr, ran.stderr
    assert heard[0].model_dump(mode="json") == settings.model_dump(mode="json")
    other = {"evaluate": "certify", "certify": "export", "export": "evaluate"}[command]
    ran = run(other, "--config", file)
    assert ran.code == 2 and f"is a report of kdcompress {command}; {other} reads its own" in ran.stderr


PLAIN = ModelFile(path=Path("/s/net.pt"), mean="none")
NOTHING = EvaluationSettings(attack="none", images=4)


def certifying_with(**changes: Any) -> CertifySettings:
    given = {"student": PLAIN, "teacher": None, "data": PAIR["data"], "threat": PAIR["threat"], "evaluation": NOTHING}
    return CertifySettings(**given | {"clever": CleverSettings(clever_radius=0.1)} | changes)


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        (certifying_with(), ""),
        (certifying_with(clever=CleverSettings(clever_radius=0.1, rivals=9)), "rivals = 9"),
        (certifying_with(clever=CleverSettings(clever_radius=0.1, seed=7)), "clever.seed = 7"),
        (certifying_with(audit=AuditSettings(steps=99)), "this audit"),
        (certifying_with(evaluation=EvaluationSettings(attack="none")), "images = None"),
        (certifying_with(evaluation=NOTHING.model_copy(update={"chunk": 30})), "chunk = 30"),
        (
            ExportSettings(model=PLAIN, data=PAIR["data"], evaluation=EvaluationSettings(images=3, masking=False)),
            "masking = False",
        ),
        (
            ExportSettings(model=PLAIN, data=PAIR["data"], evaluation=EvaluationSettings(images=3, batch_size=2)),
            "batch_size = 2",
        ),
    ],
)
def test_a_report_that_no_options_ask_for_is_refused_by_what_would_be_lost(
    run: Any, tmp_path: Path, settings: Any, lost: str
) -> None:
    command = "certify" if isinstance(settings, CertifySettings) else "export"
    mark = "audit" if command == "certify" else "agreements"
    report = json.dumps({mark: {}, "settings": settings.model_dump(mode="json")})
    file = written(tmp_path / "report.json", report)
    ran = run(command, "--config", file, *(("--out", tmp_path / "x.onnx") if command == "export" else ()))
    assert ran.code == 2
    assert (f"no option asks for {lost}" in ran.stderr) if lost else ("/s/net.pt" in ran.stderr), ran.stderr


def test_an_option_that_takes_a_value_takes_no_true(asked: Any, tmp_path: Path) -> None:
    line = asked("distill", "--config", written(tmp_path / "run.toml", "epochs = true"))
    assert "epochs takes a value, got true" in line


def test_a_home_that_nobody_has_is_no_bug(run: Any, tmp_path: Path) -> None:
    settings = EvaluateSettings(
        student=PLAIN, teacher=None, data=DataSettings(data="~nosuchuser/x"), threat=PAIR["threat"]
    )
    report = json.dumps({"models": {}, "settings": settings.model_dump(mode="json")})
    ran = run("evaluate", "--config", written(tmp_path / "report.json", report))
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"models": {}, "settings": {"student": 3}}', "{", "\x00"])
def test_json_that_is_no_report_is_refused(run: Any, tmp_path: Path, text: str) -> None:
    ran = run("evaluate", "--config", written(tmp_path / "report.json", text))
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    assert "--config" in ran.stderr and ("expected a JSON report" in ran.stderr or "cannot be read" in ran.stderr)


def test_an_evaluation_runs_again_from_its_report_with_the_same_figures(
    run: Any, student: Path, pictures: Path, tmp_path: Path
) -> None:
    words = (
        "--data",
        pictures,
        "--eps",
        "4/255,1/255",
        "--attack",
        "pgd-3",
        "--images",
        6,
        "--device",
        "cpu",
        "--fresh",
    )
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    ran = run("evaluate", student / "student.safetensors", *words, "--certify-images", 0, "--report", first)
    assert ran.code == 0, ran.stderr
    ran = run("evaluate", "--config", first, "--report", again)
    assert ran.code == 0, ran.stderr
    one, other = (json.loads(path.read_text()) for path in (first, again))
    for found in (one, other):
        found.pop("seconds")
        found["models"]["student"].pop("latency_ms")
        found["models"]["student"]["masking"].pop("seconds")
    assert one == other
