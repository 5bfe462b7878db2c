# SPDX-License-Identifier: Apache-2.0
"""Log-sum-exp of similarities on NVIDIA GPUs: the N x M similarities exist in registers only.

Forward: a program owns a block of queries and walks over the keys; logits are taken in base 2 (log2(e) / temperature in
one factor), summed as they are where they are bounded and under an online maximum otherwise. The label mask is a
comparison of two vectors in registers. Backward: one kernel,

    dX = W Y,   W_ij = E_ij (w_i + w_j),

whose program owns a block of X, so that sums have a fixed order and need no atomics. A set against itself takes both
terms in one launch (X = Y); otherwise the query's gradient takes w_i alone, and the key's w_j alone with the roles
exchanged. Keys that need no gradient cost nothing.

Only tiles that touch the diagonal or the last key test indices. Products of half types are exact and summed in float32;
those of float32 are six products of parts (:mod:`fewlabel.kernels.contrast.triton_rows`) with the error of float32. In
the backward pass W is rounded to the type of half-type keys, or parted; for float16, which would lose small weights,
gains are scaled to its range first. Nothing synchronizes with the host.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.contrast._tiles import LOG2_E, Pairs
from fewlabel.kernels.contrast.triton_rows import load_rows, matrix_rows, product, split

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_PEAK_WEIGHT = 2.0**12  # the largest gain after scaling: twice that, for two sums, fits float16
_LN_2 = tl.constexpr(math.log(2.0))
_NO_KEY = tl.constexpr(1e30)  # stands for the log-sum-exp in base 2 of a row without keys
_GAINS = 256  # of a program that computes them


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Rows that a program owns, columns it takes at once, warps and pipeline stages."""

    rows: int
    columns: int
    warps: int
    stages: int


def tiling(kind: str, channels: int, parts: int, capability: int, sums: int = 1) -> Tiling:
    """Return the tiling of a kernel; ``tests/kernels`` compiles each of them and refuses spills.

    Args:
        kind: ``"forward"`` or ``"backward"``.
        channels: padded to a power of two, 16 to 256.
        parts: of a number: 1, or 3 for float32.
        capability: of the GPU, 10 major + minor.
        sums: of a row: 2 with labels.
    """
    large = 90 <= capability < 120  # 227 KB of shared memory; consumer cards of every generation have 99
    if parts > 1:
        return _tiling_of_floats(kind, channels, large)
    if kind == "forward":
        if large and sums == 2:  # masks need registers
            return Tiling(64, 64, 4, 3 if channels <= 128 else 2)
        return Tiling(128, 128, 8, 2) if large else Tiling(128, 64, 8, 2)
    if large and channels == 128:
        return Tiling(64, 128, 4, 2)
    if large and channels > 128:
        return Tiling(128, 64, 8, 2)
    return Tiling(64, 64, 8 if channels == 256 else 4, 2)


def _tiling_of_floats(kind: str, channels: int, large: bool) -> Tiling:
    """Three parts of each number take three times the room."""
    if large and channels <= 64:
        return Tiling(64, 64, 4, 3)
    if large:
        return Tiling(128, 64, 8, 2) if kind == "forward" else Tiling(64, 32, 4, 2)
    return Tiling(32 if kind == "backward" and channels > 64 else 64, 32, 4, 2)


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


def masked_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Triton form of :func:`fewlabel.kernels.contrast.masked_lse`; arguments are already checked, not float64."""
    x = matrix_rows(query)
    if key is query and pairs.key_labels is pairs.query_labels and pairs.key_mask is None:
        return _lse(query, None, x, x, pairs)
    return _lse(query, key, x, matrix_rows(key), pairs)


def pair_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of every row and of every column; rows differentiable in the query, columns in the key, alone."""
    x, y = matrix_rows(query), matrix_rows(key)
    rows, _ = _lse(query, key.detach(), x, y, pairs)
    columns, _ = _lse(key, query.detach(), y, x, pairs)
    return rows, columns


