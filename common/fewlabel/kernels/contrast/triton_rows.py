# SPDX-License-Identifier: Apache-2.0
"""Rows as the tensor cores take them, and products of them.

Half types go there as they are. A float32 number is the sum of three bfloat16 numbers, its *parts*: each holds the next
8 of its 24 bits. Of the nine products of parts the three smallest lie below 2^-24 of the whole and are left out; the
other six, exact and summed in float32, smallest first, give the error of a float32 product. Parts are made once and
stored, so that tiles of them reach the tensor cores from shared memory as those of half types do.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code=import-untyped
from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

FLOAT_PARTS = 3
_NUMBERS = 1024  # of a program that makes parts


def matrix_rows(side: Tensor) -> Tensor:
    """Return contiguous rows whose length is a power of two and at least 16.

    Args:
        side: (B, N, C), float32, bfloat16 or float16.

    Returns:
        (P, B, N, C'), half type; P is 1, or 3 for the parts of float32. Numbers beyond C are 0.
    """
    side = side.detach()
    width = max(16, triton.next_power_of_2(side.shape[-1]))
    if side.dtype != torch.float32:
        missing = width - side.shape[-1]
        return (pad(side, (0, missing)) if missing else side).contiguous().unsqueeze(0)
    parts = torch.empty(FLOAT_PARTS, *side.shape[:2], width, dtype=torch.bfloat16, device=side.device)
    if parts.numel():
        count = parts[0].numel()
        with torch.cuda.device_of(side):
            parts_kernel[(math.ceil(count / _NUMBERS),)](
                side, parts, *side.stride(), side.shape[1], side.shape[2], count, C=width, NUMBERS=_NUMBERS
            )
    return parts


@triton.jit
def split(x):
    """The parts of float32 numbers."""
    high = x.to(tl.bfloat16)
    rest = x - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def parts_kernel(
    side, parts, stride_b, stride_n, stride_c, rows, channels, count, C: tl.constexpr, NUMBERS: tl.constexpr
):  # fmt: skip
    """Write (3, B, rows, C) parts of (B, rows, channels) numbers; grid: blocks of the former, ``count`` a part."""
    at = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)
    row, channel = at // C, at % C
    numbers = side + row // rows * stride_b + row % rows * stride_n + channel * stride_c
    x = tl.load(numbers, mask=(at < count) & (channel < channels), other=0.0)
    high, middle, low = split(x)
    tl.store(parts + at, high, mask=at < count)
    tl.store(parts + count + at, middle, mask=at < count)
    tl.store(parts + 2 * tl.cast(count, tl.int64) + at, low, mask=at < count)


@triton.jit
def load_rows(
    base, index, limit, part, C: tl.constexpr, PARTS: tl.constexpr, CHECK: tl.constexpr, UPCAST: tl.constexpr
):
    """Load rows of (PARTS, limit, C) matrices that lie ``part`` numbers apart; rows beyond the limit are 0.

    Always three values; without parts the second and the third are the first and never used.
    """
    at = base + index[:, None] * C + tl.arange(0, C)[None, :]
    high = _load(at, index, limit, CHECK, UPCAST)
    middle, low = high, high
    if PARTS == 3:
        middle = _load(at + part, index, limit, CHECK, UPCAST)
        low = _load(at + 2 * part, index, limit, CHECK, UPCAST)
    return high, middle, low


@triton.jit
def _load(at, index, limit, CHECK: tl.constexpr, UPCAST: tl.constexpr):
    numbers = tl.load(at, mask=(index < limit)[:, None], other=0.0) if CHECK else tl.load(at)
    return numbers.to(tl.float32) if UPCAST else numbers


@triton.jit
def product(x, x1, x2, y, y1, y2, total, PARTS: tl.constexpr):
    """Add the product of two matrices, given by their parts, to a total in float32."""
    if PARTS == 3:
        total = tl.dot(x2, y, total)
        total = tl.dot(x1, y1, total)
        total = tl.dot(x, y2, total)
        total = tl.dot(x1, y, total)
        total = tl.dot(x, y1, total)
    return tl.dot(x, y, total)
