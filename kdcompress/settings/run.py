"""How a network is trained, whatever the loss."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdcompress.errors import UsageError
from kdcompress.settings.base import Device, Fraction, NonNegative, Positive, Settings

OPTIMIZERS: dict[str, dict[str, float | None]] = {
    "adamw": {"lr": 3e-3, "weight_decay": 0.01, "momentum": None},
    "sgd": {"lr": 0.1, "weight_decay": 5e-4, "momentum": 0.9},
}
"""What each optimizer is run with where nothing is asked for. SGD's are the usual ones of adversarial training on
CIFAR-10, as in Rice et al. (2020), arXiv:2002.11569; how much its weight decay matters: Pang et al. (2021),
arXiv:2010.00467. AdamW's are for short runs of small students."""


def _of_the_optimizer(name: str) -> Any:
    return Field(default_factory=lambda given: OPTIMIZERS[given.get("optimizer", "adamw")][name])


def _with_average(kind: str, value: float) -> Any:
    return Field(default_factory=lambda given: value if given.get("average") == kind else None)


class RunSettings(Settings):
    """How a network is trained, whatever the loss.

    schedule: see `kdcompress.training.schedules`.

    optimizer: PyTorch's AdamW, or SGD with Nesterov's momentum. `lr`, `weight_decay` and `momentum` are the optimizer's
    own where they are not given: see `OPTIMIZERS`.

    average: whose weights are validated beside the raw ones: `ema`, the exponential average with decay `ema`, or `swa`,
    the mean of the weights at the ends of the epochs from the share `swa_start` of the run on; see
    `kdcompress.training.averaging`. .75 is where Izmailov et al. (2018), arXiv:1803.05407, begin.

    augment: `auto` crops, and flips colour images; `cutout` and `idbh` do more, see `kdcompress.data.erasing` and
    `kdcompress.data.idbh`.

    noise_sigma: every network sees x + N(0, sigma^2), not clipped, in place of x or of uniform noise in the ball, so
    that randomized smoothing can certify it at that sigma.

    sync_batchnorm: where several processes share the batches, BatchNorm takes its statistics over the whole batch and
    not over each process's part of it. Two messages a layer and pass.

    checkpoint_every: minutes between checkpoints, the most that a killed run loses; 0 leaves only that of a run that is
    stopped by a signal. It decides nothing else.

    precision: float32, since bf16 autocast bends the gradient of the gradient term, and gains nothing on a CPU. One
    step, batch 64 of 3x32x32 (`tests/benchmark/precision.py`; one thread of a shared two-core Xeon with AVX512-BF16,
    torch 2.15, 2026-11-23, median of 7; a GPU's row is open):

    | student               | bf16's time over float32's | cosine of the weights' gradient to float64's |
    |-----------------------|----------------------------|----------------------------------------------|
    | ResNet-18             | 1.11                       | .9926                                        |
    | MobileNetV3 small 050 | 1.43                       | .6620                                        |
    | ConvNeXt atto         | 1.38                       | 1.0000                                       |
    | ViT, 4 blocks         | 1.47                       | .9999                                        |
    """

    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=2)] = 128
    schedule: Literal["one-cycle", "cosine", "step"] = "one-cycle"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = _of_the_optimizer("lr")
    weight_decay: NonNegative = _of_the_optimizer("weight_decay")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = _of_the_optimizer("momentum")
    average: Literal["ema", "swa", "none"] = "ema"
    ema: Annotated[float, Field(ge=0, lt=1)] | None = _with_average("ema", 0.99)
    swa_start: Fraction | None = _with_average("swa", 0.75)
    augment: Literal["auto", "none", "crop", "crop-flip", "cutout", "idbh"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: Device = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    noise_sigma: NonNegative = 0.0
    sync_batchnorm: bool = False
    checkpoint_every: NonNegative = 10.0

    @model_validator(mode="before")
    @classmethod
    def _none_is_not_given(cls, given: Any) -> Any:
        """So that an option left out has the default, which may depend on others."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Self:
        for option, value, of, found in (
            ("momentum", self.momentum, "--optimizer sgd", self.optimizer),
            ("ema", self.ema, "--average ema", self.average),
            ("swa-start", self.swa_start, "--average swa", self.average),
        ):
            if value is not None and not of.endswith(found):
                raise UsageError(f"--{option} is for {of}, got {found}; leave it out")
        return self
