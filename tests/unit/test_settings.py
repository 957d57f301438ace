"""Settings: checked once, one line an error, the option named as typed."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kdcompress.errors import UsageError
from kdcompress.settings import (
    CompareSettings,
    DataSettings,
    DistillSettings,
    EvaluateSettings,
    EvaluationSettings,
    GateSettings,
    LossSettings,
    ModelFile,
    RunSettings,
    Settings,
    TeacherCheckSettings,
    ThreatSettings,
    TrainSettings,
)


@pytest.mark.parametrize(
    ("settings", "value", "said"),
    [
        (RunSettings, {"epochs": 0}, ["--epochs", "1", "got 0"]),
        (RunSettings, {"batch_size": 1}, ["--batch-size", "2", "got 1"]),
        (RunSettings, {"lr": 0}, ["--lr", "greater than 0", "got 0"]),
        (RunSettings, {"lr": float("nan")}, ["--lr", "finite", "got nan"]),
        (RunSettings, {"lr": float("inf")}, ["--lr", "finite", "got inf"]),
        (RunSettings, {"weight_decay": -1}, ["--weight-decay", "got -1"]),
        (RunSettings, {"ema": 1}, ["--ema", "less than 1", "got 1"]),
        (RunSettings, {"schedule": "linear"}, ["--schedule", "'cosine'", "got linear"]),
        (RunSettings, {"optimizer": "adam"}, ["--optimizer", "'sgd'", "got adam"]),
        (RunSettings, {"average": "mean"}, ["--average", "'swa'", "got mean"]),
        (RunSettings, {"optimizer": "sgd", "momentum": 1}, ["--momentum", "less than 1", "got 1"]),
        (RunSettings, {"average": "swa", "swa_start": 1.5}, ["--swa-start", "1", "got 1.5"]),
        (RunSettings, {"momentum": 0.9}, ["--momentum is for --optimizer sgd, got adamw"]),
        (RunSettings, {"ema": 0.9, "average": "swa"}, ["--ema is for --average ema, got swa"]),
        (RunSettings, {"ema": 0.9, "average": "none"}, ["--ema is for --average ema, got none"]),
        (RunSettings, {"swa_start": 0.5}, ["--swa-start is for --average swa, got ema"]),
        (RunSettings, {"seed": -1}, ["--seed", "got -1"]),
        (RunSettings, {"augment": "mixup"}, ["--augment", "'crop'", "got mixup"]),
        (RunSettings, {"device": "tpu"}, ["--device", "cuda", "got tpu"]),
        (RunSettings, {"device": "cuda:"}, ["--device", "got cuda:"]),
        (RunSettings, {"precision": "fp16"}, ["--precision", "'bf16'", "got fp16"]),
        (RunSettings, {"noise_sigma": -0.1}, ["--noise-sigma", "got -0.1"]),
        (EvaluationSettings, {"smoothing": "often"}, ["--smoothing", "'sequential'", "got often"]),
        (LossSettings, {"iga_weight": -1}, ["--iga-weight", "got -1"]),
        (LossSettings, {"iga_weight": "nan"}, ["--iga-weight", "got nan"]),
        (LossSettings, {"iga_weight": "much"}, ["--iga-weight", "got much"]),
        *((LossSettings, {"iga_weight": f"auto/{n}"}, ["--iga-weight", f"got auto/{n}"]) for n in ("", "0", "-2", "x")),
        (LossSettings, {"iga_ramp": 1.1}, ["--iga-ramp", "1", "got 1.1"]),
        (LossSettings, {"iga_start": 0.8}, ["--iga-start 0.8", "--iga-ramp 0.3", "at most 1"]),
        (LossSettings, {"iga_start": 1, "iga_ramp": 0}, ["--iga-start 1", "below 1"]),
        (LossSettings, {"iga_weight": 0, "iga_start": 0.2}, ["--iga-start", "--iga-weight"]),
        (LossSettings, {"recipe": "kdiga", "kl_weight": 0, "iga_start": 0.2}, ["--iga-start", "--kl-weight"]),
        (LossSettings, {"temperature": 0}, ["--temperature", "got 0"]),
        (LossSettings, {"kl_weight": -0.1}, ["--kl-weight", "got -0.1"]),
        (LossSettings, {"ce_weight": float("inf")}, ["--ce-weight", "got inf"]),
        (LossSettings, {"recipe": "adad"}, ["--recipe", "'adaad'", "got adad"]),
        (LossSettings, {"inner_steps": 0}, ["--inner-steps", "got 0"]),
        (LossSettings, {"iga_every": 0}, ["--iga-every", "got 0"]),
        (LossSettings, {"self_weight": 1}, ["--self-weight", "--inner-attack"]),
        (LossSettings, {"recipe": "iad", "kl_weight": 0}, ["--self-weight", "--kl-weight"]),
        (LossSettings, {"recipe": "kdiga", "kl_weight": 0, "iga_every": 2}, ["--iga-every", "--kl-weight"]),
        (LossSettings, {"recipe": "rslad", "align": "jacobian"}, ["--align", "--iga-weight"]),
        (LossSettings, {"iga_weight": 0, "iga_every": 2}, ["--iga-every", "--iga-weight"]),
        (LossSettings, {"inner_steps": 3}, ["--inner-steps", "--inner-attack"]),
        (LossSettings, {"label_smoothing": 0.1}, ["--label-smoothing", "--ce-weight"]),
        (LossSettings, {"recipe": "kd", "igdm_weight": 1}, ["--igdm-weight", "--inner-attack"]),
        (LossSettings, {"recipe": "ard", "input_noise": "uniform"}, ["--input-noise", "inner attack"]),
        (LossSettings, {"recipe": "kd", "kl_weight": 0}, ["--kl-weight", "got 0 for all"]),
        (LossSettings, {"input_noise": "gauss"}, ["--input-noise", "'uniform'", "got gauss"]),
        (GateSettings, {"min_clean_accuracy": 75}, ["--min-clean-accuracy", "1", "got 75"]),
        (GateSettings, {"min_robust_accuracy": -0.1}, ["--min-robust-accuracy", "got -0.1"]),
        (GateSettings, {"max_robust_drop": 3}, ["--max-robust-drop", "got 3"]),
        (GateSettings, {"max_params": 0}, ["--max-params", "got 0"]),
        (GateSettings, {"max_macs": 0}, ["--max-macs", "got 0"]),
        (GateSettings, {"max_latency_ms": 0}, ["--max-latency-ms", "got 0"]),
        (GateSettings, {"confidence": 0.5}, ["--confidence", "0.5", "got 0.5"]),
        (GateSettings, {"confidence": 1.0}, ["--confidence", "1", "got 1.0"]),
        (GateSettings, {"min_certified_accuracy": "0.25"}, ["--min-certified-accuracy", "0.25:0.40", "got 0.25"]),
        (GateSettings, {"min_certified_accuracy": "a:0.4"}, ["--min-certified-accuracy", "RADIUS:ACC", "got a:0.4"]),
        (GateSettings, {"min_certified_accuracy": "1:2:3"}, ["--min-certified-accuracy", "got 1:2:3"]),
        (GateSettings, {"min_certified_accuracy": "0.25:40"}, ["--min-certified-accuracy", "1", "got 40"]),
        (GateSettings, {"min_certified_accuracy": "-1:0.4"}, ["--min-certified-accuracy", "got -1"]),
        (GateSettings, {"min_certified_accuracy": "nan:0.4"}, ["--min-certified-accuracy", "got nan"]),
        (GateSettings, {"gate_on": "mean"}, ["--gate-on", "'bound'", "got mean"]),
        (EvaluationSettings, {"attack": "pgd-0"}, ["--attack", "autoattack", "got pgd-0"]),
        (EvaluationSettings, {"attack": "pgd"}, ["--attack", "pgd-", "got pgd"]),
        (EvaluationSettings, {"images": 0}, ["--images", "got 0"]),
        (EvaluationSettings, {"certify_images": -1}, ["--certify-images", "got -1"]),
        (EvaluationSettings, {"alpha": 1}, ["--alpha", "got 1"]),
        (EvaluationSettings, {"sigma": 0}, ["--sigma", "got 0"]),
        (EvaluationSettings, {"n0": 0}, ["--n0", "got 0"]),
        (EvaluationSettings, {"n": 0}, ["--n:", "got 0"]),
        (ThreatSettings, {"eps": "8"}, ["--eps", "(0, 1]", "got 8", "did you mean 8/255?"]),
        (ThreatSettings, {"eps": "0"}, ["--eps", "got 0"]),
        (ThreatSettings, {"eps": "nan"}, ["--eps", "got nan"]),
        (ThreatSettings, {"eps": "8/0"}, ["--eps", "8/255", "got 8/0"]),
        (ThreatSettings, {"eps": "wide"}, ["--eps", "number", "got wide"]),
        (ThreatSettings, {"eps": "0.1", "norm": "L0"}, ["--norm", "Linf", "L2", "L1", "got L0"]),
        (DataSettings, {"data": "digits", "image_size": 0}, ["--image-size", "got 0"]),
        (DataSettings, {"data": "digits", "train_images": 0}, ["--train-images", "got 0"]),
        (RunSettings, {"epoch": 3}, ["--epoch", "got 3"]),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_option_what_was_expected_and_what_was_found(
    settings: type[Settings], value: dict[str, object], said: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        settings.of(**value)
    message = str(caught.value)
    assert all(part in message for part in said), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        (RunSettings, {"epochs": 1, "batch_size": 2, "ema": 0.0, "seed": 0, "weight_decay": 0.0}),
        (LossSettings, {"ce_weight": 0.0, "kl_weight": 0.1, "iga_weight": 0.0}),
        (LossSettings, {"iga_ramp": 0.0}),
        (LossSettings, {"iga_ramp": 1.0, "iga_weight": "auto"}),
        (GateSettings, {"min_clean_accuracy": 0.0, "min_robust_accuracy": 1.0, "max_robust_drop": 0.0}),
        (EvaluationSettings, {"attack": "pgd-1", "certify_images": 0, "images": 1}),
        (ThreatSettings, {"eps": 1.0}),
        (ThreatSettings, {"eps": 100.0, "norm": "L2"}),
        (RunSettings, {"device": "cuda:1"}),
        (RunSettings, {"optimizer": "sgd", "momentum": 0.0}),
        (RunSettings, {"average": "swa", "swa_start": 0.0, "ema": None}),
    ],
)
def test_the_edges_of_what_is_allowed_are_allowed(settings: type[Settings], value: dict[str, object]) -> None:
    kept = settings.of(**value).model_dump()
    assert {name: kept[name] for name in value} == value


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, {"lr": 3e-3, "weight_decay": 0.01, "momentum": None, "ema": 0.99, "swa_start": None}),
        ({"optimizer": "sgd"}, {"lr": 0.1, "weight_decay": 5e-4, "momentum": 0.9}),
        ({"optimizer": "sgd", "lr": None, "momentum": 0.5}, {"lr": 0.1, "weight_decay": 5e-4, "momentum": 0.5}),
        ({"optimizer": "sgd", "lr": 0.2, "weight_decay": 0.0}, {"lr": 0.2, "weight_decay": 0.0, "momentum": 0.9}),
        ({"average": "swa", "ema": None}, {"ema": None, "swa_start": 0.75}),
        ({"average": "none"}, {"ema": None, "swa_start": None}),
    ],
)
def test_what_is_left_out_follows_the_optimizer_and_the_average_and_is_recorded_as_a_number(
    asked: dict[str, object], found: dict[str, object]
) -> None:
    kept = RunSettings.of(**asked).model_dump(mode="json")
    assert {name: kept[name] for name in found} == found
    assert RunSettings.model_validate(kept).model_dump(mode="json") == kept


def test_a_certified_demand_is_typed_as_a_radius_and_an_accuracy() -> None:
    assert GateSettings.of(min_certified_accuracy="0.25:0.40").min_certified_accuracy == (0.25, 0.4)
    assert GateSettings.of(min_certified_accuracy=(0.0, 1.0)).min_certified_accuracy == (0.0, 1.0)


@pytest.mark.parametrize("home", [GateSettings, lambda **gates: CompareSettings(reports=("a", "b"), **gates)])
def test_preserved_means_within_the_gate_or_within_three_points(home: Any) -> None:
    assert [home().within, home(max_robust_drop=0.0).within, home(max_robust_drop=0.1).within] == [0.03, 0.0, 0.1]


def test_one_report_is_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="a baseline's report and another, got 1"):
        CompareSettings.of(reports=("a.json",))


def test_a_radius_may_be_written_as_a_fraction() -> None:
    assert ThreatSettings.of(eps="8/255").threat.eps == 8 / 255


def test_an_iga_weight_typed_as_a_number_is_that_number_and_auto_stays_auto() -> None:
    assert LossSettings.of(iga_weight="0.5").iga_weight == 0.5
    assert LossSettings.of(iga_weight="0").iga_weight == 0
    assert LossSettings.of(iga_weight="auto").iga_weight == "auto"
    assert LossSettings.of(iga_weight="auto/4").iga_weight == "auto/4"


def test_settings_cannot_be_changed() -> None:
    run = RunSettings()
    with pytest.raises(ValidationError):
        run.epochs = 3


def test_an_evaluation_needs_a_model() -> None:
    with pytest.raises(UsageError, match="--teacher"):
        EvaluateSettings.of(
            student=None, teacher=None, data=DataSettings(data="digits"), threat=ThreatSettings(eps=0.1)
        )


def test_settings_survive_the_json_in_which_a_run_records_them() -> None:
    threat, data = ThreatSettings(norm="L2", eps=0.5), DataSettings(data="digits", data_dir=Path("there"))
    distilled = DistillSettings(
        teacher=ModelFile(path=Path("t.pt"), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3), args={"depth": 4}),
        student="resnet18",
        data=data,
        threat=threat,
        loss=LossSettings(iga_weight=0.25),
        check=TeacherCheckSettings(insist=True),
    )
    trained = TrainSettings(model="resnet18", data=data, threat=threat)
    evaluated = EvaluateSettings(
        student=ModelFile(path=Path("s.pt"), mean="none"), teacher=None, data=data, threat=threat
    )
    for settings in (distilled, trained, evaluated):
        assert type(settings).model_validate_json(settings.model_dump_json()) == settings


def test_a_weight_that_is_no_number_names_auto() -> None:
    with pytest.raises(
        UsageError, match="--iga-weight: must be a number, auto, or a part of it such as auto/4, got foo"
    ):
        LossSettings.of(iga_weight="foo")
    with pytest.raises(UsageError, match=r"--kl-weight: .*number"):
        LossSettings.of(kl_weight="foo")
