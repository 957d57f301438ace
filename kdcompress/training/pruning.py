"""A trained student with channels taken from it, to be taught again.

Channels are taken by torch-pruning, whole groups of them that hang together through shortcuts, depthwise layers and
attention heads: every layer loses the same share, those first whose weights are smallest.

How they are chosen hardly matters, and what pruning saves is epochs (`examples/benchmarks/pruning.py`; digits, three
seeds, held-out PGD-10 accuracy after 15 epochs of teaching again, .638 before; 2026-11-28):

| taken | smallest, every layer alike | over all layers | by chance | fresh weights | fresh, 60 epochs |
|-------|-----------------------------|-----------------|-----------|---------------|------------------|
| 1/2   | .632                        | .633            | .636      | .565          | .635             |
| 3/4   | .606                        | .611            | .572      | .515          | .614             |
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdcompress.data import Data
from kdcompress.errors import CheckpointError, UsageError
from kdcompress.models.checkpoints import read_checkpoint
from kdcompress.models.cost import macs, parameter_count
from kdcompress.models.normalised import NormalisedModel
from kdcompress.models.record import ModelRecord
from kdcompress.models.shrinking import same_function, shrink, shrunk_from
from kdcompress.models.students import build_student
from kdcompress.models.teachers import LoadedModel, load_model
from kdcompress.models.within import SHRUNK, within
from kdcompress.settings import PruneSettings
from kdcompress.training.run_record import PrunedRecord

NEAR = 0.02
"""Of the multiply-accumulates: nearer than that to what was asked for is not looked."""
TRIES = 12


def pruned_student(settings: PruneSettings, data: Data) -> tuple[NormalisedModel, ModelRecord, PrunedRecord]:
    """The network in `settings.student`, with the share `settings.ratio` of its multiply-accumulates taken.

    Guarantees:
        A file of the network and its record is rebuilt to the same function, bit by bit.

    Raises:
        UsageError: if torch-pruning is missing, or cannot take channels from this architecture.
        CheckpointError: if kdcompress did not write the file, or it does not fit the data.
    """
    with torch.random.fork_rng(devices=[]):  # fresh networks draw weights, which are not kept
        return _pruned(settings, data)


def _pruned(settings: PruneSettings, data: Data) -> tuple[NormalisedModel, ModelRecord, PrunedRecord]:
    whole = _loaded(settings.student, data)
    size = whole.record.input_size
    before = macs(whole.model, size)
    network = _as_asked(whole, (1 - settings.ratio) * before)
    first = build_student(whole.record.model_copy(update={"shrunk": None}))
    if parameter_count(network) * SHRUNK < parameter_count(first):
        raise UsageError(
            f"--ratio {settings.ratio:g} leaves less than a {SHRUNK}th of the weights of {whole.record.arch} as it is "
            "before any pruning; take less"
        )
    record = whole.record.model_copy(update={"shrunk": shrunk_from(build_student(whole.record), network.network)})
    _refuse_unlike(network, record)
    network.train().requires_grad_(True)
    taken = PrunedRecord(
        path=str(settings.student),
        sha256=whole.sha256,
        channels=1 - _channels(network) / _channels(whole.model),
        params_before=parameter_count(whole.model),
        macs_before=before,
    )
    return network, record, taken


def _loaded(path: Path, data: Data) -> LoadedModel:
    checkpoint = read_checkpoint(path)
    if checkpoint.record is None or checkpoint.record.source != "timm":
        raise CheckpointError(f"{path}: expected a student that kdcompress trained, whose file says how it is built")
    return load_model(path, classes=data.classes, input_size=data.input_size, option="", checkpoint=checkpoint)


def _channels(network: nn.Module) -> int:
    """Of all convolutions and linear layers together."""
    return sum(len(layer.weight) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def _as_asked(whole: LoadedModel, target: float) -> NormalisedModel:
    """The network without the least share of channels that leaves at most `target` multiply-accumulates."""
    size = whole.record.input_size
    low, high = 0.0, 1.0
    least = macs(whole.model, size)
    best: NormalisedModel | None = None
    refused: UsageError | None = None
    for _ in range(TRIES):
        share = (low + high) / 2
        try:
            network = without_channels(whole, share)
        except UsageError as error:  # some networks lose a few channels and cannot lose more
            high, refused = share, error
            continue
        left = macs(network, size)
        least = min(least, left)
        if left > target:
            low = share
            continue
        high, best = share, network
        if left > (1 - NEAR) * target:
            break
    if best is None and refused is not None:
        raise refused
    if best is None:
        most = 1 - least / macs(whole.model, size)
        raise UsageError(
            f"--ratio: of {whole.record.arch} no more than {most:.2f} of the multiply-accumulates can be taken by "
            "whole channels; take less"
        )
    return best


def without_channels(whole: LoadedModel, share: float, **how: Any) -> NormalisedModel:
    """A copy of the network without the share of each layer's channels whose weights are smallest, in eval mode.

    The classifier's outputs stay.

    Args:
        how: other arguments of torch-pruning's pruner.

    Raises:
        UsageError: if torch-pruning is missing, or cannot follow this architecture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning as tp
    except ImportError as error:
        raise UsageError("prune needs torch-pruning: pip install 'kdcompress[prune]'") from error
    model = copy.deepcopy(whole.model).requires_grad_(True)  # it follows gradients to see what hangs together
    assert isinstance(model, NormalisedModel)
    network = model.network
    attention: list[Any] = [
        module for module in network.modules() if hasattr(module, "qkv") and hasattr(module, "num_heads")
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = tp.pruner.BasePruner(
                network,
                torch.zeros(1, *whole.record.input_size),
                pruning_ratio=share,
                ignored_layers=_classifiers(network),
                num_heads={module.qkv: module.num_heads for module in attention},
                **{"importance": tp.importance.GroupMagnitudeImportance(p=2)} | how,
            )
            pruner.step()
            for module in attention:  # timm's, which know their width by these
                module.num_heads = pruner.num_heads[module.qkv]
                module.head_dim = module.qkv.out_features // (3 * module.num_heads)
                module.attn_dim = module.num_heads * module.head_dim
            with torch.no_grad():
                model(torch.zeros(2, *whole.record.input_size))
    except Exception as error:  # the package's errors, and those of a network whose shapes no longer fit
        told = " ".join(str(error).split())[:200]
        raise UsageError(f"{whole.record.arch} cannot be pruned by torch-pruning: {told}") from error
    return model.requires_grad_(False).eval()


def _classifiers(network: nn.Module) -> list[nn.Module]:
    found = network.get_classifier()  # type: ignore[operator]  # every timm network has it
    return list(found) if isinstance(found, tuple | list | nn.ModuleList) else [found]


def _refuse_unlike(network: NormalisedModel, record: ModelRecord) -> None:
    """What cannot be rebuilt must not be trained for hours."""
    bare = record.model_copy(update={"shrunk": None})
    assert record.shrunk is not None
    try:
        with within(network.network.state_dict(), shrunk=True):  # as whoever reads the file will
            again = build_student(bare).eval()
        shrink(again, record.shrunk)
        again.load_state_dict(network.network.state_dict())
        same = same_function(again, network.network, torch.rand(2, *record.input_size))
    except (UsageError, RuntimeError) as error:
        raise UsageError(f"{record.arch} cannot be pruned: its file would not rebuild it ({error})") from error
    if not same:
        raise UsageError(f"{record.arch} cannot be pruned: its file would rebuild another function")
