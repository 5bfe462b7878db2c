# SPDX-License-Identifier: Apache-2.0
"""Connected components from runs: a row is a few runs of equal values, and only runs are joined, by union-find.

Numbers of runs rise in raster order and a root is the smallest run of its component, so counting roots upward numbers
the components in raster order. Images are dealt out to threads; a single image is cut into slabs of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.grid import neighbor_rows
from fewlabel.kernels.tasks import run_tasks
from fewlabel.kernels.threads import run_shares, share_count

__all__ = ["components", "relabel"]

_Ints = NDArray[np.int32]
_Table = tuple[_Ints, _Ints, _Ints, _Ints, _Ints]  # first and last of each row; starts, ends and parents of each run
_SLAB = 2**16  # pixels below which a thread costs more than it saves


def components(values: Tensor, connectivity: int) -> tuple[Tensor, Tensor]:
    """Compiled form; see :func:`fewlabel.kernels.components.reference.components`."""
    batch, depth, height, width = values.shape
    source = values.view(batch, depth * height, width).numpy()
    labels = torch.empty(values.shape, dtype=torch.int32)
    target = labels.view(batch, depth * height, width).numpy()
    counts = np.zeros(batch, np.int32)
    neighbors = np.array(neighbor_rows(connectivity), np.int32)
    shares = share_count(batch, values.device)
    slabs = share_count(depth * height * width // _SLAB, values.device)
    if slabs > shares:  # fewer images than threads
        runs = _Runs.empty(depth * height, width, values.dtype == torch.uint8, slabs)
        for b in range(batch):
            counts[b] = runs.label(source[b], target[b], height, neighbors)
        return labels, torch.from_numpy(counts)

    def work(share: int) -> None:
        runs = _Runs.empty(depth * height, width, values.dtype == torch.uint8, 1)
        for b in range(share, batch, shares):
            counts[b] = runs.label(source[b], target[b], height, neighbors)

    run_shares(work, shares)
    return labels, torch.from_numpy(counts)


@dataclass(frozen=True)
class _Runs:
    """Buffers for the runs of one image, used again for the next; slab s writes to a stretch of its own."""

    bounds: list[tuple[int, int, int]]  # of each slab: first row, row after the last, number of the first run
    first: _Ints  # (R,) number of the first run of a row
    last: _Ints  # (R,) number after the last
    starts: _Ints  # columns
    ends: _Ints
    parent: _Ints

    @classmethod
    def empty(cls, rows: int, width: int, is_mask: bool, slabs: int) -> _Runs:
        most = (width + 1) // 2 if is_mask else width  # runs of a row
        edges = [rows * s // slabs for s in range(slabs + 1)]
        bounds = [(a, b, a * most + s) for s, (a, b) in enumerate(pairwise(edges))]
        row, run = rows, rows * most + slabs  # one run more in each slab: the scan writes ahead
        buffers = [np.empty(size, np.int32) for size in (row, row, run, run, run)]
        return cls(bounds, *buffers)

    def label(self, source: NDArray[Any], target: _Ints, height: int, neighbors: _Ints) -> int:
        """Fill the labels of an image and return their number."""
        table = self.first, self.last, self.starts, self.ends, self.parent

        def scan(slab: int) -> None:
            _scan(source, height, neighbors, *self.bounds[slab], table)

        def fill(slab: int) -> None:
            _fill(target, *self.bounds[slab][:2], table)

        slabs = len(self.bounds)
        run_shares(scan, slabs)
        for start, stop, _ in self.bounds[1:]:
            _stitch(source, height, neighbors, start, stop, table)
        count: int = _number(table)
        run_shares(fill, slabs)
        return count


@compiled
def _scan(
    source: NDArray[Any],
    height: int,
    neighbors: _Ints,
    start: int,
    stop: int,
    run: int,
    table: _Table,
) -> None:
    """Find the runs of rows start ... stop - 1 and join them among themselves; no branch depends on a pixel."""
    first, last, starts, ends, parent = table
    width = source.shape[1]
    cuts = np.empty(width + 1, np.int32)  # columns where the value changes; one more, as the loop writes ahead
    for row in range(start, stop):
        n = 0
        before = source.dtype.type(0)
        for x in range(width):
            value = source[row, x]
            cuts[n] = x
            n += value != before
            before = value
        cuts[n] = width
        first[row] = run
        for i in range(n):
            starts[run] = cuts[i]
            ends[run] = cuts[i + 1]
            parent[run] = run
            run += source[row, cuts[i]] != 0
        last[row] = run
        _link(source, height, neighbors, row, start, row, table)


@compiled
def _stitch(
    source: NDArray[Any],
    height: int,
    neighbors: _Ints,
    start: int,
    stop: int,
    table: _Table,
) -> None:
    """Join the first rows of a slab with rows of the slabs before."""
    for row in range(start, min(stop, start + height + 1)):
        _link(source, height, neighbors, row, 0, start, table)


@compiled
def _link(
    source: NDArray[Any],
    height: int,
    neighbors: _Ints,
    row: int,
    low: int,
    high: int,
    table: _Table,
) -> None:
    """Join the runs of a row with those of its neighbor rows in low ... high - 1, both walked once."""
    first, last, starts, ends, parent = table
    y = row % height
    for n in range(neighbors.shape[0]):
        dz, dy, reach = neighbors[n, 0], neighbors[n, 1], neighbors[n, 2]
        other = row + dz * height + dy
        if y + dy < 0 or y + dy >= height or other < low or other >= high:
            continue
        i, i_end = first[row], last[row]
        j, j_end = first[other], last[other]
        while i < i_end and j < j_end:
            is_near = starts[i] < ends[j] + reach and starts[j] < ends[i] + reach
            if is_near and source[row, starts[i]] == source[other, starts[j]]:
                join(parent, i, j)
            if ends[i] < ends[j]:
                i += 1
                continue
            is_corner = reach == 1 and ends[i] == ends[j] and i + 1 < i_end and starts[i + 1] == ends[j]
            if is_corner and source[row, starts[i + 1]] == source[other, starts[j]]:
                join(parent, i + 1, j)
            j += 1


@compiled
def join(parent: _Ints, a: int, b: int) -> None:
    """Hang the larger root under the smaller; paths are halved on the way."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    while parent[b] != b:
        parent[b] = parent[parent[b]]
        b = parent[b]
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@compiled
def _number(table: _Table) -> int:
    """Replace parents by numbers of components, 1 ... count, in raster order."""
    first, last, _, _, parent = table
    count = 0
    for row in range(first.shape[0]):
        for run in range(first[row], last[row]):
            if parent[run] == run:
                count += 1
                parent[run] = count
            else:
                parent[run] = parent[parent[run]]  # a smaller run, already numbered
    return count


