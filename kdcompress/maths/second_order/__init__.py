"""Convolution and batch normalisation whose second derivative costs what its formula costs.

PyTorch differentiates their backwards too, but dearly: that of batch normalisation becomes some thirty elementwise
passes over the activations, and that of a grouped convolution a loop over its groups. Here the gradient to the input is
an operation of its own, with its derivative written down.

Time of one student step (CE and gradient distance, batch 16 to 64 of 3x32x32) in units of its CE step; two-core shared
Xeon, one thread, torch 2.15, 2026-11-23, median of 7, side by side; by FLOPs 2 is the least:

| student                               | PyTorch's own | these |
|---------------------------------------|---------------|-------|
| ResNet-18 of one block, 16 to 128 wide| 4.12          | 2.94  |
| ResNet-18                             | 2.78          | 2.19  |
| ResNet-26                             | 3.54          | 2.44  |
| MobileNetV2 050                       | 4.41          | 2.36  |
| MobileNetV3 small 050                 | 3.75          | 2.72  |
"""

from kdcompress.maths.second_order.activations import ACTIVATIONS, Activation, activation
from kdcompress.maths.second_order.batch_norm import batch_norm
from kdcompress.maths.second_order.convolution import Geometry, convolution
from kdcompress.maths.second_order.layer_norm import layer_norm
from kdcompress.maths.second_order.stage import Stage

__all__ = ["ACTIVATIONS", "Activation", "Geometry", "Stage", "activation", "batch_norm", "convolution", "layer_norm"]
