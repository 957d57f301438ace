"""Which images, which networks, which ball."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdcompress.errors import UsageError
from kdcompress.settings.base import Eps, Settings
from kdcompress.threat import Norm, ThreatModel

Statistics = tuple[float, ...] | Literal["none"] | None
"""Normalisation as given: one number a channel, `none` for no normalisation, None for "read it from the file"."""


SCHEMES = ("torch", "hfds", "hfids", "tfds", "wds")


def is_scheme(spec: str) -> bool:
    """Whether `spec` has the form of a timm scheme.

    >>> is_scheme("torch/cifar10"), is_scheme("pictures/torch"), is_scheme("digits")
    (True, False, False)
    """
    prefix, slash, _ = spec.partition("/")
    return bool(slash) and prefix.lower() in SCHEMES


class DataSettings(Settings):
    """Which images, and how they are read.

    skip_corrupt: training images that cannot be read are left out and counted. Images of the test split never are.
    """

    data: str
    data_dir: Path | None = None
    image_size: Annotated[int, Field(ge=1)] | None = None
    train_images: Annotated[int, Field(ge=1)] | None = None
    skip_corrupt: bool = False


class ModelFile(Settings):
    """A network in a file, and what its file may not say."""

    path: Path
    arch: str | None = None
    args: dict[str, Any] = {}
    mean: Statistics = None
    std: Statistics = None


class ThreatSettings(Settings):
    """The ball the adversary may choose from."""

    norm: Norm = "Linf"
    eps: Eps

    @model_validator(mode="after")
    def _ball_exists(self) -> Self:
        _ = self.threat
        return self

    @property
    def threat(self) -> ThreatModel:
        """The same, as the threat model."""
        return ThreatModel(self.norm, self.eps)


def refuse_norm(threat: ThreatSettings) -> None:
    """Training under L1 was never measured: its weights and steps would be guesses.

    Raises:
        UsageError: if the norm is L1.
    """
    if threat.norm == "L1":
        raise UsageError("--norm L1 is for evaluate; train under Linf or L2")
