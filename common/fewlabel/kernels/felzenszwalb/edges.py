# SPDX-License-Identifier: Apache-2.0
"""Edges of an image, never stored as a whole: weights are computed, row by row, whenever some edges are wanted."""

from __future__ import annotations

import numpy as np

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.felzenszwalb._types import (
    KEY_END,
    LOW31,
    LOW32,
    Bytes,
    Doubles,
    Grid,
    Ints,
    Lattice,
    Longs,
    Singles,
    Store,
)
from fewlabel.kernels.felzenszwalb.forest import find, key_of, root_entry

__all__ = ["collect", "key_limit", "sample", "seed"]


@compiled
def seed(lattice: Lattice, forest: Longs, lightest: Singles, k: float) -> None:
    """Do the unions whose order does not matter, which are about a fourth of all.

    Edges of key 0 are below every threshold. And an edge that is, strictly, the lightest of both its pixels meets both
    alone, whatever else has happened before.

    Args:
        lattice: the image and its edges.
        forest: (N,) of single pixels; changed.
        lightest: (N,), work space.
        k: scale of the thresholds, > 0.
    """
    image, grid, offsets, strides, factors = lattice
    _lightest(lattice, lightest)
    weights, keys, flags, places = _row_space(grid[2])
    single = np.float64(np.float32(k))
    for z in range(grid[0]):
        for y in range(grid[1]):
            for e in range(len(offsets)):
                start, n = _overlap(grid, z, y, offsets[e])
                if n == 0:
                    continue
                other = start + strides[e]
                _row_weights(image, start, other, n, factors[e], weights, keys)
                here, there = lightest[start : start + n], lightest[other : other + n]
                near, far = forest[start : start + n], forest[other : other + n]
                for i in range(n):
                    zero = (keys[i] == 0) & ((near[i] != far[i]) | (near[i] < 0))
                    mutual = (keys[i] == here[i]) & (keys[i] == there[i]) & (keys[i] > 0) & (weights[i] < single)
                    flags[i] = zero | mutual
                for j in range(_flagged(flags, n, places)):
                    i = places[j]
                    a, b = find(forest, start + i), find(forest, other + i)
                    if a != b:
                        size = (forest[a] & LOW32) + (forest[b] & LOW32)
                        forest[max(a, b)] = min(a, b)
                        forest[min(a, b)] = root_entry((weights[i] if keys[i] > 0 else 0.0) + k / size, size)


@compiled
def _lightest(lattice: Lattice, lightest: Singles) -> None:
    """Weight of the lightest edge of each pixel, -1 where two edges share it."""
    image, grid, offsets, strides, factors = lattice
    weights, keys, _, _ = _row_space(grid[2])
    first, second = np.empty(grid[2], np.float32), np.empty(grid[2], np.float32)
    for z in range(grid[0]):
        for y in range(grid[1]):
            first[:] = np.inf
            second[:] = np.inf
            row = (z * grid[1] + y) * grid[2]
            for e in range(2 * len(offsets)):
                sign = 1 - 2 * (e & 1)
                start, n = _overlap(grid, z, y, sign * offsets[e >> 1])
                if n == 0:
                    continue
                _row_weights(image, start, start + sign * strides[e >> 1], n, factors[e >> 1], weights, keys)
                one, two = first[start - row : start - row + n], second[start - row : start - row + n]
                for i in range(n):
                    key, a, b = keys[i], one[i], two[i]
                    above = a if a > key else key
                    two[i] = above if above < b else b
                    one[i] = key if key < a else a
            for x in range(grid[2]):
                lightest[row + x] = first[x] if first[x] < second[x] else np.float32(-1)


@compiled
def collect(lattice: Lattice, labels: Ints, both: bool, low: int, high: int, store: Store, counts: Longs) -> bool:
    """Store the edges between regions whose key is in [low, high), in raster order for each direction.

    Of edges between the same two regions that follow each other only the lightest is stored, the first of equals.

    Args:
        lattice: the image and its edges.
        labels: (N,).
        both: leave out edges of which both regions are final, else those of which one is.
        low: least key.
        high: key above.
        store: filled; see ``counts``.
        counts: (E,): how many edges of each direction were stored.

    Returns:
        Whether all edges had place.
    """
    image, grid, offsets, strides, factors = lattice
    records, pairs, heavy = store
    capacity = records.shape[1]
    weights, keys, flags, places = _row_space(grid[2])
    bits = keys.view(np.int32)
    counts[:] = 0
    for z in range(grid[0]):
        for y in range(grid[1]):
            for e in range(len(offsets)):
                start, n = _overlap(grid, z, y, offsets[e])
                if n == 0:
                    continue
                other = start + strides[e]
                _row_weights(image, start, other, n, factors[e], weights, keys)
                here, there = labels[start : start + n], labels[other : other + n]
                _flag(bits, here, there, both, low, high, n, flags)
                found = _flagged(flags, n, places)
                if counts[e] + found > capacity:
                    return False
                if found == 0:
                    continue
                to_records, to_pairs, to_weights = records[e], pairs[e], heavy[e]
                count, first = counts[e] - 1, e * capacity
                last, key, weight = -1, 0, 0.0
                for i in places[:found]:
                    pair = ((here[i] & LOW31) << 32) | (there[i] & LOW31)
                    fresh = pair != last
                    lighter = fresh | (weights[i] < weight)
                    key = bits[i] if lighter else key
                    weight = weights[i] if lighter else weight
                    last = pair
                    count += fresh
                    to_records[count] = (key << 32) | (first + count)
                    to_pairs[count] = pair
                    to_weights[count] = weight
                counts[e] = count + 1
    return True


