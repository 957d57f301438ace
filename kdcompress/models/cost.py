"""What a network costs: parameters, multiply-accumulates, measured latency."""

import copy
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

WARM_UP = 3  # forwards: allocations, kernel choice and lazy initialisation happen in the first ones


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, shared ones once; buffers (BatchNorm statistics) are not parameters.

    >>> parameter_count(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one forward of one image (C, H, W), in eval mode.

    Counted: convolutions, linear layers, matrix products and attention, at one per multiplication with its addition,
    as they run (a layer used twice counts twice). Not counted: biases, normalisation, activations, pooling,
    resizing, softmax, elementwise products: their cost is memory traffic, which latency shows.

    Guarantees: `model`, its mode and its statistics are left as they were; no random number is drawn.

    >>> macs(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2))
    60
    """
    with torch.no_grad():
        try:  # shapes are all that counts
            return _counted(_frozen_copy(model).to("meta"), torch.empty(1, *input_size, device="meta"))
        except Exception:  # networks that hold plain tensors, or branch on values
            return _counted(_frozen_copy(model), torch.zeros(1, *input_size, device=_device(model)))


def latencies_ms(
    models: Mapping[str, nn.Module],
    input_size: tuple[int, int, int],
    device: torch.device | str,
    batch_size: int = 1,
    repeats: int = 30,
) -> dict[str, float]:
    """Median time of one forward of each model on `device`, in milliseconds, measured side by side.

    Timed: `model(inputs)` in eval mode and inference mode, inputs (batch_size, C, H, W) already on `device`, until the
    device has finished; by the wall clock. Not timed: loading images, moving them, anything after the logits.
    The models take turns, so that other work on the machine slows all of them alike and ratios stay fair; the order
    turns round every time. The threads of torch, its number format and the memory layout are those that the caller
    has set.

    Args:
        models: name to model; moved to `device` and back to where its weights were.
        repeats: timed forwards of each model, after three that are not timed.

    Returns:
        Name to median milliseconds, in the order of `models`.

    Raises:
        ValueError: if `repeats` or `batch_size` is below 1.
    """
    if repeats < 1 or batch_size < 1:
        raise ValueError(f"repeats and batch_size must be at least 1, got {repeats} and {batch_size}")
    target = torch.device(device)
    # Fixed, and not zeros: on some processors multiplying zeros or denormals takes another time.
    inputs = torch.rand(batch_size, *input_size, generator=torch.Generator().manual_seed(0)).to(target)
    times: dict[str, list[float]] = {name: [] for name in models}
    homes = {name: _device(model) for name, model in models.items()}
    try:
        for model in models.values():
            model.to(target)
        for turn in range(WARM_UP + repeats):
            for name in list(models)[:: 1 if turn % 2 else -1]:
                with _evaluating(models[name]), torch.inference_mode():
                    _synchronise(target)
                    start = time.perf_counter()
                    models[name](inputs)
                    _synchronise(target)
                    elapsed = time.perf_counter() - start
                if turn >= WARM_UP:
                    times[name].append(1000 * elapsed)
    finally:
        for name, model in models.items():
            model.to(homes[name])
    return {name: statistics.median(values) for name, values in times.items()}


def _counted(model: nn.Module, inputs: Tensor) -> int:
    # Fused attention has a formula on some devices only; as plain matrix products it has one everywhere.
    with FlopCounterMode(display=False) as counter, sdpa_kernel([SDPBackend.MATH]):
        model.eval()(inputs)
    return int(counter.get_total_flops()) // 2


def _frozen_copy(model: nn.Module) -> nn.Module:
    # The counter's hooks want a gradient function from every input that requires a gradient; a class token handed
    # from one module to the next without gradients has none.
    return copy.deepcopy(model).requires_grad_(False)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        # Module by module: some may have been frozen in eval mode while the rest trains.
        for module in training:
            module.training = True


def _device(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
