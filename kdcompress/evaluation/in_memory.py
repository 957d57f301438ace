"""Networks and images that are in memory already, judged as those in files are."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdcompress.certification import Certification
from kdcompress.data import Batches, Split, split_from_arrays
from kdcompress.errors import DataError, UsageError
from kdcompress.evaluation.certify import certify_loaded
from kdcompress.evaluation.evaluate import evaluate_loaded
from kdcompress.evaluation.loading import Loaded, notes_of
from kdcompress.gates import refuse_impossible, refuse_uncertifiable
from kdcompress.models.in_memory import loaded_from
from kdcompress.models.teachers import LoadedModel
from kdcompress.processes import here
from kdcompress.progress import Listener
from kdcompress.report import IN_MEMORY, DataRecord, Report
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
    ids: Sequence[str] | None = None,
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
        - networks are left as they are: copies are judged, in eval mode;
        - with the `ids` of a folder's images the report is the one that files of the same network and images give, but
          for the network's name, hash, size and time. `images=N` takes the first N of a shuffle by `ids`, and lists
          as long as the images (verdicts, radii) are in the order of that shuffle.

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
        ids: a name for each image, by which reports are compared image by image; their numbers where they have none.
        evaluation: which attack, how many images, ...; as the command's, but that nothing is kept on the disk: what
            makes a network in memory answer as it does cannot be told from its weights.
        gates: judged into `report.gates`.

    Raises:
        KdcompressError: if the data, a network or a setting is wrong; before anything is attacked.
    """
    started = time.perf_counter()
    radii = _radii(eps, norm)
    networks = {"student": model, "teacher": teacher, "surrogate": surrogate}
    settings = EvaluateSettings.of(
        **{name: _named(network) for name, network in networks.items()},
        data=DataSettings(data=IN_MEMORY),
        threat=radii[0],
        more_eps=tuple(ball.eps for ball in radii[1:]),
        evaluation=evaluation or EvaluationSettings(),
        gates=gates or GateSettings(),
    )
    refuse_impossible(settings)
    listener = listener if here().leads else Listener()
    loaded = _loaded(networks, split_from_arrays(data, ids), classes, settings.evaluation, listener)
    return evaluate_loaded(settings, loaded, started, listener)[0]


def certify_model(
    model: Network,
    data: Images,
    eps: float | str | Sequence[float],
    *,
    norm: Norm = "Linf",
    teacher: Network | None = None,
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
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
        data=DataSettings(data=IN_MEMORY),
        threat=radii[0],
        more_eps=tuple(ball.eps for ball in radii[1:]),
        kinds=tuple(kinds),
        evaluation=evaluation or EvaluationSettings(attack="none"),
        gates=gates or CertifyGates(),
        **{"clever": CleverSettings.for_radii([ball.eps for ball in radii], radii[0].norm)} | more,
    )
    refuse_uncertifiable(settings)
    listener = listener if here().leads else Listener()
    loaded = _loaded(networks, split_from_arrays(data, ids), classes, settings.evaluation, listener)
    return certify_loaded(settings, loaded, started, listener)[0]


def _radii(eps: float | str | Sequence[float], norm: Norm) -> list[ThreatSettings]:
    several = list(eps) if isinstance(eps, Sequence) and not isinstance(eps, str) else [eps]
    if not several:
        raise DataError("eps must be a radius or several, got none")
    return [ThreatSettings.of(norm=norm, eps=one if isinstance(one, str) else float(one)) for one in several]


def _named(network: Network | None) -> ModelFile | None:
    """What the settings of a report say of it."""
    if network is None:
        return None
    return ModelFile(
        path=network.path if isinstance(network, LoadedModel) else Path(IN_MEMORY) / type(network).__name__
    )


def _named_by_file(networks: Mapping[str, Network | None]) -> tuple[str, ...] | None:
    """The classes of the first network whose file names them, other than by numbers."""
    for network in networks.values():
        if isinstance(network, LoadedModel):
            names = network.record.classes
            if names != tuple(map(str, range(len(names)))):
                return names
    return None


def _loaded(
    networks: dict[str, Network | None],
    split: Split,
    classes: Sequence[str] | None,
    evaluation: EvaluationSettings,
    listener: Listener,
) -> Loaded:
    if evaluation.keep_dir is not None:
        raise UsageError(
            "keep_dir is for networks in files: what makes one in memory answer as it does cannot be told from its "
            "weights, so that verdicts of another could be taken for its own"
        )
    inputs, _ = next(split.batches(1))
    channels, height, width = inputs.shape[1:]
    size, least = (channels, height, width), int(split.labels.max()) + 1
    wanted = _named_by_file(networks) or least if classes is None else tuple(map(str, classes))
    if not isinstance(wanted, int) and (len(set(wanted)) != len(wanted) or len(wanted) < least):
        raise DataError(f"classes must be a different name for each of the {least} classes at least, got {wanted}")
    models = {name: loaded_from(network, wanted, size) for name, network in networks.items() if network is not None}
    names = next(iter(models.values())).record.classes
    for name, model in models.items():
        if (found := model.record.classes) != names:
            raise DataError(
                f"the {name} tells {len(found)} classes apart ({', '.join(found[:3])}, ...), the student {len(names)} "
                f"({', '.join(names[:3])}, ...): both must be of the same classes in the same order"
            )
    images = split.shuffled(evaluation.images, evaluation.seed)
    record = DataRecord(
        name=IN_MEMORY, images=len(images), of=len(split), seed=evaluation.seed, classes=names, sha256=""
    )
    notes = notes_of(models)
    for note in notes:
        listener.note(note)
    return Loaded(models, images, size, record, notes)