def _lse(query: Tensor, key: Tensor | None, x: Tensor, y: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    lse: tuple[Tensor, ...] = _LSE.apply(query, key, x, y, pairs)
    return lse[0], lse[1] if len(lse) == 2 else None


class _LSE(torch.autograd.Function):
    """Log-sum-exp of queries over keys, both given as matrix rows too; no key: the queries are their own keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor | None, x: Tensor, y: Tensor, pairs: Pairs) -> tuple[Tensor, ...]:
        x_labels, y_labels = _comparable(pairs.query_labels), _comparable(pairs.key_labels)
        lse2, lse = torch.empty(2, pairs.streams, *x.shape[1:3], dtype=torch.float32, device=x.device)
        if lse2.numel():
            _launch_forward(x, y, x_labels, y_labels, pairs, lse2, lse)
        ctx.save_for_backward(x, y, x_labels, y_labels, pairs.key_mask, lse2)
        ctx.pairs, ctx.channels, ctx.is_self, ctx.dtype = pairs, query.shape[-1], key is None, query.dtype
        ctx.set_materialize_grads(False)
        return lse.unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, x_labels, y_labels, mask, lse2 = ctx.saved_tensors
        gains, unit = _gains(upstream, lse2, ctx.pairs, ctx.dtype)
        side_x, side_y = (x, x_labels, gains, lse2), (y, y_labels, gains, lse2)
        used = [g is not None for g in upstream]
        grads: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[0]:
            grads[0] = _gradient(side_x, side_y, mask, (True, ctx.is_self), used, unit, ctx)
        if ctx.needs_input_grad[1]:
            of_key = _gradient(side_y, side_x, None, (False, True), used, unit, ctx)
            grads[1] = of_key if mask is None else of_key.masked_fill_(~mask.unsqueeze(-1), 0.0)
        return *(None if grad is None else grad[..., : ctx.channels] for grad in grads), None, None, None


def _gains(
    upstream: tuple[Tensor | None, ...], lse2: Tensor, pairs: Pairs, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Return the gain of each row for each sum, (streams, B, N), and the unit in which float16 has them."""
    gains, unit = torch.empty_like(lse2), None
    if dtype == torch.float16 and lse2.numel():
        sums = [(g, lse) for g, lse in zip(upstream, lse2, strict=True) if g is not None]
        largest = torch.stack([torch.where(lse == _NO_KEY.value, 0, g) for g, lse in sums]).abs().amax()
        peak = largest / (pairs.temperature * _PEAK_WEIGHT)
        unit = peak.clamp(min=torch.finfo(torch.float32).tiny)
    for stream, g in enumerate(upstream):
        if g is None or g.numel() == 0:
            continue
        with _on(g):
            gain_kernel[(math.ceil(g.numel() / _GAINS),)](
                g, lse2[stream], gains if unit is None else unit, gains[stream], *g.stride(), g.shape[1], g.numel(),
                1 / pairs.temperature, BOUNDED=pairs.bounded, SCALED=unit is not None, NUMBERS=_GAINS,
            )  # fmt: skip
    return gains, unit


_Side = tuple[Tensor, Tensor | None, Tensor, Tensor]  # rows, labels, gains or weights, log-sum-exp


def _gradient(
    x: _Side, y: _Side, mask: Tensor | None, sides: tuple[bool, bool], used: list[bool], unit: Tensor | None, ctx: Any
) -> Tensor:
    """Return the gradient of the rows of ``x``, weighted by the statistics of ``sides`` = (x, y)."""
    rows, labels, gains, lse = x
    parts, batch, n, channels = rows.shape
    out = torch.empty(batch, n, channels, dtype=ctx.dtype, device=rows.device)
    second = _second(ctx.pairs) if len(used) == 2 and used[1] else 0
    if out.numel() == 0 or y[0].numel() == 0 or not any(used):
        return out.zero_()
    tiles = tiling("backward", channels, parts, _capability(rows))
    with _on(rows):
        gradient_kernel[(math.ceil(n / tiles.rows), batch)](
            rows, y[0], _or(labels, rows), _or(y[1], rows), _or(mask, rows), gains, y[2], lse, y[3], _or(unit, rows),
            out, n, y[0].shape[2], LOG2_E / ctx.pairs.temperature,
            FIRST=used[0], SECOND=second, MASK=mask is not None, X=sides[0], Y=sides[1], SCALED=unit is not None,
            **_constants(rows, ctx.pairs, tiles),
        )  # fmt: skip
    return out


def _launch_forward(
    x: Tensor, y: Tensor, x_labels: Tensor | None, y_labels: Tensor | None, pairs: Pairs, lse2: Tensor, lse: Tensor
) -> None:
    """Fill (streams, B, N) log-sum-exp in base 2 and in base e."""
    parts, batch, n, channels = x.shape
    tiles = tiling("forward", channels, parts, _capability(x), pairs.streams)
    mask = pairs.key_mask
    with _on(x):
        lse_kernel[(math.ceil(n / tiles.rows), batch)](
            x, y, _or(x_labels, x), _or(y_labels, x), _or(mask, x), lse2, lse,
            n, y.shape[2], LOG2_E / pairs.temperature,
            SECOND=_second(pairs), MASK=mask is not None, **_constants(x, pairs, tiles),
        )  # fmt: skip


def _constants(x: Tensor, pairs: Pairs, tiles: Tiling) -> dict[str, Any]:
    """Compile-time arguments that both kernels have, and launch options."""
    return {
        "C": x.shape[-1],
        "PARTS": len(x),
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
        "EXCLUDE_SELF": pairs.exclude_self,
        "BOUNDED": pairs.bounded,
        "UPCAST": _INTERPRETED,  # its bfloat16 products are wrong
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _second(pairs: Pairs) -> int:
    return 0 if pairs.query_labels is None else 1 + pairs.same_label


def _comparable(labels: Tensor | None) -> Tensor | None:
    """Return contiguous labels of 32 bits, or of 64 where they come so."""
    if labels is None:
        return None
    return labels.to(torch.int64 if labels.dtype == torch.int64 else torch.int32).contiguous()


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """A kernel wants a pointer even where it reads nothing."""
    return stand_in if tensor is None else tensor.contiguous()


def _capability(x: Tensor) -> int:
    return _capability_of(x.device.index) if x.device.type == "cuda" else 80


@functools.cache
def _capability_of(device: int) -> int:
    """Ask once: the driver takes as long as a launch."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _on(x: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()
