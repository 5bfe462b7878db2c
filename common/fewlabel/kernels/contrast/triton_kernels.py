# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels of contrast.

Forward: a program owns a block of queries and walks over the keys; logits are taken in base 2 (log2(e) / temperature in
one factor), summed as they are where they are bounded and under an online maximum otherwise. The label mask is a
comparison of two vectors in registers. Backward: one kernel,

    dX = W Y,   W_ij = E_ij (w_i + w_j),

whose program owns a block of X, so that sums have a fixed order and need no atomics. A set against itself takes both
terms (X = Y); otherwise the query's gradient takes w_i alone, and the key's w_j alone with the roles exchanged.

Only tiles that touch the diagonal or the last key test indices. Products of half types are exact and summed in float32;
those of float32 are six products of parts (:mod:`fewlabel.kernels.contrast.triton_rows`) with the error of float32. In
the backward pass W is rounded to the type of half-type keys, or parted; for float16, which would lose small weights,
gains are scaled to its range first.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code=import-untyped
from __future__ import annotations

import math

import triton
import triton.language as tl

from fewlabel.kernels.contrast import _tiles
from fewlabel.kernels.contrast.triton_rows import load_rows, product, split

_LN_2 = tl.constexpr(math.log(2.0))
_NO_KEY = tl.constexpr(_tiles.NO_KEY)


