"""A network as a program of tensor operations, normalisation inside, for any number of images."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from kdcompress.errors import ExportError, UsageError

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
Run = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0,1] -> logits (B, K)."""


class Program(nn.Module):
    """A function of images as a module without state: an exported program, or a runtime with a file."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = [run]  # in a list, since an exported program refuses to be put into eval mode

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        return self._run[0](x)

    def __deepcopy__(self, memo: object) -> "Program":
        return self  # whoever copies a network to change it finds nothing to change here


def program_of(network: nn.Module | GraphModule, input_size: tuple[int, int, int]) -> ExportedProgram:
    """Trace `network` on two images of (C, H, W); the program takes any number.

    Raises:
        ExportError: if its code cannot be traced, as where it branches on what it sees.
    """
    x = torch.zeros(2, *input_size)
    try:
        with quietly():
            return torch.export.export(network, (x,), dynamic_shapes=({0: Dim.DYNAMIC},))
    except Exception as error:  # the tracer's errors are of many kinds
        raise ExportError(f"the network cannot be traced by torch.export: {_first_line(error)}") from error


def to_bytes(program: ExportedProgram) -> bytes:
    """What `torch.export.load` reads."""
    stream = io.BytesIO()
    with quietly():
        torch.export.save(program, stream)
    return stream.getvalue()


def torch_runtime(content: bytes) -> Program:
    """The program in the bytes of a .pt2 file."""
    with quietly():
        module = torch.export.load(io.BytesIO(content)).module()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():  # as a runtime answers: without gradients, on the CPU
            logits: Tensor = module(x.detach().float().cpu())
        return logits.to(x.device)

    return Program(run)


def to_onnx(program: ExportedProgram, opset: int, metadata: dict[str, str]) -> bytes:
    """An ONNX model in one piece.

    Args:
        metadata: key to text, kept in the file.

    Raises:
        UsageError: if the packages that it takes are not installed.
        ExportError: if the program has an operation that this opset has not, or the file would pass ONNX's 2 GiB.
    """
    _needs("onnx", "onnxscript", "onnxruntime")
    try:
        with quietly():
            written = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: BATCH},),
                verbose=False,
            )
            assert written is not None  # it is with dynamo
            proto = written.model_proto
            for key, value in metadata.items():
                proto.metadata_props.add(key=key, value=value)
            content: bytes = proto.SerializeToString()
    except Exception as error:  # the exporter's errors are of many kinds, and its messages pages long
        raise ExportError(f"the network cannot be written as ONNX, opset {opset}: {_first_line(error)}") from error
    return content


def onnx_runtime(content: bytes, *, literal: bool = False) -> Program:
    """The model in the bytes of an .onnx file, run by onnxruntime on the CPU, on as many threads as torch takes.

    Args:
        literal: as it is written, without the runtime's own rewriting and fused kernels.
    """
    _needs("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if literal else levels.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: x.detach().float().cpu().numpy()})
        return torch.from_numpy(logits).to(x.device)

    return Program(run)


def _needs(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UsageError(f"this needs {', '.join(missing)}: pip install 'kdcompress[export]'")


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of tracers and writers, which are about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
