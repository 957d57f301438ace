"""What the documents tell people to type is understood; the Python they show runs."""

import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer

from kdcompress.__main__ import app

ROOT = Path(__file__).parents[2]
PROGRAM: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = PROGRAM.commands
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "examples/digits/README.md",
    "examples/cifar10/README.md",
    "examples/benchmarks/README.md",
    "docs/commands.md",
)


def commands(document: str) -> list[list[str]]:
    """Every kdcompress command of an indented block, with its continuation lines."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    found = re.findall(r"^    (?:.*&& )?kdcompress (.+)$", text, re.MULTILINE)
    return [shlex.split(line.split("#")[0]) for line in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_is_understood(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "student").mkdir()
    (toml,) = re.findall(r"```toml\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "student" / "run.toml").write_text(toml)
    found = commands(document)
    monkeypatch.chdir(tmp_path)
    program = PROGRAM.make_context("kdcompress", ["demo"])
    for name, *words in found:
        # Raises on an unknown option or a value of the wrong kind.
        COMMANDS[name].make_context(name, words, parent=program)


def test_the_readme_shows_every_command() -> None:
    assert {words[0] for words in commands("README.md")} >= set(COMMANDS)


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text()):
            assert target.startswith("https://") or (folder / target).exists(), f"{document}: {target}"


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    brief, replaced = re.subn(r"epochs=\d+", "epochs=1", block)
    assert replaced == 1
    monkeypatch.chdir(tmp_path)
    shutil.copy(str(files("kdcompress") / "assets" / "digits_teacher.safetensors"), "teacher.safetensors")
    space: dict[str, Any] = {}
    exec(compile(brief, "README.md", "exec"), space)
    assert space["model"] is not None
    assert sorted(path.name for path in Path("student").iterdir()) == [
        "last.safetensors",
        "metrics.jsonl",
        "run.toml",
        "student.json",
        "student.safetensors",
    ]
