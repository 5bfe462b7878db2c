# SPDX-License-Identifier: Apache-2.0
"""Edges of an image, never stored as a whole: weights are computed row by row whenever edges of some range are wanted."""

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
    Longs,
    Singles,
)
from fewlabel.kernels.felzenszwalb.forest import find, key_of, root_entry

__all__ = ["collect", "key_limit", "sample", "seed"]


@compiled
def seed(
    image: Doubles,
    grid: Grid,
    offsets: Longs,
    strides: Longs,
    factors: Doubles,
    forest: Longs,
    lightest: Singles,
    k: float,
) -> None:
    """Do the unions whose order does not matter, which are about a fourth of all.

    Edges of key 0 are below every threshold. And an edge that is, strictly, the lightest of both its pixels meets both
    alone, whatever else has happened before.

    Args:
        image: (C, N).
        grid: depth, height and width, of product N.
        offsets: (E, 3).
        strides: (E,): what the offsets are in N.
        factors: (E,).
        forest: (N,) of single pixels; changed.
        lightest: (N,), work space.
        k: scale of the thresholds, > 0.
    """
    _lightest(image, grid, offsets, strides, factors, lightest)
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
def _lightest(image: Doubles, grid: Grid, offsets: Longs, strides: Longs, factors: Doubles, lightest: Singles) -> None:
    """Weight of the lightest edge of each pixel, -1 where two edges share it."""
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
def collect(
    image: Doubles,
    grid: Grid,
    offsets: Longs,
    strides: Longs,
    factors: Doubles,
    labels: Ints,
    both: bool,
    low: int,
    high: int,
    records: Longs,
    pairs: Longs,
    weights: Doubles,
    counts: Longs,
) -> bool:
    """Store the edges between regions whose key is in [low, high); of edges between the same two in a row, the lightest.

    Args:
        image: (C, N).
        grid: depth, height and width, of product N.
        offsets: (E, 3).
        strides: (E,): what the offsets are in N.
        factors: (E,).
        labels: (N,).
        both: leave out edges of which both regions are final, else those of which one is.
        low: least key.
        high: key above.
        records: (E, capacity), filled in raster order; see ``counts``.
        pairs: (E, capacity): both regions of an edge, 32 bits each.
        weights: (E, capacity).
        counts: (E,): how many were stored.

    Returns:
        Whether all edges had place.
    """
    row, keys, flags, places = _row_space(grid[2])
    counts[:] = 0
    for z in range(grid[0]):
        for y in range(grid[1]):
            for e in range(len(offsets)):
                start, n = _overlap(grid, z, y, offsets[e])
                if n == 0:
                    continue
                other = start + strides[e]
                _row_weights(image, start, other, n, factors[e], row, keys)
                here, there = labels[start : start + n], labels[other : other + n]
                _flag(keys.view(np.int32), here, there, both, low, high, n, flags)
                found = _flagged(flags, n, places)
                if found == 0:
                    continue
                if counts[e] + found > records.shape[1]:
                    return False
                base = e * records.shape[1]
                counts[e] = _append(
                    places[:found],
                    keys.view(np.int32),
                    row,
                    here,
                    there,
                    base,
                    counts[e],
                    records[e],
                    pairs[e],
                    weights[e],
                )
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
def _append(
    places: Ints,
    keys: Ints,
    row: Doubles,
    here: Ints,
    there: Ints,
    base: int,
    count: int,
    records: Longs,
    pairs: Longs,
    weights: Doubles,
) -> int:
    """Append the edges of a row, writing over the last while the pair stays the same; return the new count."""
    last, key, weight = np.int64(-1), np.int64(0), 0.0
    count -= 1
    for i in places:
        pair = (np.int64(here[i] & LOW31) << 32) | np.int64(there[i] & LOW31)
        fresh = pair != last
        count += fresh
        lighter = fresh | (row[i] < weight)
        key = np.int64(keys[i]) if lighter else key
        weight = row[i] if lighter else weight
        last = pair
        records[count] = (key << 32) | (base + count)
        pairs[count] = pair
        weights[count] = weight
    return count + 1


@compiled
def sample(image: Doubles, grid: Grid, offsets: Longs, strides: Longs, factors: Doubles, step: int) -> Longs:
    """Return keys and edges (direction * N + pixel) of about N / step pixels, sorted by key, as rows (key, edge)."""
    size = image.shape[1]
    weights, keys = np.empty(1), np.empty(1, np.float32)
    found = np.empty((len(offsets) * (size // step + 1), 2), np.int64)
    count = 0
    for e in range(len(offsets)):
        for pixel in range((step // 2 * (e + 1)) % step, size, step):
            z, y, x = pixel // (grid[1] * grid[2]), pixel // grid[2] % grid[1], pixel % grid[2]
            start, n = _overlap(grid, z, y, offsets[e])
            if 0 <= pixel - start < n:
                _row_weights(image, pixel, pixel + strides[e], 1, factors[e], weights, keys)
                found[count] = key_of(keys[0]), e * size + pixel
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
                count += np.int64(flags[i])
    return count
