"""Rounding a program to int8 after training, and the same function with gradients, to attack it by."""

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from kdcompress.errors import ExportError, UsageError
from kdcompress.export.programs import quietly

if TYPE_CHECKING:
    from torch.fx import Node


def quantised(program: ExportedProgram, calibration: Iterable[Tensor]) -> GraphModule:
    """The program with weights in int8, one scale an output channel, and activations in uint8, one scale a tensor.

    Ranges of activations are those of histograms over the calibration images; convolutions take BatchNorm into them
    first. By torchao, with its settings for x86: what onnxruntime and Inductor have integer kernels for is rounded,
    the rest stays float.

    Args:
        calibration: batches (B, C, H, W) of training images.

    Raises:
        UsageError: if torchao is not installed.
        ExportError: if nothing in the program was rounded.
    """
    try:
        with quietly():
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
            from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    except ImportError as error:
        raise UsageError("--int8 needs torchao: pip install 'kdcompress[export]'") from error
    with quietly(), torch.no_grad():
        how = x86.get_default_x86_inductor_quantization_config(is_qat=False)
        watched = prepare_pt2e(program.module(), x86.X86InductorQuantizer().set_global(how))
        for x in calibration:
            watched(x)
        rounded: GraphModule = convert_pt2e(watched)
    if not _rounds(rounded):
        raise ExportError("--int8: the network has no convolution or linear layer that could be rounded")
    _drop_unused(rounded)
    return rounded


def _drop_unused(program: GraphModule) -> None:
    """The float weights, which nothing reads any more and a file would still hold."""
    used = {str(node.target) for node in program.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*program.named_parameters(), *program.named_buffers()) if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(program.get_submodule(owner), attribute)


def straight_through(rounded: GraphModule) -> GraphModule:
    """The same function with gradients: rounding passes them on inside its range, and none outside.

    Source: Bengio, Leonard and Courville (2013), arXiv:1308.3432; as an attack on a network with steps in it, BPDA,
    Athalye, Carlini and Wagner (2018), arXiv:1802.00420.

    Guarantees:
        The outputs are those of `rounded`, bit by bit.
    """
    found = copy.deepcopy(rounded)
    for node in _rounds(found):
        x, scale, zero_point, low, high, _ = node.args
        with found.graph.inserting_before(node):
            passed = found.graph.call_function(torch.fake_quantize_per_tensor_affine, (x, scale, zero_point, low, high))
        for back in list(node.users):  # each is the way back to float; whoever uses the copy compares the two
            back.replace_all_uses_with(passed)
            found.graph.erase_node(back)
        found.graph.erase_node(node)
    found.recompile()
    return found


def rounded_operations(program: GraphModule) -> tuple[int, int]:
    """Convolutions, linear layers and matrix products that take rounded numbers, and how many there are."""
    found = [node for node in program.graph.nodes if node.target in _PRODUCTS]
    back = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    return sum(any(one.target is back for one in node.all_input_nodes) for node in found), len(found)


_PRODUCTS = {
    *(torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding),
    *(torch.ops.aten.linear.default, torch.ops.aten.matmul.default, torch.ops.aten.bmm.default),
    *(torch.ops.aten.addmm.default, torch.ops.aten.mm.default),
}


def _rounds(program: GraphModule) -> "list[Node]":
    """Where activations are rounded."""
    to_int = torch.ops.quantized_decomposed.quantize_per_tensor.default
    return [node for node in program.graph.nodes if node.target is to_int]
