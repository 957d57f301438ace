"""Signs of gradient masking: is the robust accuracy of this network to be believed?

Measured by `tests/benchmark/masking.py` on 60 to 100 test images, 2026-11-23, torch 2.15, one thread of a
shared two-core Xeon. Digits unless said otherwise; each cell is the range over the threat models named, which are of
Linf .03 to .30 (2/255 and 8/255 on CIFAR-10) and L2 .25 to 2. Shares of attacks are lower bounds at confidence .999, so small counts are near zero.

| network                                 | clean | vanish | rise | large eps | one step | steps | starts | Square | transfer |
|-----------------------------------------|-------|--------|------|-----------|----------|-------|--------|--------|----------|
| robust: the shipped teacher             |  .97  | 0      | 0    | 0         | -.88 -.09| 0 .02 | 0 .02  | 0      |          |
| robust: ResNet-4B, CIFAR-10, to 8/255   |  .65  | 0      | 0    | 0         | -.40 -.20| 0     | 0      | 0      |          |
| students of the teacher, KDIGA (two)    |  .97  | 0      | 0    | 0         | -.89 -.17| 0 .03 | 0 .01  | 0      | 0        |
| plain CNN, adversarially trained        |  .92  | 0      | 0    | 0         | -.16 -.14| 0 .01 | 0      | 0      | 0        |
| natural: CNN, CNN with tanh             |  .98  | 0      | 0    | 0         | -.21 -.09| 0     | 0      | 0      | 0        |
| natural: CNN trained till very sure     |  .97  | 0      | 0    | 0         | -.14 -.09| 0     | 0      | 0      | 0        |
| natural: CNN, KD                        |  .94  | 0      | 0    | 0         | -.16 -.09| 0     | 0      | 0      | 0        |
| natural: ResNet, ReLU and SiLU          |  .99  | 0      | 0    | 0         | -.26 -.09| 0     | 0      | 0      | 0        |
| natural: ConvNeXt                       |  .98  | 0      | 0    | 0         | -.22 -.09| 0     | 0      | 0      | 0        |
| natural: MobileNetV3                    |  .95  | .03    | 0    | 0         | -.61 -.28| 0     | 0      | 0      | 0        |
| natural: EfficientNet, GroupNorm        |  .97  | 0      | 0    | 0         | -.16 -.11| 0     | 0      | 0      | 0        |
| natural: ViT, half trained (60 images)  |  .55  | 0      | 0    | 0         | -.27 -.22| 0     | 0      | 0      |          |
| **threshold**                           |       | .25    | .10  | .10       | 0        | .10   | .10    | .02    | .02      |
| logits times 1e4, times 100             |  .97  | .98 1  | 0    | 0         | -.38 -.12| 0 .02 | 0 .01  | 0      | 0        |
| defensive distillation, T = 100, 30     |  .95  | .92 .99| 0    | 0         | -.26 -.11| 0     | 0      | 0      | 0        |
| sign activations                        |  .96  | 1      |      | .42 .55   | -.16 -.14| 0     | 0      | .38 .69| 0 .09    |
| ripples on the input, natural network   |  .98  | 0      | .04 .61| 0 .58   | -.15 -.14| 0     | 0      | .11 .61| 0 .04    |
| ripples on the input, shipped teacher   |  .97  | 0      | .22 .46| 0 .26   | -.11 -.08| 0     | 0      | .03 .04| .06 .14  |
| converted int8                          |  .97  | 1      |      |           |          |       |        |        |          |

Inference noise, down to .001 a pixel, shows in two forwards, and a softmax in the outputs. Margins f_y - max f_k of
honest networks had medians of 3 to 16 and reached 87 (MobileNetV3): hence `vanish` counts what float32 cannot square,
from about 45 on, not what it rounds to a loss of zero, from 17 on.

PGD here is of unit spread, and what Square or a stranger breaks counts only if PGD aimed at that class fails: without
the first a sure network, and without the second the shipped teacher at Linf .15 (6 of 97 to Square), would look masked.
"""  # noqa: E501