@compiled
def _flag(keys: Ints, here: Ints, there: Ints, both: bool, low: int, high: int, n: int, flags: Bytes) -> None:
    """Flag the edges of a row that are wanted."""
    least, above = np.int32(low), np.int32(high)
    if both:
        for i in range(n):
            flags[i] = (keys[i] >= least) & (keys[i] < above) & (here[i] != there[i]) & ((here[i] & there[i]) >= 0)
    else:
        for i in range(n):
            flags[i] = (keys[i] >= least) & (keys[i] < above) & (here[i] != there[i]) & ((here[i] | there[i]) >= 0)


@compiled
def sample(lattice: Lattice, step: int) -> Longs:
    """Return keys and edges (direction * N + pixel) of about N / step pixels, sorted by key, as rows (key, edge)."""
    image, grid, offsets, strides, factors = lattice
    size = image.shape[1]
    weights, keys = np.empty(1), np.empty(1, np.float32)
    found = np.empty((len(offsets) * (size // step + 1), 2), np.int64)
    count = 0
    for e in range(len(offsets)):
        for pixel in range((step // 2 * (e + 1)) % step, size, step):
            start, n = _overlap(grid, pixel // (grid[1] * grid[2]), pixel // grid[2] % grid[1], offsets[e])
            if 0 <= pixel - start < n:
                _row_weights(image, pixel, pixel + strides[e], 1, factors[e], weights, keys)
                found[count, 0] = key_of(keys[0])
                found[count, 1] = e * size + pixel
                count += 1
    return found[np.argsort(found[:count, 0])]


@compiled
def key_limit(sampled: Longs, strides: Longs, labels: Ints, both: bool, low: int, wanted: int) -> int:
    """Return the key below which about ``wanted`` sampled edges from ``low`` on are still of interest."""
    count = 0
    for i in range(len(sampled)):
        key, edge = sampled[i]
        pixel = edge % labels.size
        here, there = labels[pixel], labels[pixel + strides[edge // labels.size]]
        alive = (here & there) >= 0 if both else (here | there) >= 0
        if key >= low and here != there and alive:
            count += 1
            if count > wanted and key > low:
                return key
    return KEY_END


@compiled
def _row_space(width: int) -> tuple[Doubles, Singles, Bytes, Ints]:
    """Work space for a row: weights, keys, flags and the places of flags."""
    padded = (width + 7) // 8 * 8
    return np.empty(width), np.empty(width, np.float32), np.zeros(padded, np.uint8), np.empty(padded + 8, np.int32)


@compiled
def _overlap(grid: Grid, z: int, y: int, offset: Longs) -> tuple[int, int]:
    """First pixel of a row that has a neighbor at an offset, and how many have."""
    dz, dy, dx = offset
    n = grid[2] - abs(dx)
    inside = 0 <= z + dz < grid[0] and 0 <= y + dy < grid[1] and n > 0
    return (z * grid[1] + y) * grid[2] + max(0, -dx), n if inside else 0


@compiled
def _row_weights(
    image: Doubles, start: int, other: int, n: int, factor: float, weights: Doubles, keys: Singles
) -> None:
    """Weights, in float64 and float32, of n edges between start + i and other + i; |d| is the rounded root of d^2."""
    here, there = image[0, start : start + n], image[0, other : other + n]
    if len(image) == 1:
        for i in range(n):
            weight = abs(here[i] - there[i]) * factor
            weights[i] = weight
            keys[i] = np.float32(weight)
        return
    weights[:n] = 0.0
    for c in range(len(image)):
        here, there = image[c, start : start + n], image[c, other : other + n]
        for i in range(n):
            weights[i] += (here[i] - there[i]) * (here[i] - there[i])
    for i in range(n):
        weights[i] = np.sqrt(weights[i]) * factor
        keys[i] = np.float32(weights[i])


@compiled
def _flagged(flags: Bytes, n: int, places: Ints) -> int:
    """Write down which of the first n flags are set, eight at a time where none is; return how many."""
    flags[n:] = 0
    words = flags.view(np.uint64)
    count = 0
    for word in range((n + 7) // 8):
        if words[word] != 0:
            for i in range(8 * word, 8 * word + 8):
                places[count] = i
                count += flags[i]
    return count
