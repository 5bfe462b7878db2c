# SPDX-License-Identifier: Apache-2.0
"""Union-find over regions; every entry holds all that a union needs, so that it costs one cache line."""

from __future__ import annotations

import numpy as np

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.felzenszwalb._types import LOW31, LOW32, ROOT, SIGN, Doubles, Ints, Longs

__all__ = ["contract", "find", "key_of", "root_entry", "unite_below_threshold", "unite_small"]

_BLOCK = 64  # edges looked up together, so that their cache misses overlap


@compiled
def key_of(value: float) -> int:
    """Return the bits of a float32 >= 0: they sort like the values."""
    return int(np.float32(value).view(np.int32))


@compiled
def root_entry(threshold: float, size: int) -> int:
    """Return the entry of a root."""
    return ROOT | (key_of(threshold) << 32) | size


@compiled
def find(forest: Longs, index: int) -> int:
    """Return the root of an entry and halve the path to it."""
    entry = forest[index]
    while entry >= 0:
        above = forest[entry]
        if above < 0:
            return entry
        forest[index] = above
        index = above
        entry = forest[index]
    return index


@compiled
def unite_below_threshold(records: Longs, pairs: Longs, weights: Doubles, forest: Longs, k: float) -> None:
    """Take edges from light to heavy; unite where the weight is below both thresholds.

    Args:
        records: sorted.
        pairs: both ends of the edge of a record, 32 bits each.
        weights: weight of the edge of a record.
        forest: changed.
        k: scale of the thresholds.
    """
    starts, ends = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    for block in range(0, records.size, _BLOCK):
        count = min(_BLOCK, records.size - block)
        _climb(records, block, count, pairs, forest, starts, ends)
        for i in range(count):
            a, b = find(forest, starts[i]), find(forest, ends[i])
            if a == b:
                continue
            lower = (min(forest[a], forest[b]) >> 32) & LOW31
            weight = weights[records[block + i] & LOW32]
            if weight < np.int32(lower).view(np.float32):
                size = (forest[a] & LOW32) + (forest[b] & LOW32)
                forest[max(a, b)] = min(a, b)
                forest[min(a, b)] = root_entry(weight + k / size, size)


@compiled
def unite_small(records: Longs, pairs: Longs, forest: Longs, min_size: int, small: int) -> int:
    """Take edges from light to heavy; unite where a side has fewer than ``min_size`` pixels.

    Args:
        records: sorted.
        pairs: both ends of the edge of a record, 32 bits each.
        forest: changed; thresholds are lost.
        min_size: pixels.
        small: number of regions that are smaller.

    Returns:
        How many are left.
    """
    starts, ends = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    for block in range(0, records.size, _BLOCK):
        count = min(_BLOCK, records.size - block)
        _climb(records, block, count, pairs, forest, starts, ends)
        for i in range(count):
            a, b = find(forest, starts[i]), find(forest, ends[i])
            if a == b:
                continue
            size_a, size_b = forest[a] & LOW32, forest[b] & LOW32
            if min(size_a, size_b) < min_size:
                size = size_a + size_b
                forest[max(a, b)] = min(a, b)
                forest[min(a, b)] = ROOT | size
                small += (size < min_size) - (size_a < min_size) - (size_b < min_size)
                if small == 0:
                    return small
    return small


@compiled
def _climb(records: Longs, block: int, count: int, pairs: Longs, forest: Longs, starts: Longs, ends: Longs) -> None:
    """Go one step up from the ends of some edges; the loads do not wait for each other."""
    for i in range(count):
        pair = pairs[records[block + i] & LOW32]
        start, end = pair >> 32, pair & LOW32
        above = forest[start]
        starts[i] = start if above < 0 else above
        above = forest[end]
        ends[i] = end if above < 0 else above


@compiled
def contract(forest: Longs, regions: int, labels: Ints, renamed: Ints, low: int, min_size: int) -> tuple[int, int]:
    """Number the roots 0, 1, ... in their order, move them together, rename labels and mark those that are final.

    A root is the smallest index of its region and indices are in raster order of first pixels; so are the new ones.

    Args:
        forest: its first ``regions`` entries count; only roots remain.
        regions: number of entries.
        labels: of all pixels; changed.
        renamed: work space of at least ``regions``.
        low: with ``min_size`` 0, regions whose threshold's key is below this one are final.
        min_size: if not 0, regions of at least so many pixels are final.

    Returns:
        Number of regions, and how many are not final.
    """
    roots, active = 0, 0
    for index in range(regions):
        entry = forest[index]
        final = (entry & LOW32) >= min_size if min_size > 0 else ((entry >> 32) & LOW31) < low
        is_root = entry < 0
        above = renamed[0 if is_root else entry]
        renamed[index] = (roots | (SIGN if final else 0)) if is_root else above
        forest[roots] = entry
        roots += is_root
        active += is_root and not final
    for pixel in range(labels.size):
        labels[pixel] = renamed[labels[pixel] & LOW31]
    return roots, active
