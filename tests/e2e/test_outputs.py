"""Where results go: names of every kind, streams; what is said of a file that cannot be written; never over inputs."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import kdcompress
from tests.e2e.test_bad_input import one_line
from tests.reports import network, report

VERDICTS = "...00x"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.json"
    path.write_text(report(network(VERDICTS)).model_dump_json())
    return path


def process(command: str, base: Path) -> subprocess.CompletedProcess[str]:
    """A comparison as a user's shell runs it; `command` follows the reports."""
    line = f'set -o pipefail; exec 3>&1; "{sys.executable}" -m kdcompress compare "{base}" "{base}" {command}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("length", [256, 300])
def test_a_name_that_no_file_can_have_is_refused_at_once(run: Any, base: Path, tmp_path: Path, length: int) -> None:
    ran = run("compare", base, base, "--report", tmp_path / ("n" * length))
    one_line(ran, "--report", "cannot be written (File name too long)", "name another")


def test_the_longest_name_that_a_file_can_have_is_taken(run: Any, base: Path, tmp_path: Path) -> None:
    place = tmp_path / f"{'n' * 250}.json"
    ran = run("compare", base, base, "--report", place)
    assert ran.code == 0, ran.stderr
    assert json.loads(place.read_text())["columns"]
    assert sorted(tmp_path.iterdir()) == sorted([base, place])


def test_a_link_that_leads_to_itself_or_nowhere_is_refused_at_once(run: Any, base: Path, tmp_path: Path) -> None:
    place = tmp_path / "round.json"
    place.symlink_to(place)
    one_line(run("compare", base, base, "--report", place), "--report", "round.json", "cannot be written")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "nowhere" / "r.json")
    one_line(run("compare", base, base, "--report", tmp_path / "dangling.json"), "nowhere", "must exist")


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/stderr", "/dev/fd/3"])
def test_a_stream_that_is_a_pipe_is_written_to(base: Path, path: str) -> None:
    ran = process(f"--report {path} --format json | cat", base)
    assert ran.returncode == 0 and "cannot" not in ran.stderr, ran.stderr
    reports = (ran.stdout + ran.stderr).count('"schema_version"')
    assert reports == 2  # the file's and stdout's own


def test_the_file_that_stdout_goes_to_is_no_place_for_a_report(base: Path, tmp_path: Path) -> None:
    place = tmp_path / "out.txt"
    ran = process(f'--report /dev/stdout > "{place}"', base)
    assert ran.returncode == 2 and "--report /dev/stdout is where the output goes; name another file" in ran.stderr
    assert place.read_text() == ""


