"""Reports from files that anybody may have written: read whole, or refused in a line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdcompress import reading
from kdcompress.errors import ReportError
from kdcompress.reading import read_report
from tests.reports import network, report

GOOD = report(network("..0x"), network("...."))


def changed(path: str, value: object) -> bytes:
    """The good report's JSON with the value at `path` replaced."""
    found = json.loads(GOOD.model_dump_json())
    *outer, last = path.split(".")
    inner: Any = found
    for step in outer:
        inner = inner[step]
    inner[last] = value
    return json.dumps(found).encode()


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(GOOD.model_dump_json(indent=2))
    assert read_report(path) == GOOD


WHOLE = GOOD.model_dump_json().encode()
DEEP = b'{"schema_version": "1.1", "models": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected the JSON of kdcompress evaluate --report"),
        (b"<!DOCTYPE html><html></html>", "expected the JSON"),
        (b"\x80\x04\x95\x00\xff\x00binary", "expected the JSON"),
        (WHOLE[: len(WHOLE) // 2], "expected the JSON"),
        (WHOLE[:-1], "expected the JSON"),
        (WHOLE + WHOLE, "expected the JSON"),
        (WHOLE.replace(b"1.5", b"NaN"), "expected the JSON"),
        (DEEP, "expected the JSON"),
        (
            changed("settings", {}).replace(b'"settings": {}', b'"settings": ' + b'{"a":' * 9999 + b"1" + b"}" * 9999),
            "JSON",
        ),
        (b"[1, 2]", "found other JSON"),
        (b"3", "found other JSON"),
        (b"null", "found other JSON"),
        (b"{}", "found other JSON"),
        (b'{"schema_version": "1.0"}', "found other JSON"),
        (changed("schema_version", "1.0"), "of schema_version 1.1, found 1.0; evaluate again"),
        (changed("schema_version", ["x" * 999]), "of schema_version 1.1, found"),
        (changed("models", {}), "found at models: none"),
        (changed("models", [1]), "found at models"),
        (changed("models.student.params", "many"), "found at models.student.params"),
        (changed("models.student.params", 10**400), "found at models.student.params"),
        (changed("models.student.params", -1), "found at models.student.params: a size that no network has"),
        (changed("models.student.clean_accuracy.value", 1.5), "models.student.clean_accuracy: 1.5"),
        (changed("models.student.clean_accuracy.n", 0), "models.student.clean_accuracy"),
        (changed("models.student.clean_accuracy.n", 10**300), "models.student.clean_accuracy"),
        (changed("models.student.clean_accuracy.n", 10**400), "models.student.clean_accuracy"),
        (changed("models.teacher.robust_accuracy.low", -0.5), "models.teacher.robust_accuracy"),
        (changed("models.student.verdicts", "....."), "models.student.verdicts: 5 of 4 images"),
        (changed("threat_model.eps", 0), "found at threat_model"),
        (changed("surprise", 1), "found at surprise"),
        (json.dumps({"schema_version": "1.1", "models": {}}).encode(), "expected a whole report, found at"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ReportError) as caught:
        read_report(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and said in message and "\n" not in message
    assert len(message) < 400 + len(str(path))


def unreadable(path: Path) -> None:
    path.write_bytes(WHOLE)
    path.chmod(0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "found nothing there"),
        (lambda path: path.mkdir(), "found a folder"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        pytest.param(
            unreadable, "cannot be read", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
        ),
    ],
)
def test_what_cannot_be_opened_is_refused(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "report.json"
    make(path)
    with pytest.raises(ReportError, match=said):
        read_report(path)


def test_a_path_that_cannot_be_is_refused() -> None:
    with pytest.raises(ReportError, match="cannot be read"):
        read_report(Path("a\0b"))


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", len(WHOLE))
    path = tmp_path / "report.json"
    path.write_bytes(WHOLE)
    assert read_report(path) == GOOD
    path.write_bytes(WHOLE + b" ")
    with pytest.raises(ReportError, match="a larger file"):
        read_report(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(ReportError, match="at most 64 MB"):
        read_report(Path("/dev/zero"))
