"""Traced networks and the files that runtimes take."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdcompress.data import Data
from kdcompress.errors import ExportError, UsageError
from kdcompress.export import programs
from kdcompress.export.programs import Program, onnx_runtime, program_of, to_bytes, to_onnx, torch_runtime
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.teachers import LoadedModel

SIZE = (3, 8, 8)


class Branching(nn.Module):
    """Asks its images something."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2] if x.mean() > 0.5 else x.flatten(1)[:, 2:4]


class Bessel(nn.Module):
    """Of no use, and nothing that ONNX knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x.flatten(1)[:, :2])


@pytest.fixture
def normalised() -> NormalisedModel:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    return NormalisedModel(network.eval(), [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]).eval().requires_grad_(False)


def written(network: nn.Module, form: str) -> Program:
    program = program_of(network, SIZE)
    return torch_runtime(to_bytes(program)) if form == "torch-export" else onnx_runtime(to_onnx(program, 18, {}))


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_file_takes_pixels_and_any_number_of_them(normalised: NormalisedModel, form: str, batch: int) -> None:
    x = torch.rand(batch, *SIZE)
    found = written(normalised, form)(x)
    assert torch.allclose(found, normalised(x), atol=1e-5)
    # The normalisation is inside: the bare network says something else of pixels.
    assert not torch.allclose(found, normalised.network(x), atol=1e-2)


def test_an_onnx_file_states_its_opset_its_names_and_what_was_asked_to_be_kept(normalised: NormalisedModel) -> None:
    import onnx

    model = onnx.load_from_string(to_onnx(program_of(normalised, SIZE), 20, {"classes": '["a"]'}))
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 20)]
    (given,), (answer,) = model.graph.input, model.graph.output
    sides = [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim]
    assert (given.name, answer.name, sides) == ("images", "logits", ["batch", *SIZE])
    assert {one.key: json.loads(one.value) for one in model.metadata_props}["classes"] == ["a"]


def test_the_same_network_gives_the_same_bytes(normalised: NormalisedModel) -> None:
    first, second = (to_onnx(program_of(normalised, SIZE), 18, {}) for _ in range(2))
    assert first == second


def test_a_network_that_branches_on_what_it_sees_is_refused_in_one_line() -> None:
    with pytest.raises(ExportError, match=r"cannot be traced by torch\.export") as refused:
        program_of(Branching(), SIZE)
    assert "\n" not in str(refused.value)


def test_an_operation_that_onnx_has_not_is_refused_in_one_line() -> None:
    with pytest.raises(ExportError, match="cannot be written as ONNX, opset 18") as refused:
        to_onnx(program_of(Bessel(), SIZE), 18, {})
    assert "\n" not in str(refused.value)


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnx, onnxscript, onnxruntime: pip install 'kdcompress\[export\]'"):
        to_onnx(program_of(nn.Flatten(), SIZE), 18, {})


def test_a_real_network_answers_as_it_did(robust: LoadedModel, digits: Data, tmp_path: Path) -> None:
    assert digits.test is not None
    x, _ = next(digits.test.batches(64))
    found = onnx_runtime(to_onnx(program_of(robust.model, (1, 16, 16)), 18, {}))(x)
    assert (found - robust.model(x)).abs().max() < 1e-4
