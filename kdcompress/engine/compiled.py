"""The gradient term by the compiler: the exact step, both of its backwards included, traced once and compiled.

`torch.compile` refuses a double backward through `autograd.grad`. What it takes, `torch.func.grad`, knows nothing of
the second derivatives in `kdcompress.maths.second_order`: inside it such functions are silently differentiated wrongly
(cosine .86), and PyTorch's own make the compiled step slower than the eager one. So AOTAutograd traces the exact step.

The table is in `kdcompress.maths.second_order`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdcompress.engine.exact import Alignment, exact
from kdcompress.maths.gradients import logits_and_input_gradient
from kdcompress.maths.losses import gradient_distance

Step = Callable[..., tuple[Tensor, ...]]
SHAPES = 2


def compiled(student: nn.Module, p: float) -> Alignment:
    """Exact, for `student` alone; compiled by the first call, which takes minutes, for batches of that shape.

    Another shape, such as after a halving for want of memory, is compiled when it comes, up to `SHAPES`; what is beyond
    that, or fails then, goes the exact way.
    """
    names, buffers = [name for name, _ in student.named_parameters()], [name for name, _ in student.named_buffers()]
    otherwise = exact(p)
    known: dict[tuple[object, ...], Step | None] = {}

    def traced(x: Tensor, target: Tensor, g_t: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        # Cloned, since what BatchNorm writes must not be seen from outside the traced function.
        moved = [buffer.clone() for buffer in state[len(names) :]]
        given = dict(zip([*names, *buffers], [*state[: len(names)], *moved], strict=True))
        f, g_s = logits_and_input_gradient(_with(student, given), x, target, create_graph=True)
        return f, gradient_distance(g_s, g_t, p), *(buffer.detach() for buffer in moved)

    def align(student: nn.Module, x: Tensor, target: Tensor, g_t: Tensor) -> tuple[Tensor, Tensor]:
        shape = (x.shape, x.stride(), x.dtype, target.shape, g_t.dtype, torch.is_autocast_enabled(x.device.type))
        g = g_t if g_t.stride() == x.stride() else torch.empty_like(x, dtype=g_t.dtype).copy_(g_t)
        inputs = (x, target, g, *student.parameters(), *student.buffers())
        if shape not in known and len(known) < SHAPES:
            try:
                known[shape], outputs = _compiled_for(traced, inputs)
            except torch.OutOfMemoryError:  # says nothing of the compiler
                raise
            except Exception as error:  # of any kind, from any of its depths
                if not known:
                    raise RuntimeError(f"{type(error).__name__}: {error}") from error
                known[shape] = None
                return otherwise(student, x, target, g_t)
        elif (step := known.get(shape)) is not None:
            outputs = step(*inputs)
        else:
            return otherwise(student, x, target, g_t)
        f, distance, *moved = outputs
        with torch.no_grad():
            for buffer, value in zip(student.buffers(), moved, strict=True):
                buffer.copy_(value)
        return f, distance

    return align


def _with(student: nn.Module, state: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    def network(x: Tensor) -> Tensor:
        logits: Tensor = functional_call(student, state, (x,))
        return logits

    return network


def _compiled_for(traced: Step, inputs: Sequence[Tensor]) -> tuple[Step, tuple[Tensor, ...]]:
    """By AOTAutograd and Inductor, neither of which has a public name yet: imported here, so that all else works."""
    from torch._functorch.aot_autograd import aot_function
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Dropout draws what it would draw in eager mode, so that the two can be compared. The context is for the backward,
    # which must learn of the layouts that the compiled forward chose.
    with config.patch(fallback_random=True), tracing(TracingContext(FakeTensorMode())), _quiet():
        machine: Step = aot_function(
            traced,
            fw_compiler=inductor,
            bw_compiler=inductor,
            partition_fn=min_cut_rematerialization_partition,
            decompositions=select_decomp_table(),
        )
        return machine, machine(*inputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's remark, on machines with a CUDA toolkit, that there is no GPU."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def inductor(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Any:
    """Machine code for one graph."""
    from torch._inductor.compile_fx import compile_fx_inner

    return compile_fx_inner(gm, example_inputs)