def test_only_what_could_not_be_written_is_said_to_be_missing(
    run: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdcompress.cli import output

    written = output.write_whole

    def nearly_full(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(28, "No space left on device")
        written(path, content)

    monkeypatch.setattr(output, "write_whole", nearly_full)
    files = {tmp_path / "a.json": b"{}", tmp_path / "b.html": b"page", tmp_path / "c.xml": b"gates"}
    with pytest.raises(output.UsageError) as caught:
        output.deliver("{}", "table", output.Format.json, files)
    assert str(caught.value) == (
        f"{tmp_path}/a.json cannot be written (No space left on device); the result stands on stdout, "
        f"in {tmp_path}/b.html and in {tmp_path}/c.xml"
    )
    assert (tmp_path / "b.html").read_bytes() == b"page" and not (tmp_path / "a.json").exists()


@pytest.fixture
def inputs(student: Path, weights: Path, factory: Path, pictures: Path, tmp_path: Path) -> Path:
    """A folder with a copy of everything that an evaluation reads."""
    folder = tmp_path / "inputs"
    shutil.copytree(student, folder / "run")
    shutil.copy(weights, folder / "robust.pt")
    shutil.copy(factory, folder / "nets.py")
    shutil.copytree(pictures, folder / "images")
    with tarfile.open(folder / "images.tar", "w") as tar:
        tar.add(folder / "images", "images")
    (folder / "soft.json").symlink_to(folder / "run" / "student.safetensors")
    (folder / "hard.json").hardlink_to(folder / "run" / "student.safetensors")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("option", ["--report", "--html", "--markdown", "--junit", "--table"])
@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("run/student.safetensors", "MODEL"),
        ("run/../run/student.safetensors", "MODEL"),
        ("soft.json", "MODEL"),
        ("hard.json", "MODEL"),
        ("run/student.json", "the record of MODEL"),
        ("run/metrics.jsonl", "the metrics of MODEL"),
        ("robust.pt", "--teacher"),
        ("nets.py", "--teacher-arch"),
        ("run/surrogate.safetensors", "--surrogate"),
        ("images/test/east/00.png", "images of --data"),
        ("run/last.safetensors", "last.safetensors of the run in"),
        ("run/run.toml", "run.toml of the run in"),
        ("others.safetensors", "a file that is no text, such as weights"),
    ],
)
def test_no_result_of_an_evaluation_replaces_what_it_is_made_from(
    run: Any, inputs: Path, option: str, place: str, what: str
) -> None:
    for copy in ("run/surrogate.safetensors", "others.safetensors"):
        shutil.copy(inputs / "run" / "student.safetensors", inputs / copy)
    before = contents(inputs)
    ran = run(
        *("evaluate", inputs / "run" / "student.safetensors", "--data", inputs / "images", "--eps", "4/255"),
        *("--teacher", inputs / "robust.pt", "--teacher-arch", f"{inputs}/nets.py:linear", "--teacher-mean", "none"),
        *("--surrogate", inputs / "run" / "surrogate.safetensors", option, inputs / place),
        *("--attack", "none", "--certify-images", 0, "--device", "cpu"),  # moments, if it is not refused
    )
    one_line(ran, option, place, f"would take the place of {what}", "name another file")
    assert contents(inputs) == before


def test_no_report_replaces_an_archive_of_images(run: Any, inputs: Path) -> None:
    before = contents(inputs)
    model, data = inputs / "run" / "student.safetensors", inputs / "images.tar"
    words = ("--eps", "4/255", "--attack", "none", "--certify-images", 0, "--device", "cpu")
    one_line(run("evaluate", model, "--data", data, *words, "--report", data), "take the place of images of --data;")
    assert contents(inputs) == before


def test_what_data_is_called_is_no_file_where_there_is_none(run: Any, inputs: Path, monkeypatch: Any) -> None:
    """`digits` is built in; a report of that name replaces nothing."""
    monkeypatch.chdir(inputs)
    words = ("--eps", "4/255", "--attack", "none", "--certify-images", 0, "--device", "cpu", "--report", "digits")
    asset = Path(kdcompress.__file__).parent / "assets" / "digits_teacher.safetensors"
    ran = run("evaluate", "--teacher", asset, "--data", "digits", "--images", 8, *words)
    assert ran.code == 0, ran.stderr
    assert json.loads((inputs / "digits").read_text())["data"]["name"] == "digits"


def test_a_report_may_lie_among_the_images_and_be_written_again(run: Any, inputs: Path) -> None:
    place = inputs / "images" / "report.json"
    words = ("evaluate", inputs / "run" / "student.safetensors", "--data", inputs / "images", "--eps", "4/255")
    for _ in range(2):
        ran = run(*words, "--attack", "none", "--certify-images", 0, "--device", "cpu", "--report", place)
        assert ran.code == 0, ran.stderr
    assert json.loads(place.read_text())["models"]


@pytest.mark.parametrize("option", ["--report", "--markdown", "--junit"])
@pytest.mark.parametrize("place", ["base.json", "other.json", "link.json"])
def test_no_comparison_replaces_a_report_that_it_compares(
    run: Any, base: Path, tmp_path: Path, option: str, place: str
) -> None:
    (tmp_path / "other.json").write_bytes(base.read_bytes())
    (tmp_path / "link.json").symlink_to(base)
    before = contents(tmp_path)
    ran = run("compare", base, tmp_path / "other.json", option, tmp_path / place)
    one_line(ran, f"{option} {tmp_path / place} would take the place of the report", "name another file")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", ["robust.pt", "nets.py", "images/train/west/00.png"])
