"""What is said before and beside a run: help, its examples, the reference made of it, completion, --verbose."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any

import pytest
import typer

from kdcompress.__main__ import app
from kdcompress.cli.commands import SUMMARIES

ROOT = Path(__file__).parents[2]
PROGRAM: Any = typer.main.get_command(app)


def docstring(name: str) -> str:
    return cleandoc(getattr(import_module(f"kdcompress.cli.{name}"), name).__doc__)


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_summary_of_a_command_is_the_first_paragraph_of_its_help(name: str) -> None:
    assert " ".join(docstring(name).split("\n\n")[0].split()) == SUMMARIES[name]


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_commands_help_has_an_example_that_is_understood_and_fits_a_terminal(name: str, run: Any) -> None:
    block = docstring(name).partition("Example")[2].partition("\n\n")[2]
    examples = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert examples
    program = PROGRAM.make_context("kdcompress", ["demo"])
    for tool, command, *words in examples:
        assert (tool, command) == ("kdcompress", name)
        if "--config" not in words:  # its file is the reader's
            PROGRAM.commands[name].make_context(name, words, parent=program)  # raises on what it does not know
    shown = run(name, "--help").stdout
    for line in block.splitlines():
        assert line.strip() in shown  # whole: it can be copied


def test_the_reference_says_what_the_program_says() -> None:
    words = ["-m", "typer", "kdcompress.__main__", "utils", "docs", "--name", "kdcompress", "--title"]
    made = subprocess.run(
        [sys.executable, *words, "The commands of kdcompress"], capture_output=True, text=True, check=True, timeout=60
    )
    assert (ROOT / "docs" / "commands.md").read_text().strip() == made.stdout.strip(), (
        "docs/commands.md: CONTRIBUTING.md has the command that makes it anew"
    )


def test_the_list_of_commands_imports_none_of_them() -> None:
    watch = (
        "import sys; from kdcompress.__main__ import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', sorted({'pydantic', 'kdcompress.cli.distill'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stderr.splitlines()[-1] == "LOADED []"
    assert all(name in ran.stdout for name in SUMMARIES)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("kdcompress di", ["distill"]),
        ("kdcompress distill --teach", ["--teacher", "--teacher-arch", "--teacher-arg", "--teacher-mean"]),
        ("kdcompress distill --optimizer ", ["adamw", "sgd"]),
        ("kdcompress distill --recipe kdiga-", ["kdiga-noise", "kdiga-adv"]),
        ("kdcompress distill --inner-attack a", ["adaptive"]),
        ("kdcompress certify --norm ", ["Linf", "L2"]),
        ("kdcompress export --format ", ["onnx", "torch-export"]),
        ('kdcompress evaluate --data "" --ep', ["--eps"]),
        ("kdcompress evaluate --attack auto", ["autoattack", "autoattack-plus", "autoattack-rand"]),
        ("kdcompress certify --kinds s", ["smoothing"]),
        ("kdcompress certify --device c", ["cpu", "cuda"]),
        ("kdcompress distill --log-to ", ["tensorboard", "wandb", "mlflow"]),
        ("kdcompress distill --student mobilenetv3_small_0", ["mobilenetv3_small_050", "mobilenetv3_small_075"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(typed: str, offered: list[str]) -> None:
    ran = subprocess.run(
        [str(Path(sys.executable).with_name("kdcompress"))],
        env=os.environ
        | {
            "_KDCOMPRESS_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - (0 if typed.endswith(" ") else 1)),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = ran.stdout.split()
    assert found[: len(offered)] == offered, ran.stderr


def test_verbose_says_where_options_come_from_what_is_read_and_what_is_kept(
    run: Any, teacher: list[str], small: list[str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.toml").write_text("lr = 0.5\nseed = 3\n")
    monkeypatch.setenv("KDCOMPRESS_SEED", "4")
    where = ("--data", pictures, "--out", tmp_path / "out", "--checkpoint-every", "1e-9")
    ran = run("distill", *teacher, *small, *where, "--config", tmp_path / "run.toml", "--verbose")
    assert ran.code == 0, ran.stderr
    told = ran.stderr.splitlines()
    assert "  --epochs 2: typed" in told
    assert f"  --lr 0.5: {tmp_path / 'run.toml'}" in told
    assert "  --seed 4: KDCOMPRESS_SEED in the environment" in told
    assert not any("--batch-size 16: " in line and "typed" not in line for line in told)
    assert any(line.startswith("data: quadrants: 72 training images, 8 held-out images") for line in told)
    assert any(line.startswith("teacher: ") and "sha256" in line for line in told)
    assert any(line.startswith("checkpoint after step 1: ") for line in told)
    assert "checkpoint" not in run(*("distill", *teacher, *small, *where), "--overwrite").stderr


def test_verbose_shows_where_an_error_was_raised_before_its_line(run: Any) -> None:
    words = ("evaluate", "m.pt", "--data", "digits", "--eps", "8")
    assert "Traceback" not in run(*words).stderr
    ran = run(*words, "-v")
    assert ran.code == 2
    assert "Traceback" in ran.stderr and ran.stderr.splitlines()[-1].startswith("error: --eps must be in (0, 1]")


def test_quiet_and_verbose_together_are_refused(run: Any) -> None:
    ran = run("demo", "--quiet", "--verbose")
    assert ran.code == 2 and "--quiet and --verbose" in ran.stderr.splitlines()[-1]


def test_init_prints_json_where_it_is_asked_for(run: Any, tmp_path: Path) -> None:
    asset = ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors"
    ran = run("init", "--teacher", asset, "--data", "digits", "--out", tmp_path / "run.toml", "--format", "json")
    found = json.loads(ran.stdout)
    assert found["file"] == str(tmp_path / "run.toml")
    assert found["open_lines"] == (tmp_path / "run.toml").read_text().count("# FILL IN")
    assert found["then"][0] == f"kdcompress distill --config {tmp_path / 'run.toml'}"


def test_every_command_prints_json_where_it_is_asked_for() -> None:
    for name, command in PROGRAM.commands.items():
        there = {option for parameter in command.params for option in parameter.opts}
        assert ("--json" if name == "export" else "--format") in there, name


def test_a_flag_shows_no_value_to_give(run: Any) -> None:
    shown = run("distill", "--help").stdout
    line = next(line for line in shown.splitlines() if "--resume" in line)
    assert not re.search(r"<\w+>", line), line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inspect", "MODEL", "--report", "MODEL"), "--report MODEL would take the place of FILE"),
        (("init", "--teacher", "MODEL", "--data", "digits", "--overwrite", "--out", "MODEL"), "of --teacher"),
        (
            ("plan", "--teacher-arch", "resnet18", "--student", "resnet18", "--report", "FOLDER"),
            "got the folder FOLDER",
        ),
    ],
)
def test_small_commands_write_over_nothing_that_they_read(
    run: Any, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes((ROOT / "kdcompress" / "assets" / "digits_teacher.safetensors").read_bytes())
    before = model.read_bytes()
    places = {"MODEL": str(model), "FOLDER": str(tmp_path)}
    ran = run(*(places.get(word, word) for word in words))
    for word, place in places.items():
        said = said.replace(word, place)
    assert ran.code == 2 and said in ran.stderr, ran.stderr
    assert model.read_bytes() == before and list(tmp_path.iterdir()) == [model]


def test_a_mistake_in_the_options_themselves_has_no_traceback(run: Any) -> None:
    assert "Traceback" not in run("demo", "--quiet", "--verbose").stderr


def test_a_value_that_was_not_typed_is_refused_with_where_it_stands(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.toml").write_text('epochs = "many"\n')
    words = ("distill", "--teacher", "t", "--student", "s", "--data", "d", "--eps", "0.1", "--out", "o")
    ran = run(*words, "--config", tmp_path / "run.toml")
    assert ran.code == 2 and f"got many (from {tmp_path / 'run.toml'})" in ran.stderr
    monkeypatch.setenv("KDCOMPRESS_EPOCHS", "few")
    assert "got few (from KDCOMPRESS_EPOCHS in the environment)" in run(*words).stderr
