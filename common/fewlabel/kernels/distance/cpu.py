# SPDX-License-Identifier: Apache-2.0
"""Exact squared distances, axis by axis: two sweeps along the first, lower envelopes of parabolas along the others.

A pixel asks only how the winner of each place on its line compares with the others, and two parabolas cross once, so a
line of n places costs O(n). All comparisons are of the float64 sums themselves, never of where the parabolas should
cross: rounding moves no border, and the result is that of trying all candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.threads import run_shares, share_count

__all__ = ["nearest"]

_TOGETHER = 16  # neighboring lines that are copied at once where a line is not contiguous
_SHARE = 2**15  # pixels below which a thread costs more than it saves
_Floats = NDArray[np.float64]
_Ints = NDArray[np.int32]


def nearest(seeds: Tensor, spacing: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Compiled form; see :func:`fewlabel.kernels.distance.reference.nearest`."""
    batch, depth, height, width = seeds.shape
    squared = torch.empty(seeds.shape, dtype=torch.float64)
    index = torch.empty(seeds.shape, dtype=torch.int32)
    axes = [(batch, depth, height * width), (batch * depth, height, width), (batch * depth * height, width, 1)]
    first = 0 if depth > 1 else 1
    shares = share_count(seeds.numel() // _SHARE, seeds.device)
    for axis in range(first, 3):
        outer, _, inner = shape = axes[axis]
        cost, near, source = squared.view(shape).numpy(), index.view(shape).numpy(), seeds.view(shape).numpy()
        step = spacing[axis]

        def work(share: int) -> None:
            block = _part(outer, inner, share, shares)  # noqa: B023 - run at once
            if axis == first:  # noqa: B023
                _sweep(source, cost, near, step, *block)  # noqa: B023
            else:
                _envelopes(cost, near, step, *block)  # noqa: B023

        run_shares(work, shares)
    return squared, index


def _part(outer: int, inner: int, share: int, shares: int) -> tuple[int, int, int, int]:
    """First and last of the outer and of the inner places whose lines belong to a share."""
    if outer >= shares:
        return outer * share // shares, outer * (share + 1) // shares, 0, inner
    return 0, outer, inner * share // shares, inner * (share + 1) // shares


@compiled
def _sweep(
    seeds: NDArray[np.uint8],
    cost: _Floats,
    index: _Ints,
    step: float,
    outer_start: int,
    outer_stop: int,
    start: int,
    stop: int,
) -> None:
    """Nearest seed of each pixel in its own line, of two at one distance the earlier; many lines side by side."""
    n, inner = seeds.shape[1], seeds.shape[2]
    last = np.empty(stop - start, np.int32)
    for o in range(outer_start, outer_stop):
        last[:] = -1
        for y in range(n):
            for x in range(start, stop):
                if seeds[o, y, x]:
                    last[x - start] = y
                index[o, y, x] = last[x - start]
        last[:] = -1
        for y in range(n - 1, -1, -1):
            for x in range(start, stop):
                before, after = index[o, y, x], last[x - start]
                after = y if seeds[o, y, x] else after
                last[x - start] = after
                row = after if after >= 0 and (before < 0 or after - y < y - before) else before
                far = (y - row) * step
                cost[o, y, x] = far * far if row >= 0 else np.inf
                index[o, y, x] = row * inner + x if row >= 0 else -1


@compiled
def _envelopes(
    cost: _Floats,
    index: _Ints,
    step: float,
    outer_start: int,
    outer_stop: int,
    start: int,
    stop: int,
) -> None:
    """Replace the winners of each place by those of the whole line, for a block of lines."""
    n = cost.shape[1]
    together = max(1, min(_TOGETHER, stop - start))  # a share may be empty
    costs, seeds = np.empty((together, n), np.float64), np.empty((together, n), np.int32)
    stack = np.empty(n, np.int32), np.empty(n + 1, np.int32), np.empty(n, np.float64), np.empty(n, np.int32)
    for o in range(outer_start, outer_stop):
        for x in range(start, stop, together):
            lines = min(together, stop - x)
            for y in range(n):
                for line in range(lines):
                    costs[line, y] = cost[o, y, x + line]
                    seeds[line, y] = index[o, y, x + line]
            for line in range(lines):
                _envelope(costs[line], seeds[line], step, stack)
            for y in range(n):
                for line in range(lines):
                    cost[o, y, x + line] = costs[line, y]
                    index[o, y, x + line] = seeds[line, y]


@compiled
def _envelope(cost: _Floats, index: _Ints, step: float, stack: tuple[_Ints, _Ints, _Floats, _Ints]) -> None:
    """One line: keep the parabolas that win somewhere, each with the place from which on it wins."""
    places, starts, heights, seeds = stack
    n, k = cost.shape[0], 0
    for y in range(n):
        seed, height = index[y], cost[y]
        if seed < 0:
            continue
        while k > 0 and _wins(starts[k - 1], step, y, height, seed, places[k - 1], heights[k - 1], seeds[k - 1]):
            k -= 1
        start = 0
        if k > 0:
            i, low, other = places[k - 1], heights[k - 1], seeds[k - 1]
            if not _wins(n - 1, step, y, height, seed, i, low, other):
                continue
            crossing = ((height - low) / (step * step * (y - i)) + (y + i)) / 2
            start = int(min(max(crossing, starts[k - 1]), n - 2)) + 1
            while start - 1 > starts[k - 1] and _wins(start - 1, step, y, height, seed, i, low, other):
                start -= 1
            while not _wins(start, step, y, height, seed, i, low, other):
                start += 1
        places[k], starts[k], heights[k], seeds[k] = y, start, height, seed
        k += 1
    if k == 0:
        return
    starts[k] = n
    for j in range(k):
        i, low, seed = places[j], heights[j], seeds[j]
        for q in range(starts[j], starts[j + 1]):
            far = (q - i) * step
            cost[q] = low + far * far
            index[q] = seed


@compiled
def _wins(q: int, step: float, a: int, cost_a: float, seed_a: int, b: int, cost_b: float, seed_b: int) -> Any:
    """Whether the parabola at place a is below that at b as seen from q; of equal ones the earlier seed's is."""
    far_a, far_b = (q - a) * step, (q - b) * step
    sum_a, sum_b = cost_a + far_a * far_a, cost_b + far_b * far_b
    return sum_a < sum_b or (sum_a == sum_b and seed_a < seed_b)
