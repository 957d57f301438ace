"""From what people put into a checkpoint to the bare weights: wrappers, prefixes, normalisation buffers."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kdcompress.errors import CheckpointError

# An average of the weights comes first: whoever keeps one reports the accuracy of the average.
_AVERAGES = ("state_dict_ema", "ema_state_dict", "ema_model_state_dict", "model_state_dict_ema", "model_ema",
             "ema_model", "ema", "shadow")  # fmt: skip
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")

# Put around a network by DataParallel, torch.compile, Lightning, AveragedModel and training scripts.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "basic_net.", "backbone_model.")

# Names of a normalisation layer's buffers, and of the layer itself. "0" is nn.Sequential(normalise, network).
_MEAN_AND_STD = (("mean", "std"), ("mu", "sigma"), ("_mean", "_std"), ("new_mean", "new_std"), ("means", "stds"))
_NORMALISERS = ("", "normalize.", "normalizer.", "normalise.", "normaliser.", "normalization.", "normalisation.",
                "norm_layer.", "preprocess.", "0.")  # fmt: skip
_MOST_CHANNELS = 64  # a buffer with more values is no per-channel normalisation of images

# Entries without influence on a network in eval mode: BatchNorm's and AveragedModel's counters, a profiler's marks.
BOOKKEEPING = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")


def find_state(content: object, depth: int = 4) -> tuple[dict[str, Tensor], str] | None:
    """The weights in a checkpoint and the path of wrapper keys that leads to them ("" for a bare state dict).

    Order: an exponential moving average (`state_dict_ema`, `model_ema`, ...) before the plain weights (`state_dict`,
    `model_state_dict`, `model`, ...), if it has all their keys: some averages hold parameters without BatchNorm's
    statistics, and cannot stand alone. Everything else (optimiser, epoch, options) is left out.

    >>> find_state({"epoch": 3, "state_dict": {"fc.weight": torch.zeros(2, 2)}})
    ({'fc.weight': tensor([[0., 0.],
            [0., 0.]])}, 'state_dict')
    """
    if not isinstance(content, Mapping) or not depth:  # a file may contain itself
        return None
    average = _first(content, _AVERAGES, depth)
    plain = _first(content, _WRAPPERS, depth)
    if average and plain and not _bare_keys(plain[0]) <= _bare_keys(average[0]):
        average = None
    if found := average or plain:
        return found
    state = {str(key): tensor for key, value in content.items() if (tensor := _tensor(value)) is not None}
    return (state, "") if any(tensor.ndim for tensor in state.values()) else None


def is_average(origin: str) -> bool:
    """Whether the path of wrapper keys leads to averaged weights."""
    return any(name in _AVERAGES for name in origin.split("."))


def _first(content: Mapping[object, object], names: Sequence[str], depth: int) -> tuple[dict[str, Tensor], str] | None:
    for name in names:
        if (found := find_state(content.get(name), depth - 1)) is not None:
            state, inner = found
            return state, f"{name}.{inner}" if inner else name
    return None


def _bare_keys(state: Mapping[str, Tensor]) -> set[str]:
    prefix = common_prefix(state)
    return {key.removeprefix(prefix) for key in state if not key.endswith(BOOKKEEPING)}


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.detach() if isinstance(value, Tensor) else None


def common_prefix(keys: Iterable[str]) -> str:
    """The wrappers' names that all weights share, from the outermost to the innermost.

    >>> common_prefix(["module.model.conv.weight", "module.model.fc.weight"])
    'module.model.'
    >>> common_prefix(["model.conv.weight", "fc.weight"])
    ''
    """
    names = [key for key in keys if not key.endswith(BOOKKEEPING)]
    prefix = ""
    while names:
        step = next((p for p in _PREFIXES if all(key.startswith(prefix + p) for key in names)), None)
        if step is None:
            break
        prefix += step
    return prefix


def unwrap_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights under the keys of the bare network, and the normalisation buffers that lay beside them.

    Prefixes that all keys share are taken off and normalisation buffers are taken out, in turn, until neither is left:
    they often lie outside the network's own prefix.

    Raises:
        CheckpointError: if there are two normalisations that differ.
    """
    weights = dict(state)
    buffers: dict[str, Tensor] = {}
    while True:
        prefix = common_prefix(weights)
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
        if any(key.startswith("model.") for key in weights):
            # The MadryLab `robustness` package stores the network twice, once more inside its attacker.
            weights = {key: value for key, value in weights.items() if not key.startswith("attacker.")}
        found = dict(_normalisation(weights))
        weights = {key: value for key, value in weights.items() if key not in found}
        buffers |= found
        if any(key.startswith("0.") for key in found) and all(key.startswith("1.") for key in weights):
            weights = {key.removeprefix("1."): value for key, value in weights.items()}
        elif not found and not prefix:
            return weights, buffers


def _normalisation(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for layer in _NORMALISERS:
        for mean, std in _MEAN_AND_STD:
            pair = (layer + mean, layer + std)
            if all(key in state and 0 < state[key].numel() <= _MOST_CHANNELS for key in pair):
                yield from ((key, state[key]) for key in pair)


def stored_normalisation(buffers: Mapping[str, Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std), one value per channel, of the buffers that `unwrap_keys` took out; None where there are none.

    Raises:
        CheckpointError: if the values cannot be those of inputs in [0,1], or if several stored pairs differ.
    """
    endings = dict(_MEAN_AND_STD)
    pairs = []
    for key, mean in buffers.items():
        layer, dot, name = key.rpartition(".")
        if name in endings:
            std = buffers[layer + dot + endings[name]]
            pairs.append((_values(mean), _values(std)))
    if not pairs:
        return None
    if any(pair != pairs[0] for pair in pairs):
        raise CheckpointError(f"expected one normalisation, found several that differ ({', '.join(buffers)})")
    mean_values, std_values = pairs[0]
    if fault := normalisation_fault(mean_values, std_values):
        raise CheckpointError(f"its stored normalisation is unusable ({', '.join(buffers)}): {fault}")
    return mean_values, std_values


def _values(buffer: Tensor) -> tuple[float, ...]:
    # Through text, so that 0.4914 kept as float32 is 0.4914 again and not 0.49140000343322754.
    return tuple(float(f"{value:.7g}") for value in buffer.double().flatten().tolist())


def normalisation_fault(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """What is wrong with a mean and a standard deviation of pixels in [0,1], or None.

    >>> normalisation_fault([123.7], [58.4])
    'expected mean and std in units of [0, 1], found 123.7 and 58.4; divide by 255'
    """
    if len(mean) != len(std):
        return f"expected as many means as standard deviations, found {len(mean)} and {len(std)}"
    if not all(math.isfinite(value) for value in (*mean, *std)):
        return "expected finite numbers"
    if max(*mean, *std) > 1 + 1e-6:
        return f"expected mean and std in units of [0, 1], found {max(mean):g} and {max(std):g}; divide by 255"
    if min(std) <= 0:
        return f"expected positive standard deviations, found {min(std):g}"
    return None


def weights_fault(state: Mapping[str, Tensor]) -> str | None:
    """Why these weights cannot be used, or None."""
    for key, tensor in state.items():
        if tensor.is_quantized or tensor.layout is not torch.strided:
            return (
                f"expected plain dense weights, found {tensor.dtype} ({tensor.layout}) in {key}; save the float model"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f"expected finite weights, found NaN or infinity in {key}; training diverged, use an earlier file"
    return None