@triton.jit
def _logits(
    x, x1, x2, y, y1, y2, rows, columns, m, mask, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr,
    EDGE: tl.constexpr, EXCLUDE_SELF: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Similarities in base 2; -inf where the pair does not count."""
    zeros = tl.zeros([ROWS, COLUMNS], tl.float32)
    s = product(x, x1, x2, tl.trans(y), tl.trans(y1), tl.trans(y2), zeros, PARTS) * scale
    if EDGE:
        seen = (columns < m)[None, :]
        if EXCLUDE_SELF:
            seen = seen & (rows[:, None] != columns[None, :])
        s = tl.where(seen, s, float("-inf"))
    if MASK:
        exists = tl.load(mask + columns, mask=columns < m, other=0) != 0
        s = tl.where(exists[None, :], s, float("-inf"))
    return s


@triton.jit
def _diagonal_tiles(first, m, ROWS: tl.constexpr, COLUMNS: tl.constexpr, EXCLUDE_SELF: tl.constexpr):
    """Number of full tiles of columns, and of those the first and the number that touch the diagonal."""
    whole = m // COLUMNS
    begin = tl.minimum(first // COLUMNS, whole)
    end = tl.minimum((first + ROWS + COLUMNS - 1) // COLUMNS, whole)
    return whole, begin, (end - begin if EXCLUDE_SELF else 0)


@triton.jit
def _tile_count(m, whole, edges, COLUMNS: tl.constexpr, EDGE: tl.constexpr):
    """Tiles that must test indices (the diagonal, the last partial one), or those that need not."""
    return edges + tl.where(m % COLUMNS > 0, 1, 0) if EDGE else whole - edges


@triton.jit
def _tile_number(t, whole, begin, edges, EDGE: tl.constexpr):
    """Number of the t-th tile of either kind."""
    return tl.where(t < edges, begin + t, whole) if EDGE else t + tl.where(t < begin, 0, edges)


@triton.jit
def _selected(x_labels, y_labels, SECOND: tl.constexpr):
    """Pairs of the second sum: other labels (1) or the same (2)."""
    same = x_labels[:, None] == y_labels[None, :]
    return same if SECOND == 2 else same == 0


@triton.jit
def _take_in(total, peak, s):
    """Add a tile to sums of exponentials under an online maximum."""
    higher = tl.maximum(peak, tl.max(s, 1))
    return total * tl.exp2(peak - higher) + tl.sum(tl.exp2(s - higher[:, None]), 1), higher


@triton.jit
def lse_kernel(
    query, key, query_labels, key_labels, key_mask, lse, natural, n, m, scale,
    C: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SECOND: tl.constexpr,
    MASK: tl.constexpr, EXCLUDE_SELF: tl.constexpr, BOUNDED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write (streams, B, n) log-sum-exp in base 2 and in base e; grid: blocks of queries, items."""
    batch = tl.program_id(1).to(tl.int64)
    B = tl.num_programs(1).to(tl.int64)
    first = tl.program_id(0) * ROWS
    rows = first + tl.arange(0, ROWS)
    key += batch * m * C
    key_mask += batch * m
    key_labels += batch * m
    x, x1, x2 = load_rows(query + batch * n * C, rows, n, B * n * C, C, PARTS, True, UPCAST)
    if SECOND:
        x_labels = tl.load(query_labels + batch * n + rows, mask=rows < n, other=0)
    total = tl.zeros([ROWS], tl.float32)
    second = tl.zeros([ROWS], tl.float32)
    start = 0.0 if BOUNDED else -1e29  # below every logit, above -inf
    peak = tl.zeros([ROWS], tl.float32) + start
    second_peak = tl.zeros([ROWS], tl.float32) + start
    whole, begin, edges = _diagonal_tiles(first, m, ROWS, COLUMNS, EXCLUDE_SELF)
    for EDGE in tl.static_range(2):
        for t in range(0, _tile_count(m, whole, edges, COLUMNS, EDGE)):
            columns = _tile_number(t, whole, begin, edges, EDGE) * COLUMNS + tl.arange(0, COLUMNS)
            y, y1, y2 = load_rows(key, columns, m, B * m * C, C, PARTS, EDGE, UPCAST)
            s = _logits(
                x, x1, x2, y, y1, y2, rows, columns, m, key_mask, scale,
                ROWS, COLUMNS, PARTS, EDGE, EXCLUDE_SELF, MASK,
            )  # fmt: skip
            if BOUNDED:
                s = tl.exp2(s)
                total += tl.sum(s, 1)
            else:
                total, peak = _take_in(total, peak, s)
            if SECOND:
                y_labels = tl.load(key_labels + columns, mask=columns < m, other=0)
                chosen = _selected(x_labels, y_labels, SECOND)
                if BOUNDED:
                    second += tl.sum(tl.where(chosen, s, 0.0), 1)
                else:
                    second, second_peak = _take_in(second, second_peak, tl.where(chosen, s, float("-inf")))
    _store_lse(lse, natural, batch * n + rows, peak + tl.log2(total), rows < n)
    if SECOND:
        _store_lse(lse, natural, (B + batch) * n + rows, second_peak + tl.log2(second), rows < n)


@triton.jit
def _store_lse(lse, natural, at, value, exists):
    """Store in both bases; that of base 2 is for the backward pass, where a row without keys must weigh nothing."""
    tl.store(lse + at, tl.where(value == float("-inf"), _NO_KEY, value), mask=exists)
    tl.store(natural + at, value * _LN_2, mask=exists)


@triton.jit
def _weights(
    s, x_gain, y_gain, x_lse, y_lse, X: tl.constexpr, Y: tl.constexpr, BOUNDED: tl.constexpr
):  # fmt: skip
    """w_i + w_j; with unbounded logits times E_ij, which then never stands alone."""
    if BOUNDED:
        if X and Y:
            return x_gain[:, None] + y_gain[None, :]
        return tl.zeros_like(s) + (x_gain[:, None] if X else y_gain[None, :])
    w = tl.zeros_like(s)
    if X:
        w += x_gain[:, None] * tl.exp2(s - x_lse[:, None])
    if Y:
        w += y_gain[None, :] * tl.exp2(s - y_lse[None, :])
    return w


@triton.jit
def _statistics(gains, lse, index, limit, stream, B, USED: tl.constexpr, BOUNDED: tl.constexpr):
    """Gain and log-sum-exp of rows, or zeros where this side has no part."""
    gain = tl.zeros(index.shape, tl.float32)
    shift = tl.zeros(index.shape, tl.float32)
    if USED:
        at = (stream * B + tl.program_id(1).to(tl.int64)) * limit + index
        gain = tl.load(gains + at, mask=index < limit, other=0.0)
        if not BOUNDED:
            shift = tl.load(lse + at, mask=index < limit, other=0.0)
    return gain, shift


@triton.jit
def gain_kernel(
    upstream, lse, unit, gains, stride_b, stride_n, n, count, factor,
    BOUNDED: tl.constexpr, SCALED: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """Write the ``count`` gains of one sum: upstream times a factor; if bounded, over the row's sum of exponentials."""
    at = tl.program_id(0) * NUMBERS + tl.arange(0, NUMBERS)
    exists = at < count
    row = at.to(tl.int64)
    gain = tl.load(upstream + row // n * stride_b + row % n * stride_n, mask=exists, other=0.0) * factor
    shift = tl.load(lse + at, mask=exists, other=0.0)
    if SCALED:
        gain = gain / tl.load(unit)
    if BOUNDED:
        gain = gain * tl.exp2(-shift)
    tl.store(gains + at, tl.where(shift == _NO_KEY, 0.0, gain), mask=exists)


@triton.jit
def gradient_kernel(
    x_rows, y_rows, x_labels, y_labels, y_mask, x_gains, y_gains, x_lse, y_lse, unit, gradient, n, m, scale,
    C: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FIRST: tl.constexpr,
    SECOND: tl.constexpr, MASK: tl.constexpr, EXCLUDE_SELF: tl.constexpr, BOUNDED: tl.constexpr, X: tl.constexpr,
    Y: tl.constexpr, SCALED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write W Y, if scaled times ``unit[0]``, (B, n, C); X, Y: whose weights take part; grid: blocks of x, items."""
    batch = tl.program_id(1).to(tl.int64)
    B = tl.num_programs(1).to(tl.int64)
    first = tl.program_id(0) * ROWS
    rows = first + tl.arange(0, ROWS)
    y_rows += batch * m * C
    y_mask += batch * m
    x, x1, x2 = load_rows(x_rows + batch * n * C, rows, n, B * n * C, C, PARTS, True, UPCAST)
    x_gain, x_shift = _statistics(x_gains, x_lse, rows, n, 0, B, X and FIRST, BOUNDED)
    x_gain2, x_shift2 = _statistics(x_gains, x_lse, rows, n, 1, B, X and SECOND > 0, BOUNDED)
    if SECOND:
        x_label = tl.load(x_labels + batch * n + rows, mask=rows < n, other=0)
    total = tl.zeros([ROWS, C], tl.float32)
    whole, begin, edges = _diagonal_tiles(first, m, ROWS, COLUMNS, EXCLUDE_SELF)
    for EDGE in tl.static_range(2):
        for t in range(0, _tile_count(m, whole, edges, COLUMNS, EDGE)):
            columns = _tile_number(t, whole, begin, edges, EDGE) * COLUMNS + tl.arange(0, COLUMNS)
            y, y1, y2 = load_rows(y_rows, columns, m, B * m * C, C, PARTS, EDGE, UPCAST)
            s = _logits(
                x, x1, x2, y, y1, y2, rows, columns, m, y_mask, scale,
                ROWS, COLUMNS, PARTS, EDGE, EXCLUDE_SELF, MASK,
            )  # fmt: skip
            w = tl.zeros_like(s)
            if FIRST:
                y_gain, y_shift = _statistics(y_gains, y_lse, columns, m, 0, B, Y, BOUNDED)
                w = _weights(s, x_gain, y_gain, x_shift, y_shift, X, Y, BOUNDED)
            if SECOND:
                y_gain2, y_shift2 = _statistics(y_gains, y_lse, columns, m, 1, B, Y, BOUNDED)
                y_label = tl.load(y_labels + batch * m + columns, mask=columns < m, other=0)
                w2 = _weights(s, x_gain2, y_gain2, x_shift2, y_shift2, X, Y, BOUNDED)
                w += tl.where(_selected(x_label, y_label, SECOND), w2, 0.0)
            if BOUNDED:
                w *= tl.exp2(s)
            v, v1, v2 = _weight_parts(w, y.dtype, PARTS, UPCAST)
            if PARTS == 1:
                total = product(v, v1, v2, y, y1, y2, total, PARTS)
            else:  # tensor cores cut what they add off: over thousands of keys that would be seen in float32
                total += product(v, v1, v2, y, y1, y2, tl.zeros([ROWS, C], tl.float32), PARTS)
    if SCALED:
        total *= tl.load(unit)
    at = gradient + batch * n * C + rows[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(at, total.to(gradient.dtype.element_ty), mask=(rows < n)[:, None])


@triton.jit
def _weight_parts(w, dtype: tl.constexpr, PARTS: tl.constexpr, UPCAST: tl.constexpr):
    """Weights in the type of the rows; see :func:`load_rows`."""
    if PARTS == 1:
        high, middle, low = w.to(dtype), w, w
    else:
        high, middle, low = split(w)
        if UPCAST:
            high, middle, low = high.to(tl.float32), middle.to(tl.float32), low.to(tl.float32)
    return high, middle, low