def test_no_bench_replaces_what_it_times(run: Any, inputs: Path, small: list[str], place: str) -> None:
    before = contents(inputs)
    ran = run(
        *("bench", "--teacher", inputs / "robust.pt", "--teacher-arch", f"{inputs}/nets.py:linear"),
        *("--teacher-mean", "none", *small, "--data", inputs / "images", "--report", inputs / place),
        *("--repeats", 1, "--no-compiled"),
    )
    one_line(ran, "--report", "would take the place of")
    assert contents(inputs) == before


def test_the_demos_results_go_into_files_of_their_own(run: Any, tmp_path: Path) -> None:
    ran = run("demo", "--report", tmp_path / "a.png", "--picture", tmp_path / "a.png")
    one_line(ran, "--report and --picture must be different files")


@pytest.mark.parametrize(("option", "name"), [("--teacher", "student.safetensors"), ("--student-weights", "link")])
def test_no_run_replaces_the_run_that_it_is_made_from(
    run: Any, inputs: Path, teacher: list[str], small: list[str], option: str, name: str
) -> None:
    out = inputs / "run"
    (inputs / "link").symlink_to(out / "student.safetensors")
    path = out / name if option == "--teacher" else inputs / name
    before = contents(inputs)
    named = ["--teacher", path] if option == "--teacher" else [*teacher, option, path]
    ran = run("distill", *named, *small, "--data", inputs / "images", "--out", out, "--overwrite")
    one_line(ran, f"{option} {path} must lie outside --out {out}", "would replace", "name another folder")
    assert contents(inputs) == before


def test_inspect_says_what_a_file_is_and_what_to_type(run: Any, student: Path, weights: Path) -> None:
    ran = run("inspect", student / "student.safetensors")
    assert ran.code == 0 and "written by kdcompress" in ran.stdout and "missing" not in ran.stdout
    ran = run("inspect", weights)
    assert ran.code == 0 and "missing: --teacher-arch" in ran.stdout
    assert ran.stdout.rstrip().endswith("--out student/") and "kdcompress distill --teacher" in ran.stdout
    found = json.loads(run("inspect", weights, "--format", "json").stdout)
    assert found["arch"] is None and found["classes"] == 4


def test_quiet_leaves_the_result_alone(run: Any, student: Path, pictures: Path) -> None:
    words = ["evaluate", student / "student.safetensors", "--data", pictures, "--eps", "4/255", "--attack", "pgd-2"]
    words += ["--certify-images", "0", "--device", "cpu", "--no-masking-checks"]
    loud, quiet = run(*words), run(*words, "--quiet")
    assert loud.code == quiet.code == 0 and loud.stderr != "" and quiet.stderr == ""
    assert "accuracy" in quiet.stdout
    refused = run(*words, "-q", "--eps", "9")
    assert refused.code == 2 and refused.stderr.startswith("error: ")


def test_a_report_called_as_a_runs_record_can_be_written_again(run: Any, tmp_path: Path, student: Path) -> None:
    """Where no run lies: a record alone is none."""
    lone = tmp_path / "lone.safetensors"
    shutil.copy(student / "student.safetensors", lone)
    for _ in range(2):
        ran = run("inspect", lone, "--report", tmp_path / "student.json")
        assert ran.code == 0, ran.stderr


def test_the_file_of_options_is_not_replaced(run: Any, tmp_path: Path, student: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('format = "json"\n')
    ran = run("inspect", student / "student.safetensors", "--config", config, "--report", config)
    one_line(ran, "would take the place of --config")
    assert config.read_text() == 'format = "json"\n'


def test_a_dash_is_no_file(run: Any, student: Path) -> None:
    one_line(run("inspect", student / "student.safetensors", "--report", "-"), "--report must be a file, got -")
