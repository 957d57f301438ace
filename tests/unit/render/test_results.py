"""A result printed from Python, and progress in a notebook."""

import sys
import types
from typing import Any

import pytest
from rich.console import Console

from kdcompress import show, show_progress
from kdcompress.render import progress
from tests.sample_report import report


def test_a_report_is_printed_as_evaluate_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    show(report())
    shown = capsys.readouterr().out
    assert "clean accuracy" in shown and "robust accuracy" in shown


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected one of Report, .*, got str"):
        show("report")  # type: ignore[arg-type]


def test_progress_in_a_program_is_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as listener:
        listener.note("said")
        listener.count("images", 1, 2)
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", ["said", "images"])


@pytest.mark.parametrize("widgets", [True, False])
def test_progress_in_a_notebook_is_a_bar_where_there_are_widgets(
    widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    class Output:
        """The widget that rich writes a bar into."""

        def __enter__(self) -> None:
            shown.append("in the widget")

        def __exit__(self, *_: object) -> None: ...

        def clear_output(self, wait: bool) -> None: ...

        def close(self) -> None: ...

    display = types.SimpleNamespace(display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", types.SimpleNamespace(Output=Output, __spec__=object()))
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets and name == "ipywidgets" else None)
    with progress.listening(Console(force_jupyter=True)) as listener:
        listener.count("images", 1, 2)
    assert ("in the widget" in shown) == widgets
    assert shown  # either way something was displayed
