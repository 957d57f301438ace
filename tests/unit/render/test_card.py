"""A model card: metadata that a YAML reader understands, and no figure there that is not to be trusted."""

import re
from typing import Any

import pytest

from kdcompress.render.card import model_card
from kdcompress.report import Masking, MaskingCheck
from tests.fuzz.seeds import report

yaml = pytest.importorskip("yaml")


def metadata(card: str) -> Any:
    found = re.match(r"---\n(.+?)\n---\n", card, re.DOTALL)
    assert found
    return yaml.safe_load(found[1])


def test_the_metadata_hold_the_reports_figures() -> None:
    made = report()
    found = metadata(model_card(made))
    assert found["library_name"] == "kdcompress" and "adversarial-robustness" in found["tags"]
    (result,) = found["model-index"][0]["results"]
    model = made.models["student"]
    assert result["dataset"]["name"] == made.data.name and model.robust_accuracy is not None
    assert [metric["value"] for metric in result["metrics"]] == [
        model.clean_accuracy.value,
        model.robust_accuracy.value,
    ]
    assert model.robust_accuracy.attack in result["metrics"][1]["name"]


@pytest.mark.parametrize("name", ["yes", "a: b", '"', "1e3", "- x\n---\nlicense: mit", "é"])
def test_a_name_is_text_whatever_it_is(name: str) -> None:
    made = report()
    student = made.models["student"].model_copy(update={"arch": name})
    made = made.model_copy(update={"data": made.data.model_copy(update={"name": name}), "models": {"student": student}})
    found = metadata(model_card(made))
    assert found["model-index"][0]["name"] == name and "license" not in found
    assert found["model-index"][0]["results"][0]["dataset"]["type"] == name


def test_a_masked_networks_robust_accuracy_is_left_out_of_the_metadata() -> None:
    made = report()
    check = MaskingCheck.model_construct(name="x", flagged=True, finding="gradients vanish")
    masking = Masking.model_construct(checks=(check,), n=1, seconds=0.0)
    student = made.models["student"].model_copy(update={"masking": masking})
    card = model_card(made.model_copy(update={"models": {"student": student}}))
    assert len(metadata(card)["model-index"][0]["results"][0]["metrics"]) == 1


def test_the_text_has_the_figures_and_their_limits() -> None:
    card = model_card(report())
    assert "upper bound on true robustness" in card and report().models["student"].sha256 in card
    assert "load_model" in card and "No gates were set" not in card


def test_the_file_that_was_judged_is_the_one_to_load() -> None:
    card = model_card(report(settings={"student": {"path": "/home/me/run/last.safetensors"}, "teacher": None}))
    assert 'load_model(Path("last.safetensors"))' in card and "/home/me" not in card.partition("## What was")[0]


def test_a_strangers_file_is_loaded_with_what_was_said_of_it() -> None:
    asked = {"path": "/m/robust.pt", "arch": "/home/me/nets.py:net", "args": {"depth": 3}, "mean": "none", "std": None}
    card = model_card(report(settings={"student": asked, "teacher": None}))
    assert "load_model(Path(\"robust.pt\"), arch='nets.py:net', args={'depth': 3}, mean='none').model" in card


def test_a_network_that_came_from_no_file_has_none_to_load() -> None:
    card = model_card(report(settings={"student": {"path": "in memory/Sequential"}, "teacher": None}))
    assert "load_model" not in card and "## What was measured" in card
