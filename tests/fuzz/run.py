"""Many hostile files, each read under limits: a line of refusal or a file that is read, and nothing else.

    python -m tests.fuzz.run --files 100000
    python -m tests.fuzz.run --only 4711        # one of them again, with its traceback

Counted as failures: any exception that is not ours, a signal, more than 10 seconds, more than 2 GB of memory beyond
what the libraries take, a program that is run, a connexion, a file written outside the scratch folder. The files that
fail are kept. File number n of a seed is the same on every machine with the same libraries.
"""

import argparse
import collections
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

SECONDS = 10
MEMORY = 2 * 10**9
FORBIDDEN = (
    *(
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "os.forkpty",
        "os.startfile",
        "subprocess.Popen",
        "pty.spawn",
    ),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "ctypes.dlopen", "shutil.rmtree", "webbrowser.open"),
)
KINDS_OF_CHANGE = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


class Broken(BaseException):
    """A limit was passed; no reader may catch it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--child", type=int, nargs=2, metavar=("FIRST", "END"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options)
    elif options.only is not None:
        child(options.only, options.only + 1, options)
    else:
        parent(options)


def parent(options: argparse.Namespace) -> None:
    """Children in a row, since one may die of what it reads."""
    first, died, started = 0, 0, time.monotonic()
    while first < options.files:
        before = first
        words = [sys.executable, "-m", "tests.fuzz.run", "--child", str(first), str(options.files)]
        words += ["--seed", str(options.seed), "--keep", str(options.keep)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as ran:
            assert ran.stdout is not None
            for line in ran.stdout:
                if line.startswith("at "):
                    first = int(line.split()[1]) + 1
                else:
                    print(line, end="", flush=True)
        if ran.returncode:
            if first == before:
                sys.exit("the sound files cannot be read")
            died += 1
            print(f"file {first - 1}: the process ended with {ran.returncode}", flush=True)
    failed = len(list(options.keep.glob("*"))) if options.keep.exists() else 0
    minutes = (time.monotonic() - started) / 60
    print(
        f"{options.files} files in {minutes:.0f} minutes: {failed} failures kept in {options.keep}, "
        f"{died} processes died"
    )
    sys.exit(1 if failed or died else 0)


def child(first: int, end: int, options: argparse.Namespace) -> None:
    """Reads files `first` to `end` - 1."""
    warnings.simplefilter("ignore")
    from kdcompress.errors import KdcompressError
    from tests.fuzz.mutations import mutated
    from tests.fuzz.targets import targets

    with tempfile.TemporaryDirectory() as scratch:
        found = targets(Path(scratch))
        names = sorted(found)
        contents = tuple(found[name][0] for name in names)
        path = Path(scratch) / "hostile"
        for name in names:  # so that all modules are there before anything is forbidden
            path.write_bytes(found[name][0])
            try:
                found[name][1](path)
            except KdcompressError:
                assert name.startswith("harm"), name
        limit()
        told: collections.Counter[str] = collections.Counter()
        with Watch(Path(scratch)) as watch:
            for number in range(first, end):
                print(f"at {number}", flush=True)
                draw = random.Random(f"{options.seed}/{number}")
                name = draw.choice(names)
                content = mutated(found[name][0], contents, draw)
                path.write_bytes(content)
                try:
                    watch.on(lambda read=found[name][1]: read(path))  # type: ignore[misc]
                    told["read"] += 1
                except KdcompressError as error:
                    told["refused"] += 1
                    if "\n" in str(error):
                        fail(options, number, name, content, "a refusal of more than one line")
                except (Exception, Broken) as error:
                    fail(options, number, name, content, f"{type(error).__name__}: {str(error)[:200]}")
                    if options.only is not None:
                        traceback.print_exc()
        print(
            f"to {end}: {dict(told)}, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB",
            flush=True,
        )


def fail(options: argparse.Namespace, number: int, name: str, content: bytes, what: str) -> None:
    options.keep.mkdir(parents=True, exist_ok=True)
    (options.keep / f"{options.seed}-{number} {name.replace('/', ' ')}").write_bytes(content)
    print(f"file {number} ({name}): {what}", flush=True)


def limit() -> None:
    """No more memory than now and 2 GB, so that asking for it fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


class Watch:
    """Looks at what a reader does besides reading."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.is_on, self.seen = str(scratch), False, ""
        sys.addaudithook(self._look)
        signal.signal(signal.SIGALRM, self._late)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_on = False

    def on(self, work: Any) -> None:
        """Do it; what is forbidden is an error even where the reader swallows the first one."""
        self.is_on, self.seen = True, ""
        signal.alarm(SECONDS)
        try:
            work()
        finally:
            signal.alarm(0)
            self.is_on = False
        if self.seen:
            raise Broken(self.seen)

    def _late(self, *_: object) -> None:
        raise Broken(f"more than {SECONDS} seconds")

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in FORBIDDEN or ((writes or event in KINDS_OF_CHANGE) and not self._is_ours(arguments[0])):
            self.seen = f"{event} {arguments[:2]}"
            raise Broken(self.seen)

    def _is_ours(self, path: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.scratch)


if __name__ == "__main__":
    main()
