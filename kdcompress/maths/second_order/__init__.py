"""Layers whose second derivative costs what its formula costs: one kind a file.

PyTorch differentiates the backward of these layers too, but dearly: that of a normalisation becomes some thirty
elementwise passes over the activations, that of a grouped convolution a loop over its groups, that of SiLU or GELU a
dozen passes. Here the gradient to the input is an operation of its own, with its derivative written down.

Time of a student's step (CE and gradient distance, 3x32x32) in units of its CE step in the same layout; by FLOPs 2 is
the least. PyTorch's own run better in the contiguous layout, these in channels last. By
`tests/benchmark/second_order.py [--compiled]`, medians of 5 (compiled: 7) side by side; two-core shared Xeon, one
thread, torch 2.15, 2026-11-23; a GPU's rows are open:

| student                                | batch | PyTorch's own | own, channels last | these | compiled |
|----------------------------------------|-------|---------------|--------------------|-------|----------|
| ResNet-18 of one block, 16 to 128 wide | 64    | 3.43          | 7.52               | 2.91  | 2.24     |
| ResNet-18                              | 16    | 2.74          | 3.88               | 2.24  | 2.11     |
| ResNet-26                              | 16    | 3.44          | 6.66               | 2.48  | 2.12     |
| RegNetX 002                            | 32    | 3.56          | 5.83               | 2.41  |          |
| MobileNetV2 050                        | 32    | 4.65          | 10.42              | 2.86  |          |
| MobileNetV3 small 050                  | 32    | 3.42          | 6.31               | 3.24  |          |
| EfficientNet-B0                        | 16    | 4.31          | 7.75               | 2.90  |          |
| ConvNeXt atto                          | 16    | 3.54          | 3.49               | 2.47  |          |
| ViT tiny, 4 blocks                     | 32    | 2.74          | 3.03               | 2.77  | 2.07     |
"""

from kdcompress.maths.second_order.activations import ACTIVATIONS, Activation, activation
from kdcompress.maths.second_order.batch_norm import batch_norm
from kdcompress.maths.second_order.convolution import Geometry, convolution
from kdcompress.maths.second_order.layer_norm import layer_norm
from kdcompress.maths.second_order.stage import Stage

__all__ = ["ACTIVATIONS", "Activation", "Geometry", "Stage", "activation", "batch_norm", "convolution", "layer_norm"]
