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
float32 is split in three TF32 products, whose error is that of float32. In the backward pass W is rounded to the
type of the keys; gains are scaled to its range first (a power of two apart, float16 would lose small weights).
Nothing synchronizes with the host.
"""

from __future__ import annotations

import dataclasses
import math
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from fewlabel.kernels.contrast._tiles import LOG2_E, NO_KEY, Pairs, gain_of

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_PEAK_WEIGHT = 2.0**12  # the largest gain after scaling: twice that, for two sums, fits float16


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Rows that a program owns, columns it takes at once, warps and pipeline stages."""

    rows: int
    columns: int
    warps: int
    stages: int


def tiling(kind: str, channels: int, itemsize: int, capability: int, sums: int = 1) -> Tiling:
    """Return the tiling of a kernel; ``tests/kernels`` compiles each of them and refuses spills.

    Args:
        kind: ``"forward"`` or ``"backward"``.
        channels: padded to a power of two, 16 to 256.
        itemsize: bytes of a number: 2 or 4.
        capability: of the GPU, 10 major + minor.
        sums: of a row: 2 with labels.
    """
    large = 90 <= capability < 120  # 227 KB of shared memory; consumer cards of every generation have 99
    if itemsize == 4:
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
    """Numbers are split into two parts each, in registers: tiles are small."""
    if channels > 64:
        return Tiling(32, 16, 4, 2) if kind == "forward" else Tiling(16, 32, 4, 2)
    if kind == "forward":
        return Tiling(64, 64, 8, 2) if large else Tiling(64, 32, 4, 2)
    return Tiling(64, 32, 8, 2) if large else Tiling(32, 32, 4, 2)


@triton.jit
def _rows_of(base, index, limit, C: tl.constexpr, CHECK: tl.constexpr, UPCAST: tl.constexpr):
    """Load rows of a (limit, C) matrix; rows beyond the limit are 0."""
    at = base + index[:, None] * C + tl.arange(0, C)[None, :]
    rows = tl.load(at, mask=(index < limit)[:, None], other=0.0) if CHECK else tl.load(at)
    return rows.to(tl.float32) if UPCAST else rows


