"""Random numbers by hashing counters: drawn where they are wanted, the same on every device (normals to rounding).

A generator on the CPU gives a key a row; the numbers of a row follow from its key alone. So a GPU draws its own noise
while the CPU reads images, and of several processes that share a batch each draws its own rows. On a CPU a generator is
four times as fast (3.8 and 14.5 ns a number, one thread of a shared Xeon, 2026-11-24), and runs there draw from it.

The hash is lowbias32 (Wellons 2018, github.com/skeeto/hash-prospector), twice: u_i = h(h(i) xor key).
"""

import math

import torch
from torch import Generator, Tensor

from kdcompress.seats import own_rows

_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - 2**32)  # as int32
_SECOND = 0x3C6EF372
"""Tells the second number of a pair from the first."""


def keys(count: int, generator: Generator) -> Tensor:
    """A key for each of this process's `count` rows, int32 (count,), on the CPU."""
    return own_rows(lambda B: torch.randint(-(2**31), 2**31, (B,), generator=generator), count).to(torch.int32)


def uniforms(key: Tensor, count: int, device: torch.device, stream: int = 0) -> Tensor:
    """`count` numbers a row, uniform in (0, 1), float32 (B, count): odd multiples of 2^-24.

    Args:
        key: int32 (B,).
        stream: numbers of other streams are independent of these.
    """
    key = _hashed(key.to(device) ^ _hashed(torch.full_like(key, stream, device=device)))
    place = _hashed(torch.arange(count, dtype=torch.int32, device=device))
    bits = _hashed(place ^ key[:, None])
    return bits.bitwise_right_shift_(9).bitwise_and_(0x7FFFFF).float().add_(0.5).mul_(2.0**-23)


def normals(key: Tensor, count: int, device: torch.device, stream: int = 0) -> Tensor:
    """`count` numbers a row from N(0, 1), float32 (B, count), by Box and Muller (1958)."""
    half = -(-count // 2)
    length = uniforms(key, half, device, stream).log_().mul_(-2).sqrt_()
    angle = uniforms(key, half, device, stream ^ _SECOND).mul_(2 * math.pi)
    return torch.cat([length * angle.cos(), length * angle.sin()], 1)[:, :count]


def _hashed(x: Tensor) -> Tensor:
    """lowbias32 of int32 numbers; a shift of negative ones must not draw the sign after it."""
    x = x ^ (x.bitwise_right_shift(16).bitwise_and_(0xFFFF))
    x.mul_(_MULTIPLIERS[0])
    x.bitwise_xor_(x.bitwise_right_shift(15).bitwise_and_(0x1FFFF))
    x.mul_(_MULTIPLIERS[1])
    return x.bitwise_xor_(x.bitwise_right_shift(16).bitwise_and_(0xFFFF))
