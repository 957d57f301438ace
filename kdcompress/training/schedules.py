"""How the learning rate moves through a run: `--optimizer` and `--schedule`, all of them PyTorch's."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR, SequentialLR

from kdcompress.settings import RunSettings

WARM_UP = 0.05
"""Share of the steps over which the cosine's learning rate rises first."""

DROPS = (0.5, 0.75)
"""Shares of the run after which `step` divides the learning rate by ten: epochs 100 and 150 of 200 in Rice et al."""


def optimizer_of(weights: Iterable[nn.Parameter], run: RunSettings) -> Optimizer:
    """AdamW, or SGD with Nesterov's momentum. Every weight decays, those of BatchNorm and biases included."""
    if run.momentum is None:
        return AdamW(weights, lr=run.lr, weight_decay=run.weight_decay)
    # PyTorch's Nesterov refuses momentum 0, where it would change nothing.
    return SGD(weights, lr=run.lr, weight_decay=run.weight_decay, momentum=run.momentum, nesterov=run.momentum > 0)


def schedule_of(optimizer: Optimizer, run: RunSettings, steps: int) -> LRScheduler:
    """The learning rate of each of T steps, t = 0, 1, ..., T - 1; step it after each of them.

    - one-cycle: Smith (2018), arXiv:1803.09820. Up over the first 30% of the steps and down to zero, both by cosine;
      AdamW's beta_1 falls from .95 to .85 meanwhile and rises again. SGD's momentum stays what `--momentum` says.
    - cosine: lr (t + 1) / (W + 1) over the first W = .05 T steps, as Goyal et al. (2017), arXiv:1706.02677, warm up;
      then lr (1 + cos(pi (t - W) / (T - W))) / 2, Loshchilov and Hutter (2017), arXiv:1608.03983, Eq. 5, down to zero.
    - step: lr, lr / 10 from T / 2 on, lr / 100 from 3 T / 4 on, as in Rice et al. (2020), arXiv:2002.11569, who found
      that networks overfit the attack after the first drop: best epoch and last differ.
    """
    if run.schedule == "one-cycle":
        cycled = run.optimizer == "adamw"
        return OneCycleLR(optimizer, max_lr=run.lr, total_steps=max(steps, 2), cycle_momentum=cycled)
    if run.schedule == "step":
        return MultiStepLR(optimizer, [math.ceil(share * steps) for share in DROPS], gamma=0.1)
    W = int(WARM_UP * steps)
    if W == 0:
        return CosineAnnealingLR(optimizer, T_max=steps)
    warm_up = LinearLR(optimizer, start_factor=1 / (W + 1), total_iters=W)
    return SequentialLR(optimizer, [warm_up, CosineAnnealingLR(optimizer, T_max=steps - W)], milestones=[W])
