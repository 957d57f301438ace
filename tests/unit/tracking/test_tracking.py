"""What `--log-to` asks for."""

from pathlib import Path

import pytest

from kdcompress import tracking
from kdcompress.errors import UsageError
from kdcompress.tracking import asked_for


def test_each_tracker_has_a_place_or_none() -> None:
    asked = asked_for(["tensorboard:/logs:1", "wandb", "mlflow:robust students"])
    assert asked == {"tensorboard": "/logs:1", "wandb": None, "mlflow": "robust students"}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["tensorbord"], r"mlflow\[:EXPERIMENT\], got tensorbord; did you mean tensorboard\?"),
        (["WandB:p"], r"got WandB:p; did you mean wandb\?"),
        ([""], "got nothing$"),
        (["mlflow:"], "--log-to mlflow: names no experiment; name it, or leave the colon out"),
        (["wandb:a", "mlflow", "wandb:b"], "--log-to wandb is given twice"),
    ],
)
def test_what_names_no_tracker_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked_for(texts)


@pytest.mark.parametrize("name", tracking.PLACES)
def test_a_package_that_is_missing_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    with pytest.raises(UsageError, match=rf"^--log-to {name} needs {name}: pip install 'kdcompress\[{name}\]'$"):
        asked_for([name])


def test_a_folder_that_a_tracker_left_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "wandb", raising=False)
    with pytest.raises(UsageError, match="needs wandb"):
        asked_for(["wandb"])
