"""Files spoiled in any way are read or refused in one line; the long run is `python -m tests.fuzz.run`."""

import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcompress.errors import KdcompressError
from tests.fuzz.mutations import mutated
from tests.fuzz.seeds import nested
from tests.fuzz.targets import Target, targets

Targets = dict[str, tuple[bytes, Target]]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Targets:
    return targets(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "file"


def refusal(reader: Target, path: Path) -> str | None:
    """What it says, None where it reads the file; any other error comes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader(path)
        except KdcompressError as error:
            return str(error)
    return None


def test_sound_files_are_read_and_those_that_would_run_code_are_refused(readers: Targets, hostile: Path) -> None:
    for name, (content, reader) in readers.items():
        hostile.write_bytes(content)
        said = refusal(reader, hostile)
        assert (said is None) == (not name.startswith("harm")), (name, said)
    assert not Path("/tmp/kdcompress-was-run").exists()


@settings(max_examples=1000)
@given(number=st.integers(0, 2**32))
def test_spoiled_files_are_read_or_refused_in_one_line(number: int, readers: Targets, hostile: Path) -> None:
    draw = random.Random(number)
    name = draw.choice(sorted(readers))
    content, reader = readers[name]
    hostile.write_bytes(mutated(content, tuple(other for other, _ in readers.values()), draw))
    said = refusal(reader, hostile)
    assert said is None or (said and "\n" not in said)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_json_nested_deeper_than_any_stack_is_refused(readers: Targets, hostile: Path, depth: int) -> None:
    for name in ("report", "own"):
        hostile.write_bytes(nested(depth) if name == "report" else b"\x00" * 8 + nested(depth))
        assert refusal(readers[name][1], hostile)


PLANTED = """
import os, pickle, sys, tempfile, time
from pathlib import Path
from tests.fuzz import run
from tests.fuzz.seeds import Harm

run.SECONDS = 1
scratch = Path(tempfile.mkdtemp())
run.limit()
watch = run.Watch(scratch)
harm = pickle.dumps(Harm())
bad = {
    "runs": lambda: pickle.loads(harm),
    "swallowed": lambda: swallowed(lambda: os.system("true")),
    "hangs": lambda: time.sleep(5),
    "takes memory": lambda: bytearray(3 * 10**9),
    "writes elsewhere": lambda: open("/tmp/kdcompress-elsewhere", "w"),
    "connects": lambda: __import__("socket").create_connection(("127.0.0.1", 9)),
}
def swallowed(work):
    try:
        work()
    except BaseException:
        pass
for name, work in bad.items():
    try:
        watch.on(work)
    except (run.Broken, MemoryError):
        continue
    sys.exit(name)
watch.on(lambda: (scratch / "own").write_text("fine"))
"""


def test_the_long_run_notices_what_it_is_there_to_notice() -> None:
    ran = subprocess.run([sys.executable, "-c", PLANTED], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
