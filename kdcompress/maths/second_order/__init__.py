"""Layers whose second derivative costs what its formula costs: one kind a file.

PyTorch differentiates the backward of these layers too, but dearly: that of a normalisation becomes some thirty
elementwise passes over the activations, that of a grouped convolution a loop over its groups, that of SiLU or GELU a
dozen passes. Here the gradient to the input is an operation of its own, with its derivative written down.

Time of a student's step (CE and gradient distance, batch 16 to 64 of 3x32x32) in units of its CE step; by FLOPs 2 is
the least. Two-core shared Xeon, one thread, torch 2.15, contiguous layout, 2026-11-23, median of 7, side by side:

| student                                | PyTorch's own | these |
|----------------------------------------|---------------|-------|
| ResNet-18 of one block, 16 to 128 wide | 3.94          | 2.73  |
| ResNet-18                              | 2.78          | 2.25  |
| ResNet-26                              | 3.49          | 2.34  |
| RegNetX 002                            | 3.45          | 2.70  |
| MobileNetV2 050                        | 4.75          | 2.51  |
| MobileNetV3 small 050                  | 3.96          | 2.99  |
| EfficientNet-B0                        | 4.12          | 2.52  |
| ConvNeXt atto                          | 4.14          | 2.59  |
| ViT tiny, 4 blocks                     | 2.89          | 2.67  |
"""

from kdcompress.maths.second_order.activations import ACTIVATIONS, Activation, activation
from kdcompress.maths.second_order.batch_norm import batch_norm
from kdcompress.maths.second_order.convolution import Geometry, convolution
from kdcompress.maths.second_order.layer_norm import layer_norm
from kdcompress.maths.second_order.stage import Stage

__all__ = ["ACTIVATIONS", "Activation", "Geometry", "Stage", "activation", "batch_norm", "convolution", "layer_norm"]
