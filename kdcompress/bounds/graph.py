"""A network as a short list of affine steps and ReLUs, read from its torch.fx graph.

`torch.export` records what one forward does, in tensor operations, whoever wrote it and however: module or function, in
place or not, through hooks or Python branches on shapes. What depends on the weights alone is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kdcompress.bounds.folding import folded
from kdcompress.bounds.operations import OPERATIONS, Builder, NoStepError
from kdcompress.bounds.steps import Shape, Step
from kdcompress.errors import UnsupportedLayerError

BATCH = 5
"""Images of the trace: more than one, so that what mixes images is seen."""


@dataclass(frozen=True, eq=False)
class Network:
    """v_0 is the input, v_i the value of step i, the last one the logits.

    Attributes:
        shape: of the input, (C, H, W).
        steps: each takes values before its own.
    """

    shape: Shape
    steps: tuple[Step, ...]

    def shape_of(self, number: int) -> Shape:
        """The shape of value `number`."""
        return self.shape if number == 0 else self.steps[number - 1].shape

    def values(self, x: Tensor) -> list[Tensor]:
        """v_0, ..., v_n at x (B, C, H, W)."""
        found = [x]
        for step in self.steps:
            found.append(step.value(*(found[i] for i in step.inputs)))
        return found

    def to(self, dtype: torch.dtype) -> "Network":
        """The same network with weights of another type."""
        return Network(self.shape, tuple(step.to(dtype) for step in self.steps))


def trace(model: nn.Module, input_size: Shape) -> Network:
    """The steps of `model`, weights in float64.

    Convolution, linear, BatchNorm in eval mode, ReLU, average pooling, flatten, addition, and what moves, averages or
    scales entries by constants; dropout and identity vanish in eval mode. BatchNorm is folded into the layer before.

    Guarantees:
        Answers as the model does on random images, to float32's rounding, or is refused.

    Args:
        model: eval mode, (B, C, H, W) -> (B, K).
        input_size: (C, H, W).

    Raises:
        UnsupportedLayerError: `not supported: <layer>`, for the first layer that is none of these.

    >>> network = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), (1, 2, 2))
    >>> [type(step).__name__ for step in network.steps]
    ['Reshape', 'Dense', 'Relu', 'Dense']
    """
    parameter = next(model.parameters(), torch.empty(0))
    x = torch.rand(BATCH, *input_size, generator=torch.Generator().manual_seed(0))
    x = x.to(parameter.device, parameter.dtype if parameter.is_floating_point() else torch.float32)
    program = _exported(model, x)
    builder = Builder(BATCH, [tuple(input_size)])
    env: dict[Any, Any] = _constants(program)
    users = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    answers: list[Any] = []
    program.graph.eliminate_dead_code()  # an in-place operation on a part leaves a copy of the whole behind
    for node in program.graph.nodes:
        if node.op == "placeholder":
            env[node] = builder.value(0) if node.name in users else env[node.name]
        elif node.op == "output":  # buffers that the forward writes stand there too
            named = {one.name: env[one] for one in node.args[0] if isinstance(one, torch.fx.Node)}
            answers = [named.get(name) for name in program.graph_signature.user_outputs]
        else:
            env[node] = _read(node, env, builder)
    output = builder.number(answers[0]) if len(answers) == 1 else None
    if output is None or output == 0 or len(builder.shapes[output]) != 1:
        raise _unlike_logits(model)
    network = Network(tuple(input_size), folded(builder.steps, output))
    _refuse_other_answers(network, model, x)
    return network


def _exported(model: nn.Module, x: Tensor) -> ExportedProgram:
    try:
        with torch.no_grad():
            program: ExportedProgram = torch.export.export(model, (x,), strict=False)
            if all(node.target in OPERATIONS for node in program.graph.nodes if node.op == "call_function"):
                return program
            # Slow. An empty table decomposes nothing; what is left to do is to replace in-place operations.
            functional: ExportedProgram = program.run_decompositions({})
            return functional
    except Exception as error:  # whatever a network may raise that looks at values, or the tracer
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedLayerError(
            f"not supported: {type(model).__name__}: torch.export cannot follow its forward: {first}"
        ) from error


def _constants(program: ExportedProgram) -> dict[str, Any]:
    """Weights, buffers and other tensors of the module, by the name of their placeholder."""
    own = {**program.constants, **program.state_dict}
    return {
        spec.arg.name: own[spec.target].detach() for spec in program.graph_signature.input_specs if spec.target in own
    }


def _read(node: torch.fx.Node, env: dict[Any, Any], builder: Builder) -> Any:
    """The node's value: a number among the network's values, or what it is where it depends on no input."""
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), env.__getitem__)
    if not builder.depends((args, kwargs)):
        return cast(Any, node.target)(*args, **kwargs)
    try:
        if node.target not in OPERATIONS:
            raise NoStepError(str(getattr(node.target, "__name__", node.target)).partition(".")[0])
        return OPERATIONS[node.target](builder, *args, **kwargs)
    except NoStepError as error:
        raise UnsupportedLayerError(f"not supported: {_layer(node)}: {error}") from None


def _layer(node: torch.fx.Node) -> str:
    """`layer1.0.act (GELU)`: the innermost module that the node belongs to."""
    stack: Sequence[tuple[str, Any]] = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", "function")
    name = kind if isinstance(kind, str) else kind.__name__
    return f"{path or 'network'} ({name.rpartition('.')[2]})"


def _refuse_other_answers(network: Network, model: nn.Module, x: Tensor) -> None:
    """The trace must be the network: with other images, and another number of them."""
    other = x.flip(0)[:2].flip(-1)
    with torch.no_grad():
        try:
            answer = model(other)
        except Exception as error:  # whatever a network may raise that was written for one number of images
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UnsupportedLayerError(
                f"not supported: {type(model).__name__}: "
                f"it answers for {BATCH} images and not for {len(other)}: {first}"
            ) from error
        found = network.values(other.double())[-1]
    if not isinstance(answer, Tensor):
        raise _unlike_logits(model)
    expected = answer.double()
    atol = 1e-4 * float(expected.abs().amax().clamp(min=1))
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4, atol=atol):
        raise UnsupportedLayerError(
            f"not supported: {type(model).__name__}: what it computes depends on more than the traced operations"
        )


def _unlike_logits(model: nn.Module) -> UnsupportedLayerError:
    return UnsupportedLayerError(f"not supported: {type(model).__name__}: its output must be logits (B, K)")