@compiled
def _fill(target: _Ints, start: int, stop: int, table: _Table) -> None:
    first, last, starts, ends, number = table
    for row in range(start, stop):
        target[row] = 0
        for run in range(first[row], last[row]):
            for x in range(starts[run], ends[run]):
                target[row, x] = number[run]


def relabel(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compiled form; see :func:`fewlabel.kernels.components.reference.relabel`."""
    batch, pixels = labels.shape
    source, target = labels.numpy(), np.empty((batch, pixels), np.int32)
    counts = np.zeros(batch, np.int32)

    def work(b: int, _share: int) -> None:
        low, span = int(source[b].min()), int(source[b].max()) - int(source[b].min()) + 1
        if span <= 8 * pixels + 1024:
            counts[b] = _relabel(source[b], low, np.zeros(span, np.int32), target[b])
        else:  # a table would be larger than the image
            _, at, inverse = np.unique(source[b], return_index=True, return_inverse=True)
            first_seen = np.where(source[b] == 0, 0, at[inverse] + 1)
            counts[b] = _relabel(first_seen, 0, np.zeros(pixels + 1, np.int32), target[b])

    run_tasks(work, batch, share_count(batch, labels.device))
    return torch.from_numpy(target), torch.from_numpy(counts)


@compiled
def _relabel(source: NDArray[Any], low: int, table: _Ints, target: _Ints) -> int:
    """Number values in the order in which they appear; 0 stays 0."""
    count = 0
    for i in range(source.shape[0]):
        value = source[i]
        if value == 0:
            target[i] = 0
            continue
        if table[value - low] == 0:
            count += 1
            table[value - low] = count
        target[i] = table[value - low]
    return count
