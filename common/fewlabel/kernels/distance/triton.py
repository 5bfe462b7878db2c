# SPDX-License-Identifier: Apache-2.0
"""Squared distances on the GPU: one launch an axis, all places of a line against all, sums in registers.

Layout: arrays are (outer, n, inner) for each axis; a program owns some places of some neighboring lines and walks along
them once, so it reads O(n) and keeps a sum and a seed for each of its places. That is n operations a pixel and axis
where envelopes need a few, but no two threads ever differ in what they do. Products and sums are rounded one by one (no
fused multiply-add): the numbers are those of every other form.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code=import-untyped
from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["nearest"]

_TILE = 512  # places of a program
_LINES = 32  # of them side by side, where lines are not contiguous


def nearest(seeds: Tensor, spacing: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """GPU form without synchronization; see :func:`fewlabel.kernels.distance.reference.nearest`."""
    batch, depth, height, width = seeds.shape
    pixels = torch.arange(seeds[0].numel(), dtype=torch.int32, device=seeds.device).view(seeds.shape[1:])
    cost = torch.where(seeds != 0, 0.0, math.inf).double()
    index = torch.where(seeds != 0, pixels, -1)
    axes = [(batch, depth, height * width), (batch * depth, height, width), (batch * depth * height, width, 1)]
    for (outer, n, inner), step in zip(axes, spacing, strict=True):
        if n == 1:
            continue
        lines = min(_LINES, triton.next_power_of_2(inner))
        places = min(_TILE // lines, max(4, triton.next_power_of_2(n)))
        steps = (torch.arange(n, device=seeds.device).double() * step).square()
        out = torch.empty_like(cost), torch.empty_like(index)
        grid = (outer * triton.cdiv(n, places) * triton.cdiv(inner, lines),)
        tiles = {"PLACES": places, "LINES": lines, "num_warps": 4}
        _axis_kernel[grid](cost, index, steps, *out, n, inner, **tiles)
        cost, index = out
    return cost, index


@triton.jit
def _axis_kernel(cost, index, steps, cost_out, index_out, n, inner, PLACES: tl.constexpr, LINES: tl.constexpr):
    blocks, groups = tl.cdiv(n, PLACES), tl.cdiv(inner, LINES)
    program = tl.program_id(0)
    q = (program // groups) % blocks * PLACES + tl.arange(0, PLACES)
    x = program % groups * LINES + tl.arange(0, LINES)
    image = (program // (groups * blocks)).to(tl.int64) * n * inner
    best = tl.full((PLACES, LINES), float("inf"), tl.float64)
    seed = tl.full((PLACES, LINES), -1, tl.int32)
    for i in range(n):
        height = tl.load(cost + image + i * inner + x, mask=x < inner, other=float("inf"))
        candidate = tl.load(index + image + i * inner + x, mask=x < inner, other=-1)
        added = tl.load(steps + tl.abs(q - i), mask=q < n, other=0.0)
        total = height[None, :] + added[:, None]
        wins = (total < best) | ((total == best) & (candidate[None, :] < seed))
        best = tl.where(wins, total, best)
        seed = tl.where(wins, candidate[None, :], seed)
    at = image + q[:, None] * inner + x[None, :]
    inside = (q[:, None] < n) & (x[None, :] < inner)
    tl.store(cost_out + at, best, mask=inside)
    tl.store(index_out + at, seed, mask=inside)
