"""A report a model, from models in memory."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Split
from kdcompress.data.splits import split_from_pixels
from kdcompress.errors import UsageError
from kdcompress.evaluation.evaluate import fingerprint, side_by_side
from kdcompress.evaluation.evidence import evidence_of
from kdcompress.evaluation.measure import Measured, Subject, chunk_of, identity, measure
from kdcompress.gates import decided, judge
from kdcompress.models.code import code_of
from kdcompress.models.factories import build_with_factory
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.teachers import LoadedModel
from kdcompress.progress import AttackProgress, Listener
from kdcompress.settings import EvaluationSettings, GateSettings

CPU = torch.device("cpu")


def subject(images: Split, radii: tuple[float, ...] = (0.05,)) -> Subject:
    return Subject(images, (1, 3, 3), ("dark", "bright"), "Linf", radii, radii[-1])


def measured(
    loaded: LoadedModel,
    images: Split,
    listener: Listener = Listener(),
    *,
    radii: tuple[float, ...] = (0.05,),
    rest: dict[str, object] | None = None,
    **settings: object,
) -> dict[str, Measured]:
    chosen = EvaluationSettings.of(**({"attack": "pgd-5", "n0": 5, "n": 20, "certify_images": 4} | settings))
    models = {"teacher": loaded, "student": loaded}
    return measure(models, subject(images, radii), chosen, CPU, listener, **(rest or {}))  # type: ignore[arg-type]


def test_equal_networks_get_equal_figures(loaded: LoadedModel, greys: Split) -> None:
    found = measured(loaded, greys)
    teacher, student = (one.report.model_dump(exclude={"latency_ms", "masking"}) for one in found.values())
    assert teacher == student


def test_a_report_says_what_the_network_is_and_costs(loaded: LoadedModel, greys: Split) -> None:
    report = measured(loaded, greys)["student"].report
    assert (report.arch, report.params, report.file_bytes, report.sha256) == ("f.py:bright", 1, 5, "abc")
    assert report.latency_ms > 0
    assert report.clean_accuracy.value == 24 / 25


def test_robust_accuracy_never_exceeds_clean_accuracy_and_both_are_told_by_class(
    loaded: LoadedModel, greys: Split
) -> None:
    report = measured(loaded, greys)["student"].report
    assert report.robust_accuracy is not None
    assert 0 < report.robust_accuracy.value < report.clean_accuracy.value
    assert report.robust_accuracy.n == report.clean_accuracy.n == 25
    assert [(one.name, one.clean.n) for one in report.classes] == [("dark", 14), ("bright", 11)]
    assert len(report.verdicts) == 25
    assert report.verdicts.count(".") == round(25 * report.robust_accuracy.value)


@pytest.mark.parametrize(("asked", "measured_on"), [(4, 4), (100, 25)])
def test_certificates_are_taken_on_the_first_of_the_images(
    loaded: LoadedModel, greys: Split, asked: int, measured_on: int
) -> None:
    certified = measured(loaded, greys, certify_images=asked)["student"].report.certified
    assert certified is not None and certified.smoothing is not None
    assert certified.first_order.n == certified.smoothing.at[0].n == measured_on
    assert (certified.smoothing.n0, certified.smoothing.n, certified.smoothing.sigma) == (5, 20, 0.25)


def test_what_is_not_asked_for_is_not_measured(loaded: LoadedModel, greys: Split) -> None:
    report = measured(loaded, greys, attack="none", certify_images=0)["student"].report
    assert (report.robust_accuracy, report.certified, report.masking) == (None, None, None)
    assert report.clean_accuracy.value == 24 / 25
    assert set(report.verdicts) == {"?", "x"} and report.verdicts[-1] == "x"
    assert measured(loaded, greys, masking=False)["student"].report.masking is None


def test_robust_accuracy_over_eps_falls(loaded: LoadedModel, greys: Split) -> None:
    report = measured(loaded, greys, radii=(0.01, 0.05, 0.1))["student"].report
    values = [point.value for point in report.over_eps]
    assert [point.eps for point in report.over_eps] == [0.01, 0.05, 0.1]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    assert report.robust_accuracy is not None and report.robust_accuracy.value == values[-1]


def test_where_the_first_stops_the_others_are_attacked_on_the_same_images(loaded: LoadedModel, greys: Split) -> None:
    found = measured(loaded, greys, rest={"stop": lambda standing, tried: tried >= 10}, chunk=5)
    for one in found.values():
        assert one.report.robust_accuracy is not None
        assert (one.report.robust_accuracy.n, one.report.robust_accuracy.interval) == (10, "anytime-valid")
        assert one.report.clean_accuracy.n == 25
    paired = side_by_side(found, "teacher", "student", 0.05, 0.03)
    assert paired is not None and paired.n == 10


def test_whether_robustness_is_preserved_is_not_told_of_a_network_with_a_sign_of_masking(
    loaded: LoadedModel, greys: Split
) -> None:
    found = measured(loaded, greys, certify_images=0)
    paired = side_by_side(found, "teacher", "student", 0.05, 0.5)
    assert paired is not None and paired.preserved is True
    masking = found["student"].report.masking
    assert masking is not None
    flagged = tuple(check.model_copy(update={"flagged": True}) for check in masking.checks)
    report = found["student"].report.model_copy(update={"masking": masking.model_copy(update={"checks": flagged})})
    paired = side_by_side(
        found | {"student": replace(found["student"], report=report)}, "teacher", "student", 0.05, 0.5
    )
    assert paired is not None and paired.preserved is None


def test_the_listener_hears_which_network_is_under_which_attack(loaded: LoadedModel, greys: Split) -> None:
    heard: set[str] = set()

    def attack(name: str, now: AttackProgress) -> None:
        heard.add(f"{name}: {now.stage}")

    measured(loaded, greys, Listener(count=lambda label, *_: heard.add(label), attack=attack))
    each = {"pgd-5", "smoothing", "masking checks"}
    assert heard == {f"{name}: {what}" for name in ("teacher", "student") for what in each}


class Rounded(nn.Module):
    """Rounds its inputs: no gradients, though a straight-through copy has them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(torch.round(x * 255) / 255)
        return logits


