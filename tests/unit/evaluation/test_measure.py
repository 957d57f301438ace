"""A report a model, from models in memory."""

import pytest
import torch

from kdcompress.data import Split
from kdcompress.evaluation.accuracy import Verdicts
from kdcompress.evaluation.evaluate import measure, notes
from kdcompress.models.teachers import LoadedModel
from kdcompress.progress import Listener
from kdcompress.report import ModelReport
from kdcompress.settings import EvaluationSettings
from kdcompress.threat import ThreatModel


def measured(
    loaded: LoadedModel, images: Split, listener: Listener = Listener(), **settings: object
) -> tuple[dict[str, ModelReport], dict[str, Verdicts]]:
    chosen = EvaluationSettings.of(**({"attack": "pgd-5", "n0": 5, "n": 20, "certify_images": 4} | settings))
    models = {"teacher": loaded, "student": loaded}
    threat = ThreatModel("Linf", 0.05)
    return measure(models, images, threat, chosen, (1, 3, 3), torch.device("cpu"), listener)


def test_equal_networks_get_equal_figures(loaded: LoadedModel, greys: Split) -> None:
    reports, verdicts = measured(loaded, greys)
    teacher, student = (report.model_dump(exclude={"latency_ms"}) for report in reports.values())
    assert teacher == student
    assert torch.equal(verdicts["teacher"].robust, verdicts["student"].robust)


def test_a_report_says_what_the_network_is_and_costs(loaded: LoadedModel, greys: Split) -> None:
    report = measured(loaded, greys)[0]["student"]
    assert (report.arch, report.params, report.file_bytes, report.sha256) == ("f.py:bright", 1, 5, "abc")
    assert report.latency_ms > 0
    assert report.clean_accuracy.value == 24 / 25


def test_robust_accuracy_never_exceeds_clean_accuracy(loaded: LoadedModel, greys: Split) -> None:
    report = measured(loaded, greys)[0]["student"]
    assert report.robust_accuracy is not None
    assert 0 < report.robust_accuracy.value < report.clean_accuracy.value
    assert report.robust_accuracy.n == report.clean_accuracy.n == 25


@pytest.mark.parametrize(("asked", "measured_on"), [(4, 4), (100, 25)])
def test_certificates_are_taken_on_the_first_of_the_images(
    loaded: LoadedModel, greys: Split, asked: int, measured_on: int
) -> None:
    certified = measured(loaded, greys, certify_images=asked)[0]["student"].certified
    assert certified is not None and certified.smoothing is not None
    assert certified.first_order.n == certified.smoothing.at[0].n == measured_on
    assert (certified.smoothing.n0, certified.smoothing.n, certified.smoothing.sigma) == (5, 20, 0.25)


def test_what_is_not_asked_for_is_not_measured(loaded: LoadedModel, greys: Split) -> None:
    reports, verdicts = measured(loaded, greys, attack="none", certify_images=0)
    assert verdicts == {}
    assert (reports["student"].robust_accuracy, reports["student"].certified) == (None, None)
    assert reports["student"].clean_accuracy.value == 24 / 25


def test_the_listener_hears_which_network_is_under_which_attack(loaded: LoadedModel, greys: Split) -> None:
    heard: list[str] = []
    measured(loaded, greys, Listener(count=lambda label, *_: heard.append(label)))
    assert set(heard) == {"teacher: PGD-5", "student: PGD-5", "teacher: smoothing", "student: smoothing"}


def test_notes_name_the_network_they_are_about(loaded: LoadedModel) -> None:
    none = torch.zeros(0).bool()
    found = notes(("of the data",), {"teacher": loaded}, {"teacher": Verdicts(none, none, "x", ("odd",))})
    assert found == ("of the data", "teacher: a note", "teacher: AutoAttack warns: odd")
