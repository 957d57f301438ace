"""What an export gave: what was written, how far its answers lie from the network's, and what int8 cost."""

from typing import Any, Literal

from kdcompress.report import Gate, ModelReport, Paired, Result

FileFormat = Literal["onnx", "torch-export"]


class Agreement(Result):
    """The written file's logits beside those of the network that was meant, on the same images.

    Attributes:
        on: `real` images of the test split, or `random` ones, uniform in [0,1].
        largest, mean: of the absolute differences of logits.
        logit: the largest absolute logit, for scale.
        labels_differ: images of which the two see another class.
        n: images.
    """

    on: Literal["real", "random"]
    largest: float
    mean: float
    logit: float
    labels_differ: int
    n: int


class Quantised(Result):
    """A network rounded to int8, beside its float parent.

    Attributes:
        calibration_images: training images that the ranges were read from.
        rounded: of how many convolutions, linear layers and matrix products the inputs are rounded, and of how many.
        rounding: what rounding does to the float parent's logits, before any file or runtime.
        clean, robust: image by image, the float parent in the place of `teacher`; `robust` is None without an attack.
        float, int8: what was measured of each; latencies are of both files under one runtime.
    """

    calibration_images: int
    rounding: Agreement
    rounded: tuple[int, int]
    float: ModelReport
    int8: ModelReport
    clean: Paired
    robust: Paired | None


class Export(Result):
    """A file that was written and checked.

    Attributes:
        source, source_sha256: the model file that it was made from.
        opset: ONNX's; None for torch-export.
        input, output: names and shapes; `batch` may be any number.
        mean, std: the normalisation inside the file.
        agreements: the file, as its runtime runs it, beside the network; of int8 beside the rounded network.
        tolerance: the largest difference that was allowed on any image; None for int8, see `kdcompress.export.checks`.
    """

    schema_version: Literal["1.0"] = "1.0"
    source: str
    source_sha256: str
    arch: str
    format: FileFormat
    file: str
    file_bytes: int
    sha256: str
    opset: int | None
    input: str
    output: str
    classes: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    agreements: tuple[Agreement, ...]
    tolerance: float | None
    int8: Quantised | None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...]
    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: float

    @property
    def gates_met(self) -> bool:
        """Whether nothing that was asked for was missed."""
        return all(gate.met for gate in self.gates)
