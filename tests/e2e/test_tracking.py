"""`--log-to`: the real packages, without a network; what they were told is read back, and is what the files hold."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from kdcompress.progress import Listener, Step
from kdcompress.tracking.tensorboard import TensorBoard
from tests.e2e.torchrun import ended, started

TRACKERS = ("tensorboard", "wandb", "mlflow")
Rows = dict[int, dict[str, float]]

pytestmark = [
    # MLflow's tables, at SQLAlchemy 2.1: nothing that a user sees, and nothing of ours.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without accounts, in a folder of their own; and no news to the trackers' makers."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "NETRC": str(tmp_path / "home" / "netrc"),
        "WANDB_MODE": "offline",
        "WANDB_CONFIG_DIR": str(tmp_path / "home"),
        "WANDB_CACHE_DIR": str(tmp_path / "home"),
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Names that a run sets where they are not set: given, so that this process stays as it was.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    wandb.teardown()  # it reads the environment once


@pytest.fixture(scope="session")
def training(pictures: Path) -> list[str]:
    """The options of a run of three epochs, into `out`."""
    return [
        *("train", "--model", "resnet18", "--model-arg", "layers=1,1,1,1", "--model-arg", "channels=4,4,8,8"),
        *("--data", str(pictures), "--eps", "4/255", "--attack-steps", "1", "--epochs", "3", "--batch-size", "16"),
        *("--device", "cpu", "--checkpoint-every", "0.000001", "--out", "out"),
    ]


def flat(found: dict[str, Any], between: str) -> dict[str, Any]:
    """Another way than the package's: leaves first."""
    rows: dict[str, Any] = {}
    waiting: list[tuple[list[str], Any]] = [([], found)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [([*path, key], inner) for key, inner in value.items()]
        elif not isinstance(value, dict):
            rows[between.join(path)] = value
    return rows


def numbers(found: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in flat(found, "/").items() if type(value) in (int, float)}


def expected(out: Path) -> Rows:
    """The figures of metrics.jsonl, by step; and beside the last epoch's, those that the record ends with."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rows = {line["step"]: numbers(line) for line in lines}
    record = json.loads((out / "student.json").read_text())
    rows[record["cost"]["steps"]] |= numbers(
        {part: record[part] for part in ("selected", "last", "compression", "cost")}
    )
    return rows


def from_tensorboard(folder: str = "tensorboard/out") -> tuple[Rows, dict[str, str]]:
    events = EventAccumulator(folder, size_guidance={"scalars": 0, "tensors": 0}).Reload()
    rows: Rows = {}
    for name in events.Tags()["scalars"]:
        for point in events.Scalars(name):
            assert name not in rows.setdefault(point.step, {}), f"{name} twice at {point.step}"
            rows[point.step][name] = point.value
    (*_, text) = events.Tensors("settings/text_summary")
    table = text.tensor_proto.string_val[0].decode().splitlines()[2:]
    return rows, dict(line.strip("| ").replace("`", "").split(" | ") for line in table)


def from_mlflow() -> tuple[Rows, dict[str, str]]:
    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")  # a relative one is remembered
    experiment = client.get_experiment_by_name("kdcompress")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "out")
    rows: Rows = {}
    for name in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, name):
            assert name not in rows.setdefault(point.step, {}), f"{name} twice at {point.step}"
            rows[point.step][name] = point.value
    return rows, run.data.params


def from_wandb() -> tuple[Rows, dict[str, str]]:
    rows: Rows = {}
    settings: dict[str, Any] = {}
    summary: dict[str, float] = {}
    wandb.teardown()  # waits for its service, which may be writing still
    for file in sorted(Path("wandb").glob("offline-run-*/run-*.wandb")):
        for record in wandb_records(file.read_bytes()):
            if record.HasField("run"):
                settings |= {of.key: json.loads(of.value_json) for of in record.run.config.update}
                assert (record.run.project, record.run.display_name) == ("kdcompress", "out")
            if record.HasField("history"):
                rows[record.history.step.num] = named(record.history.item)
            if record.HasField("summary"):
                summary |= named(record.summary.update)
    rows[max(rows)] |= summary
    return rows, {name: str(value) for name, value in settings.items() if name != "_wandb"}


def named(items: Any) -> dict[str, float]:
    found = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
    return {name: value for name, value in found.items() if not name.startswith("_")}  # the others are wandb's own


def wandb_records(content: bytes) -> Iterator[Any]:
    """LevelDB's log format, with seven bytes before it: pieces in blocks of 32 KiB, of whole, first, inner or last."""
    at, record = 7, b""
    while at < len(content):
        if 32768 - at % 32768 < 7:  # no room for a piece's head
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


READERS: dict[str, Callable[[], tuple[Rows, dict[str, str]]]] = {
    "tensorboard": from_tensorboard,
    "wandb": from_wandb,
    "mlflow": from_mlflow,
}


def as_kept(rows: Rows, tracker: str) -> Rows:
    """TensorBoard's scalars are float32."""
    if tracker != "tensorboard":
        return rows
    single = struct.Struct("f")
    return {
        step: {name: single.unpack(single.pack(value))[0] for name, value in row.items()} for step, row in rows.items()
    }


@pytest.fixture(scope="module")
def untracked(run: Any, training: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the run without any tracker."""
    ran = run(*training[:-1], tmp_path_factory.mktemp("plain") / "out", "--format", "json")
    assert ran.code == 0, ran.stderr
    record: dict[str, Any] = json.loads(ran.stdout)
    return record


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_holds_the_settings_and_every_figure_of_metrics_jsonl_and_changes_none(
    run: Any, training: list[str], untracked: dict[str, Any], tracker: str
) -> None:
    ran = run(*training, "--log-to", tracker, "--format", "json")
    assert ran.code == 0, ran.stderr
    record = json.loads(ran.stdout)  # so nothing but the record is on stdout
    assert f"figures go to {tracker}: " in ran.stderr and "failed" not in ran.stderr
    assert (record["sha256"], record["last"]["sha256"]) == (untracked["sha256"], untracked["last"]["sha256"])

    rows, settings = READERS[tracker]()
    there = as_kept(expected(Path("out")), tracker)
    assert len(there) == 3 and {"loss", "terms/ce", "weights/ce", "lr", "seconds"} <= there[min(there)].keys()
    assert {"validation/robust_accuracy", "selected/robust_accuracy", "cost/seconds"} <= there[max(there)].keys()
    assert rows == there
    made = {"settings": record["settings"], "versions": record["versions"]}
    assert settings == {name: str(value) for name, value in flat(made, ".").items()}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_run_that_goes_on_goes_on_in_the_same_place_and_says_nothing_twice(
    run: Any, training: list[str], tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for last in (5, 11):  # from a checkpoint of before the first epoch was closed, and of amidst the third
            patch.setattr("kdcompress.render.progress.listening", interrupted_at(last))
            assert run(*training, "--resume", "--log-to", tracker).code == 130
    ran = run(*training, "--resume", "--log-to", tracker)
    assert ran.code == 0 and "goes on after step 10" in ran.stderr, ran.stderr
    rows, _ = READERS[tracker]()
    if tracker == "wandb":  # offline, each start has a file, which wandb sync makes one run of
        assert len({file.name for file in Path("wandb").glob("offline-run-*/run-*.wandb")}) == 1
    there = as_kept(expected(Path("out")), tracker)
    for row in (rows[4], there[4]):
        row.pop("seconds")  # that epoch was closed twice
    assert rows == there


def interrupted_at(last: int) -> Callable[[object], Any]:
    """A listener that interrupts before the checkpoint of a step."""

    def step(now: Step) -> None:
        if now.step == last:
            raise KeyboardInterrupt

    @contextmanager
    def listening(console: object) -> Iterator[Listener]:
        yield Listener(step=step)

    return listening


def test_figures_are_there_while_the_run_goes_on(
    run: Any, training: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, set[int]] = {}

    @contextmanager
    def looking(console: object) -> Iterator[Listener]:
        yield Listener(step=lambda now: seen.update({now.step: set(from_tensorboard()[0])}))

    monkeypatch.setattr("kdcompress.render.progress.listening", looking)
    assert run(*training, "--log-to", "tensorboard").code == 0
    assert (seen[4], seen[5], seen[9]) == (set(), {4}, {4, 8})


def test_a_run_that_takes_another_ones_place_hides_its_figures(run: Any, training: list[str]) -> None:
    for seed in (0, 1):
        ran = run(*training, "--overwrite", "--seed", seed, "--log-to", "tensorboard:logs")
        assert ran.code == 0 and f"{Path('logs/out').resolve()}" in ran.stderr
    rows, settings = from_tensorboard("logs/out")
    assert rows == as_kept(expected(Path("out")), "tensorboard") and settings["settings.run.seed"] == "1"


def test_a_run_may_go_on_with_other_trackers_and_leaves_none_in_the_file_that_runs_it_again(
    run: Any, training: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("kdcompress.render.progress.listening", interrupted_at(6))
        assert run(*training).code == 130
    ran = run(*training, "--resume", "--log-to", "tensorboard")
    assert ran.code == 0 and "goes on after step 5" in ran.stderr
    assert set(from_tensorboard()[0]) == {step for step in expected(Path("out")) if step > 5}
    assert "log" not in Path("out/run.toml").read_text()
    assert "tensorboard" not in Path("out/student.json").read_text()
    ran = run(*training, "--resume", "--log-to", "mlflow")  # finished: there is nothing to track
    assert ran.code == 0 and "is finished" in ran.stderr and not Path("mlflow.db").exists()


@pytest.mark.parametrize("method", ["epoch", "ended", "closed"])
def test_a_tracker_that_fails_is_noted_once_and_costs_the_run_nothing(
    run: Any, training: list[str], untracked: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("the service at https://me:secret@host/\n is gone")

    monkeypatch.setattr(TensorBoard, method, broken)
    ran = run(*training, "--log-to", "tensorboard", "--format", "json")
    assert ran.code == 0 and json.loads(ran.stdout)["sha256"] == untracked["sha256"]
    said = [line for line in ran.stderr.splitlines() if "--log-to tensorboard failed" in line]
    assert len(said) == 1 and "the service at https://host/ is gone" in said[0]
    assert len(Path("out/metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("tracker", "variables", "said"),
    [
        ("tensorboard:file", {}, "--log-to tensorboard cannot begin: "),
        ("tensorboard:.", {}, "must lie outside --out; name another folder, as tensorboard:FOLDER"),
        ("wandb", {"WANDB_MODE": "online"}, "--log-to wandb has no API key: run wandb login"),
        (
            "wandb",
            {
                "WANDB_MODE": "online",
                "WANDB_API_KEY": "0" * 40,
                "WANDB_BASE_URL": "http://127.0.0.1:9",
                "WANDB_INIT_TIMEOUT": "2",
            },
            "--log-to wandb cannot begin: ",
        ),
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9"}, "--log-to mlflow cannot begin: "),
    ],
)
def test_a_tracker_that_cannot_begin_ends_the_run_before_it_trains(
    run: Any,
    training: list[str],
    tracker: str,
    variables: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Path("file").write_text("")
    ran = run(*training, "--log-to", tracker)
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert ran.code == 2 and len(errors) == 1 and said in errors[0], ran.stderr
    assert "epoch" not in ran.stderr.replace("error: ", "") and "secret" not in ran.stderr
    assert not Path("out").exists() and not Path("out.unfinished").exists()


def test_only_what_is_named_is_imported(training: list[str]) -> None:
    watch = (
        "import sys; from kdcompress.__main__ import app\n"
        f"code = 0\ntry: app({[*training, '--log-to', 'tensorboard']!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        "ours = {name for name in sys.modules if name.startswith('kdcompress.tracking.')}\n"
        "print('LOADED', code or 0, sorted(ours | {'mlflow'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, timeout=120, check=False)
    assert (
        ran.stderr.splitlines()[-1] == "LOADED 0 ['kdcompress.tracking.tensorboard', 'kdcompress.tracking.tracker']"
    ), ran.stderr


def test_of_several_processes_the_leader_alone_tracks(training: list[str]) -> None:
    _, stderr = ended(started(2, ["-m", "kdcompress", *training, "--log-to", "tensorboard"]))
    assert stderr.count("figures go to tensorboard") == 1
    assert len(list(Path("tensorboard/out").iterdir())) == 1
    assert from_tensorboard()[0] == as_kept(expected(Path("out")), "tensorboard")
