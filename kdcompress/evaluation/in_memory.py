"""Networks and images that are in memory already, judged as those in files are."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdcompress.certification import Certification
from kdcompress.data import Batches, split_from_arrays
from kdcompress.errors import DataError
from kdcompress.evaluation.certify import certify_loaded
from kdcompress.evaluation.evaluate import evaluate_loaded
from kdcompress.evaluation.loading import Loaded, notes_of
from kdcompress.gates import refuse_impossible, refuse_uncertifiable
from kdcompress.models.in_memory import NOWHERE, loaded_from
from kdcompress.models.teachers import LoadedModel
from kdcompress.processes import here
from kdcompress.progress import Listener
from kdcompress.report import DataRecord, Report
from kdcompress.settings import (
    KINDS,
    CertifyGates,
    CertifySettings,
    CleverSettings,
    DataSettings,
    EvaluateSettings,
    EvaluationSettings,
    GateSettings,
    Kind,
    ModelFile,
    ThreatSettings,
)
from kdcompress.threat import Norm

Network = nn.Module | LoadedModel
Images = tuple[Any, Any] | Batches


def evaluate_model(
    model: Network,
    data: Images,
    eps: float | str | Sequence[float],
    *,
    norm: Norm = "Linf",
    teacher: Network | None = None,
    surrogate: Network | None = None,
    classes: Sequence[str] | None = None,
    evaluation: EvaluationSettings | None = None,
    gates: GateSettings | None = None,
    listener: Listener = Listener(),
) -> Report:
    """`evaluate` for a network and images in memory: arrays, or a loader.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
    >>> with torch.no_grad():  # bright images are of class 1, dark ones of class 0
    ...     _ = network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 9))
    ...     _ = network[1].bias.copy_(torch.tensor([4.5, -4.5]))
    >>> brightness = torch.tensor([0.1, 0.45, 0.55, 0.9])
    >>> data = brightness[:, None, None, None].expand(4, 1, 3, 3), [0, 0, 1, 1]
    >>> how = EvaluationSettings(attack="pgd-10", certify_images=0, masking=False)
    >>> report = evaluate_model(network, data, eps=0.1, evaluation=how)
    >>> figures = report.models["student"]
    >>> figures.clean_accuracy.value, figures.robust_accuracy.value  # two are within .1 of the border
    (1.0, 0.5)

    Guarantees:
        - the network is left as it is: a copy is judged, in eval mode;
        - the report is the one that files of the same network and images give, but for names, file size and time.

    Args:
        model: inputs (B, C, H, W) in [0,1] -> logits (B, K), with its normalisation inside; a torch module, or what
            `load_model` gives. In the report it is `student`.
        data: (inputs, labels), tensors or NumPy arrays, (N, C, H, W), uint8 or floats in [0,1], and integers (N,); or
            an iterable of such batches, as a DataLoader is.
        eps: radius of the ball in pixels of [0,1], also as a text such as 8/255; of several the first counts for gates
            and comparison.
        teacher: compared with on the same images.
        surrogate: a network with gradients, for a model that has none.
        classes: their names, in the order of the logits; their numbers where they have none.
        evaluation: which attack, how many images, ...; as the command's, but that nothing is kept on the disk unless a
            `keep_dir` is named.
        gates: judged into `report.gates`.

    Raises:
        KdcompressError: if the data, a network or a setting is wrong; before anything is attacked.
    """
    started = time.perf_counter()
    radii = _radii(eps, norm)
    networks = {"student": model, "teacher": teacher, "surrogate": surrogate}
    settings = EvaluateSettings.of(
        **{name: _named(network) for name, network in networks.items()},
        data=DataSettings(data=NOWHERE),
        threat=radii[0],
        more_eps=tuple(ball.eps for ball in radii[1:]),
        evaluation=evaluation or EvaluationSettings(),
        gates=gates or GateSettings(),
    )
    refuse_impossible(settings)
    listener = listener if here().leads else Listener()
    loaded = _loaded(networks, data, classes, settings.evaluation, listener)
    return evaluate_loaded(settings, loaded, started, listener)[0]


def certify_model(
    model: Network,
    data: Images,
    eps: float | str | Sequence[float],
    *,
    norm: Norm = "Linf",
    teacher: Network | None = None,
    classes: Sequence[str] | None = None,
    kinds: Sequence[Kind] = KINDS,
    evaluation: EvaluationSettings | None = None,
    gates: CertifyGates | None = None,
    listener: Listener = Listener(),
    **more: Any,
) -> Certification:
    """`certify` for a network and images in memory: arrays, or a loader.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
    >>> with torch.no_grad():  # bright images are of class 1, dark ones of class 0
    ...     _ = network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 9))
    ...     _ = network[1].bias.copy_(torch.tensor([4.5, -4.5]))
    >>> data = torch.tensor([0.1, 0.45])[:, None, None, None].expand(2, 1, 3, 3), [0, 0]
    >>> found = certify_model(network, data, eps=0.1, kinds=["bounds"])
    >>> found.models["student"].bounds.at[0].value  # proved for one of the two: the other is .05 from the border
    0.5

    Args and guarantees as of `evaluate_model`.

    Args:
        kinds: of radii; see `CertifySettings`.
        more: other fields of `CertifySettings`, such as `audit_images` or `largest`.

    Raises:
        KdcompressError: if the data, a network or a setting is wrong; before anything is measured.
    """
    started = time.perf_counter()
    radii = _radii(eps, norm)
    networks = {"student": model, "teacher": teacher}
    settings = CertifySettings.of(
        **{name: _named(network) for name, network in networks.items()},
        data=DataSettings(data=NOWHERE),
        threat=radii[0],
        more_eps=tuple(ball.eps for ball in radii[1:]),
        kinds=tuple(kinds),
        evaluation=evaluation or EvaluationSettings(attack="none"),
        gates=gates or CertifyGates(),
        **{"clever": CleverSettings.for_radii([ball.eps for ball in radii])} | more,
    )
    refuse_uncertifiable(settings)
    listener = listener if here().leads else Listener()
    loaded = _loaded(networks, data, classes, settings.evaluation, listener)
    return certify_loaded(settings, loaded, started, listener)[0]


def _radii(eps: float | str | Sequence[float], norm: Norm) -> list[ThreatSettings]:
    several = [eps] if isinstance(eps, int | float | str) else list(eps)
    if not several:
        raise DataError("eps must be a radius or several, got none")
    return [ThreatSettings.of(norm=norm, eps=one) for one in several]


def _named(network: Network | None) -> ModelFile | None:
    """What the settings of a report say of it."""
    if network is None:
        return None
    return ModelFile(path=network.path if isinstance(network, LoadedModel) else Path(NOWHERE) / type(network).__name__)


def _loaded(
    networks: dict[str, Network | None],
    data: Images,
    classes: Sequence[str] | None,
    evaluation: EvaluationSettings,
    listener: Listener,
) -> Loaded:
    split = split_from_arrays(data)
    inputs, _ = next(split.batches(1))
    channels, height, width = inputs.shape[1:]
    size, least = (channels, height, width), int(split.labels.max()) + 1
    models = {
        name: network if isinstance(network, LoadedModel) else loaded_from(network, classes or least, size)
        for name, network in networks.items()
        if network is not None
    }
    names = tuple(classes or next(iter(models.values())).record.classes)
    for name, model in models.items():
        if (found := len(model.record.classes)) != len(names) or least > found:
            raise DataError(f"the {name} tells {found} classes apart, the data has {max(least, len(names))}")
    images = split.shuffled(evaluation.images, evaluation.seed)
    record = DataRecord(name=NOWHERE, images=len(images), of=len(split), seed=evaluation.seed, classes=names, sha256="")
    notes = notes_of(models)
    for note in notes:
        listener.note(note)
    return Loaded(models, images, size, record, notes)
