import copy
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdcompress.models.cost import latencies_ms, macs, parameter_count


class Attention(nn.Module):
    """Softmax attention of N tokens of width D over themselves: N * N * D twice."""

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


class Sleeper(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.calls = seconds, []

    def forward(self, x):
        self.calls.append((self.training, torch.is_inference_mode_enabled(), tuple(x.shape)))
        time.sleep(self.seconds)
        return x


def test_parameters_are_counted_once_and_buffers_not_at_all():
    shared = nn.Linear(4, 4)
    assert parameter_count(nn.Sequential(shared, shared, nn.BatchNorm1d(4))) == 4 * 4 + 4 + 2 * 4


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), 8 * 8 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), 8 * 8 * 4 * 9),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), 256 * 10),
        (Attention(), 2 * 64 * 64 * 4),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), 0),
    ],
)
def test_multiply_accumulates_are_those_counted_by_hand(layer, expected):
    assert macs(layer, (4, 8, 8)) == expected


def test_a_layer_used_twice_counts_twice():
    layer = nn.Conv2d(4, 4, 1)
    assert macs(nn.Sequential(layer, layer), (4, 8, 8)) == 2 * 8 * 8 * 16


def test_counting_leaves_mode_statistics_and_random_state_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    macs(model, (3, 8, 8))
    assert all(module.training for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_network_that_branches_on_values_is_counted_too():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)) if float(x.sum()) >= 0 else x

    assert macs(Branching(12, 5), (3, 2, 2)) == 60


def test_a_parameter_handed_from_module_to_module_does_not_stop_the_count():
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.rand(1, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(self.token)

    model = Token()
    assert macs(model, (1, 1, 1)) == 8
    assert model.token.requires_grad


def test_latency_is_the_time_of_one_forward_in_milliseconds():
    # Sleeping never ends early, and four times as long leaves room for a busy machine.
    assert 10 <= latencies_ms({"one": Sleeper(0.01)}, (1, 2, 2), "cpu", repeats=5)["one"] < 40


def test_models_take_turns_in_eval_and_inference_mode_at_the_batch_size():
    models = {"fast": Sleeper(0.0), "slow": Sleeper(0.005)}
    found = latencies_ms(models, (1, 2, 2), "cpu", batch_size=3, repeats=4)
    assert list(found) == ["fast", "slow"] and found["fast"] < found["slow"]
    for model in models.values():
        assert model.calls == [(False, True, (3, 1, 2, 2))] * (3 + 4)
        assert model.training


def test_a_module_frozen_in_eval_mode_stays_frozen():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU()).train()
    model[0].eval()
    latencies_ms({"one": model}, (1, 2, 2), "cpu", repeats=1)
    assert model.training and model[1].training and not model[0].training


@pytest.mark.parametrize(("batch_size", "repeats"), [(0, 1), (1, 0)])
def test_nothing_to_time_is_an_error(batch_size, repeats):
    with pytest.raises(ValueError, match="at least 1"):
        latencies_ms({}, (1, 2, 2), "cpu", batch_size, repeats)