class Deaf(nn.Module):
    """The class alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(self.inner(x).argmax(1), 2).float()


def with_network(loaded: LoadedModel, network: nn.Module) -> LoadedModel:
    return replace(loaded, model=NormalisedModel(network, None, None).eval().requires_grad_(False))


def test_a_network_without_gradients_is_attacked_through_a_straight_through_copy_and_says_so(
    loaded: LoadedModel, greys: Split
) -> None:
    told: list[str] = []
    found = measured(with_network(loaded, Rounded(loaded.model)), greys, Listener(note=told.append))["student"].report
    honest = measured(loaded, greys)["student"].report
    assert found.robust_accuracy is not None and honest.robust_accuracy is not None
    assert found.robust_accuracy.value <= honest.robust_accuracy.value
    assert found.robust_accuracy.surrogate == "a straight-through copy"
    assert found.robust_accuracy.attack.startswith("no gradients, so in place of PGD-5")
    assert any("straight-through" in note for note in told)


def test_its_float_parent_can_be_named(loaded: LoadedModel, greys: Split) -> None:
    deaf = with_network(loaded, Deaf(loaded.model))
    alone = measured(deaf, greys)["student"].report.robust_accuracy
    helped = measured(deaf, greys, rest={"surrogates": {"student": [loaded]}})["student"].report.robust_accuracy
    assert alone is not None and helped is not None
    assert (alone.stages, alone.surrogate) == (("square",), None)
    assert helped.stages == ("pgd-5 on surrogate", "pgd-100 on surrogate", "square")
    assert helped.surrogate == "f.py:bright in bright.pt"
    assert helped.value <= alone.value


class Noisy(nn.Module):
    """Another answer every time."""

    def __init__(self, inner: nn.Module, noise: float) -> None:
        super().__init__()
        self.inner, self.noise = inner, noise

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x + self.noise * torch.randn_like(x))
        return logits


@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_randomness_is_flagged_but_under_the_attack_that_is_made_for_it(
    noise: float, loaded: LoadedModel, greys: Split
) -> None:
    noisy = with_network(loaded, Noisy(loaded.model, noise))
    reasons = {}
    for attack in ("apgd", "autoattack-rand"):
        masking = measured(noisy, greys, attack=attack)["student"].report.masking
        assert masking is not None
        reasons[attack] = masking.reasons
    assert any("random" in reason for reason in reasons["apgd"])
    assert reasons["autoattack-rand"] == ()


def test_a_gate_on_the_first_of_several_radii_stops_and_judges_there(loaded: LoadedModel, greys: Split) -> None:
    gates = GateSettings.of(min_robust_accuracy=0.3, confidence=0.9)
    chosen = EvaluationSettings.of(attack="pgd-5", certify_images=0, chunk=5, masking=False)
    about = Subject(greys, (1, 3, 3), ("dark", "bright"), "Linf", (0.01, 0.4), 0.01)
    found = measure({"student": loaded}, about, chosen, CPU, Listener(), stop=decided(gates))["student"]
    assert found.verdicts is not None
    assert 0 < found.verdicts.attacked < 25
    (gate,) = judge(gates, "student", {"student": found.report}, None)
    assert gate.met and not gate.undecided


def test_where_the_attack_was_free_to_stop_classes_have_the_wider_interval_too(
    loaded: LoadedModel, greys: Split
) -> None:
    widths = {}
    for stop in (None, lambda standing, tried: False):
        classes = measured(loaded, greys, rest={"stop": stop}, masking=False, certify_images=0)[
            "student"
        ].report.classes
        robust = classes[0].robust
        assert robust is not None
        widths[stop is None] = robust.high - robust.low
    assert widths[False] > widths[True]


class Blind(nn.Module):
    """The mean of all pixels, rounded, in logits of two classes."""

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.round(x.flatten(1).mean(1) * 255) / 255
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def test_a_network_without_gradients_on_images_that_square_cannot_attack_is_refused(loaded: LoadedModel) -> None:
    blind = with_network(loaded, Blind())
    tall = split_from_pixels(torch.randint(0, 256, (4, 1, 12, 8), dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    about = Subject(tall, (1, 12, 8), ("dark", "bright"), "L2", (0.5,), 0.5)
    with pytest.raises(UsageError, match="no taller than wide"):
        measure({"student": blind}, about, EvaluationSettings.of(attack="apgd"), CPU, Listener())


def test_the_code_of_a_factorys_file_is_part_of_what_verdicts_are_kept_by(tmp_path: Path) -> None:
    seen = []
    for body in ("return x", "return x.detach() + 0 * x"):
        file = tmp_path / "net.py"
        file.write_text(f"from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        {body}\n")
        seen.append(code_of(build_with_factory(f"{file}:Net", {})))
    assert seen[0] != seen[1]
    assert code_of(nn.Linear(2, 2)) == code_of(nn.ReLU())  # versions tell of these


def test_the_file_of_a_factory_that_defines_no_class_counts_too(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(arch: str, scale: int) -> object:
        (tmp_path / "plain_factory.py").write_text(
            f"from torch import nn\ndef net():\n    return nn.Sequential(nn.Softplus({scale}), nn.Flatten())\n"
        )
        sys.modules.pop("plain_factory", None)
        record = loaded.record.model_copy(update={"source": "factory", "arch": arch})
        return identity(replace(loaded, model=build_with_factory(arch, {}), record=record))  # type: ignore[arg-type]

    monkeypatch.chdir(tmp_path)
    for arch in (f"{tmp_path}/plain_factory.py:net", "plain_factory.py:net", "plain_factory:net"):
        assert told(arch, 1) == told(arch, 1) != told(arch, 2)
    sys.modules.pop("plain_factory")


def test_kept_verdicts_are_found_by_the_same_evaluation_and_by_no_other(
    loaded: LoadedModel, greys: Split, tmp_path: Path
) -> None:
    told: list[str] = []

    def run(loaded: LoadedModel, **changes: object) -> str:
        how = {"keep_dir": tmp_path, "certify_images": 0} | changes
        return measured(loaded, greys, Listener(note=told.append), **how)["student"].report.verdicts  # type: ignore[arg-type]

    first = run(loaded)
    assert [note for note in told if "taken up" in note] != []  # the student is its own teacher here
    told.clear()
    assert run(loaded) == first
    assert len([note for note in told if "taken up" in note]) == 2
    folders = len(list(tmp_path.iterdir()))
    for change in ({"seed": 1}, {"chunk": 7}, {"attack": "pgd-6"}, {"radii": (0.02,)}):
        run(loaded, **change)
    run(replace(loaded, sha256="def"))
    assert len(list(tmp_path.iterdir())) == folders + 5


def test_kept_votes_are_found_by_the_same_network_sigma_and_seed_and_by_no_other(
    loaded: LoadedModel, greys: Split, tmp_path: Path
) -> None:
    def folders(loaded: LoadedModel, **changes: object) -> int:
        # Of an image that is sure of its class, so that no abstention asks for other noise.
        measured(
            loaded,
            greys.subset([0]),
            keep_dir=tmp_path / "kept",
            attack="none",
            **({"sigma": 0.05, "n": 200} | changes),
        )
        return len(list((tmp_path / "kept").iterdir()))

    assert folders(loaded) == 1
    assert folders(loaded, n=300, alpha=0.01, smoothing="adaptive", n0=7) == 1
    assert folders(loaded, sigma=0.06) == 2
    assert folders(loaded, seed=1) == 3
    assert folders(replace(loaded, sha256="def")) == 4


def test_rows_and_gallery_say_what_became_of_each_image(loaded: LoadedModel, greys: Split) -> None:
    found = measured(loaded, greys, radii=(0.01, 0.05))
    evidence = evidence_of(subject(greys, (0.01, 0.05)), found, CPU)
    assert [row.id for row in evidence.rows] == list(greys.ids)
    report = found["student"].report
    codes = {".": "stood", "x": "wrong"}
    for row, code in zip(evidence.rows, report.verdicts, strict=True):
        one = row.models["student"]
        assert one.verdict == codes.get(code, "broken")
        assert one.broken_by == (None if code in codes else "pgd-5")
        assert one.stood_eps == {"stood": 0.05, "wrong": None}.get(one.verdict, one.stood_eps)
    assert {row.models["student"].stood_eps for row in evidence.rows} == {None, 0.0, 0.01, 0.05}
    assert 0 < len(evidence.gallery) <= 8
    for shown in evidence.gallery:
        assert shown.image.shape == (3, 3, 1) and shown.image.dtype.name == "uint8"
        for view in shown.models.values():
            assert view.gradient.shape == (3, 3, 1)
            if view.adversarial is not None:
                assert view.adversarial_prediction != shown.label
                assert abs(view.adversarial.astype(int) - shown.image).max() <= 0.05 * 255 + 1


def test_without_an_attack_the_gallery_has_no_adversarial_versions(loaded: LoadedModel, greys: Split) -> None:
    evidence = evidence_of(subject(greys), measured(loaded, greys, attack="none"), CPU)
    assert {row.models["student"].verdict for row in evidence.rows} == {"not attacked", "wrong"}
    assert all(view.adversarial is None for shown in evidence.gallery for view in shown.models.values())


def test_the_fingerprint_is_of_names_labels_pixels_and_order(greys: Split) -> None:
    assert fingerprint(greys) == fingerprint(greys.subset(range(25)))
    assert len({fingerprint(greys), fingerprint(greys.subset(range(24))), fingerprint(greys.subset([1, 0]))}) == 3


@pytest.mark.parametrize(("side", "expected"), [(32, 250), (224, 111), (1000, 50)])
def test_the_chunk_shrinks_for_large_images_and_for_gates_that_stop(side: int, expected: int) -> None:
    assert chunk_of(EvaluationSettings(), 3 * side * side, CPU, stops=False) == expected
    assert chunk_of(EvaluationSettings(), 3 * side * side, CPU, stops=True) == 50
    assert chunk_of(EvaluationSettings(chunk=7), 3 * side * side, CPU, stops=True) == 7