@triton.jit
def _logits(
    x, y, rows, columns, m, mask, scale,
    EDGE: tl.constexpr, EXCLUDE_SELF: tl.constexpr, MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Similarities in base 2; -inf where the pair does not count."""
    s = tl.dot(x, tl.trans(y), input_precision=PRECISION) * scale
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
    query, key, query_labels, key_labels, key_mask, lse, n, m, scale,
    C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SECOND: tl.constexpr, MASK: tl.constexpr,
    EXCLUDE_SELF: tl.constexpr, BOUNDED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write (streams, B, n) log-sum-exp in base 2; grid: blocks of queries, items."""
    batch = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * ROWS
    rows = first + tl.arange(0, ROWS)
    key += batch * m * C
    key_mask += batch * m
    key_labels += batch * m
    x = _rows_of(query + batch * n * C, rows, n, C, True, UPCAST)
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
            y = _rows_of(key, columns, m, C, EDGE, UPCAST)
            s = _logits(x, y, rows, columns, m, key_mask, scale, EDGE, EXCLUDE_SELF, MASK, PRECISION)
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
    out = lse + batch * n + rows
    tl.store(out, peak + tl.log2(total), mask=rows < n)
    if SECOND:
        tl.store(out + tl.num_programs(1).to(tl.int64) * n, second_peak + tl.log2(second), mask=rows < n)


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
def gradient_kernel(
    x_rows, y_rows, x_labels, y_labels, y_mask, x_gains, y_gains, x_lse, y_lse, unit, gradient, n, m, scale,
    C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
    MASK: tl.constexpr, EXCLUDE_SELF: tl.constexpr, BOUNDED: tl.constexpr, X: tl.constexpr, Y: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write W Y times ``unit[0]``, (B, n, C); X, Y: which side's weights take part; grid: blocks of x, items."""
    batch = tl.program_id(1).to(tl.int64)
    B = tl.num_programs(1).to(tl.int64)
    first = tl.program_id(0) * ROWS
    rows = first + tl.arange(0, ROWS)
    y_rows += batch * m * C
    y_mask += batch * m
    x = _rows_of(x_rows + batch * n * C, rows, n, C, True, UPCAST)
    x_gain, x_shift = _statistics(x_gains, x_lse, rows, n, 0, B, X and FIRST, BOUNDED)
    x_gain2, x_shift2 = _statistics(x_gains, x_lse, rows, n, 1, B, X and SECOND > 0, BOUNDED)
    if SECOND:
        x_label = tl.load(x_labels + batch * n + rows, mask=rows < n, other=0)
    total = tl.zeros([ROWS, C], tl.float32)
    whole, begin, edges = _diagonal_tiles(first, m, ROWS, COLUMNS, EXCLUDE_SELF)
    for EDGE in tl.static_range(2):
        for t in range(0, _tile_count(m, whole, edges, COLUMNS, EDGE)):
            columns = _tile_number(t, whole, begin, edges, EDGE) * COLUMNS + tl.arange(0, COLUMNS)
            y = _rows_of(y_rows, columns, m, C, EDGE, UPCAST)
            s = _logits(x, y, rows, columns, m, y_mask, scale, EDGE, EXCLUDE_SELF, MASK, PRECISION)
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
            total = tl.dot(w.to(y.dtype), y, total, input_precision=PRECISION)
    at = gradient + batch * n * C + rows[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(at, (total * tl.load(unit)).to(gradient.dtype.element_ty), mask=(rows < n)[:, None])


def masked_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Triton form of :func:`fewlabel.kernels.contrast.masked_lse`; arguments are already checked, not float64."""
    one = key is query and pairs.key_labels is pairs.query_labels and pairs.key_mask is None
    lse: tuple[Tensor, ...] = _LSE.apply(query, None if one else key, pairs)
    return lse[0], lse[1] if len(lse) == 2 else None


def pair_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of every row and of every column; rows differentiable in the query, columns in the key, alone."""
    rows, _ = masked_lse(query, key.detach(), pairs)
    columns, _ = masked_lse(key, query.detach(), pairs)
    return rows, columns


class _LSE(torch.autograd.Function):
    """Log-sum-exp of queries over keys; no key: the queries are their own keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor | None, pairs: Pairs) -> tuple[Tensor, ...]:
        x = _padded(query)
        y = x if key is None else _padded(key)
        x_labels, y_labels = _comparable(pairs.query_labels), _comparable(pairs.key_labels)
        lse2 = torch.empty(pairs.streams, *x.shape[:2], dtype=torch.float32, device=x.device)
        if lse2.numel():
            _launch_forward(x, y, x_labels, y_labels, pairs, lse2)
        ctx.save_for_backward(x, y, x_labels, y_labels, pairs.key_mask, lse2)
        ctx.pairs, ctx.channels, ctx.is_self = pairs, query.shape[-1], key is None
        ctx.set_materialize_grads(False)
        return tuple(lse2 / LOG2_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, x_labels, y_labels, mask, lse2 = ctx.saved_tensors
        gains = [gain_of(g, lse, ctx.pairs.temperature) for g, lse in zip(upstream, lse2, strict=True)]
        used = [gain is not None for gain in gains]
        stacked = torch.stack([torch.zeros_like(lse2[0]) if gain is None else gain for gain in gains])
        peak = stacked.abs().amax().clamp(min=torch.finfo(torch.float32).tiny) if stacked.numel() else stacked.sum()
        stacked, unit = stacked * (_PEAK_WEIGHT / peak), peak / _PEAK_WEIGHT
        shifts = lse2.masked_fill(lse2 == -math.inf, NO_KEY)
        if ctx.pairs.bounded:
            stacked = stacked * torch.exp2(-shifts)
        side_x, side_y = (x, x_labels, stacked, shifts), (y, y_labels, stacked, shifts)
        grads: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[0]:
            grads[0] = _gradient(side_x, side_y, mask, (True, ctx.is_self), used, unit, ctx)
        if ctx.needs_input_grad[1]:
            of_key = _gradient(side_y, side_x, None, (False, True), used, unit, ctx)
            grads[1] = of_key if mask is None else of_key.masked_fill_(~mask.unsqueeze(-1), 0.0)
        return *(None if grad is None else grad[..., : ctx.channels] for grad in grads), None


_Side = tuple[Tensor, Tensor | None, Tensor, Tensor]  # rows, labels, gains or weights, log-sum-exp


def _gradient(
    x: _Side, y: _Side, mask: Tensor | None, sides: tuple[bool, bool], used: list[bool], unit: Tensor, ctx: Any
) -> Tensor:
    """Return the gradient of the rows of ``x``, weighted by the statistics of ``sides`` = (x, y)."""
    rows, labels, gains, lse = x
    out = torch.zeros_like(rows)
    second = _second(ctx.pairs) if len(used) == 2 and used[1] else 0
    if out.numel() == 0 or y[0].numel() == 0 or not any(used):
        return out
    tiles = tiling("backward", rows.shape[-1], rows.element_size(), _capability(rows))
    with _on(rows):
        gradient_kernel[(triton.cdiv(rows.shape[1], tiles.rows), len(rows))](
            rows, y[0], _or(labels, rows), _or(y[1], rows), _or(mask, rows), gains, y[2], lse, y[3], unit, out,
            rows.shape[1], y[0].shape[1], LOG2_E / ctx.pairs.temperature,
            FIRST=used[0], SECOND=second, MASK=mask is not None, X=sides[0], Y=sides[1],
            **_constants(rows, ctx.pairs, tiles),
        )  # fmt: skip
    return out


def _launch_forward(
    x: Tensor, y: Tensor, x_labels: Tensor | None, y_labels: Tensor | None, pairs: Pairs, lse2: Tensor
) -> None:
    """Fill (streams, B, N) log-sum-exp in base 2."""
    tiles = tiling("forward", x.shape[-1], x.element_size(), _capability(x), pairs.streams)
    mask = pairs.key_mask
    with _on(x):
        lse_kernel[(triton.cdiv(x.shape[1], tiles.rows), len(x))](
            x, y, _or(x_labels, x), _or(y_labels, x), _or(mask, x), lse2,
            x.shape[1], y.shape[1], LOG2_E / pairs.temperature,
            SECOND=_second(pairs), MASK=mask is not None, **_constants(x, pairs, tiles),
        )  # fmt: skip


def _constants(x: Tensor, pairs: Pairs, tiles: Tiling) -> dict[str, Any]:
    """Compile-time arguments that both kernels have, and launch options."""
    return {
        "C": x.shape[-1],
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
        "EXCLUDE_SELF": pairs.exclude_self,
        "BOUNDED": pairs.bounded,
        "PRECISION": "tf32x3" if x.dtype == torch.float32 and not _INTERPRETED else "ieee",
        "UPCAST": _INTERPRETED and x.dtype != torch.float32,  # its bfloat16 products are wrong
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _second(pairs: Pairs) -> int:
    return 0 if pairs.query_labels is None else 1 + pairs.same_label


def _padded(side: Tensor) -> Tensor:
    """Return contiguous rows whose length is a power of two and at least 16, as the tensor cores want them."""
    missing = max(16, triton.next_power_of_2(side.shape[-1])) - side.shape[-1]
    return (pad(side, (0, missing)) if missing else side).contiguous()


def _comparable(labels: Tensor | None) -> Tensor | None:
    """Return contiguous labels of 32 bits, or of 64 where they come so."""
    if labels is None:
        return None
    return labels.to(torch.int64 if labels.dtype == torch.int64 else torch.int32).contiguous()


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """A kernel wants a pointer even where it reads nothing."""
    return stand_in if tensor is None else tensor.contiguous()


def _capability(x: Tensor) -> int:
    if x.device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(x.device)
    return 10 * major + minor


def _on(x: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()
