# SPDX-License-Identifier: Apache-2.0
"""Tiled log-sum-exp of similarities: ordinary PyTorch, memory linear in N, runs on every device.

The N x M similarities exist one tile at a time, in a buffer that stays in cache. With E = exp(s / temperature):

- forward: every block of rows sums E over its key tiles and, where the query needs a gradient, E @ key too. Their
  quotient, the softmax-weighted mean key, *is* temperature times the gradient of the log-sum-exp, so the backward pass
  of the query is elementwise on N x C: nothing is recomputed and each similarity is exponentiated once;
- backward of the key, only where it needs one: the tiles are computed again, because
  dk_j = sum_i g_i softmax_ij q_i / temperature needs the upstream gradient g. A frozen key costs nothing;
- both directions at once (``pair_lse``): row and column sums of the same E, keys constant in each direction, so both
  gradients are again plain quotients of sums, and one sweep replaces two.

Exponentials are taken in base 2 (log2(e) / temperature is folded into the query), which is more than twice as fast as
``exp``. Logits known to be bounded need no shift at all: with |logit| <= 40, sums of E lie far inside float32.
Otherwise each row carries an online maximum. Tiles are visited in a fixed order and added without atomics: repeats are
bit-equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.backend import full_precision

_LOG2_E = math.log2(math.e)
_FLOOR = -1e29  # a row's first maximum: below every logit, above _BARRED
_BARRED = -1e30  # added to the logit of a key that a row must not see
_NO_KEY = 1e30  # stands for the log-sum-exp of a row without keys where exp2(logit - lse) must be 0


def masked_lse(
    query: Tensor,
    key: Tensor,
    query_labels: Tensor | None,
    key_labels: Tensor | None,
    temperature: float,
    exclude_self: bool,
    bounded: bool,
) -> tuple[Tensor, Tensor | None]:
    """Tiled form of :func:`fewlabel.kernels.contrast.masked_lse`; arguments are already checked and float32/64."""
    keep = torch.is_grad_enabled() and query.requires_grad
    lse: tuple[Tensor, ...] = _RowLSE.apply(
        query, key, query_labels, key_labels, temperature, exclude_self, bounded, keep
    )
    return lse[0], lse[1] if len(lse) == 2 else None


def pair_lse(
    query: Tensor, key: Tensor, temperature: float, exclude_self: bool, bounded: bool
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of every row and of every column; rows differentiable in the query, columns in the key, alone.

    One sweep where the logits are bounded; otherwise rows and columns need different shifts, hence two sweeps.
    """
    if not bounded:
        rows, _ = masked_lse(query, key.detach(), None, None, temperature, exclude_self, False)
        columns, _ = masked_lse(key, query.detach(), None, None, temperature, exclude_self, False)
        return rows, columns
    keep = torch.is_grad_enabled()
    return _PairLSE.apply(query, key, temperature, exclude_self, keep)


class _RowLSE(torch.autograd.Function):
    """Log-sum-exp over all keys and, with labels, over the keys of other labels."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        query_labels: Tensor | None,
        key_labels: Tensor | None,
        temperature: float,
        exclude_self: bool,
        bounded: bool,
        keep: bool,
    ) -> tuple[Tensor, ...]:
        batch, length, channels = query.shape
        streams = 1 if query_labels is None else 2
        lse2 = query.new_empty(streams, batch, length)
        means = query.new_empty(streams if keep else 0, batch, length, channels)
        with full_precision(query.device):
            for b in range(batch):
                labels = _item(query_labels, b), _item(key_labels, b)
                sweep = _Sweep(query[b], key[b], *labels, temperature, exclude_self)
                _sum_rows(sweep, bounded, lse2[:, b], means[:, b])
        ctx.save_for_backward(query, key, query_labels, key_labels, lse2, means)
        ctx.temperature, ctx.exclude_self = temperature, exclude_self
        ctx.set_materialize_grads(False)
        return tuple(lse2 / _LOG2_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        query, key, query_labels, key_labels, lse2, means = ctx.saved_tensors
        gains = [_gain(g, lse, ctx.temperature) for g, lse in zip(upstream, lse2, strict=True)]
        grad_query = torch.zeros_like(query) if ctx.needs_input_grad[0] else None
        grad_key = torch.zeros_like(key, memory_format=torch.contiguous_format) if ctx.needs_input_grad[1] else None
        with full_precision(query.device):
            if grad_query is not None:
                for gain, mean in zip(gains, means, strict=True):
                    if gain is not None:
                        grad_query.addcmul_(gain.unsqueeze(-1), mean)
            if grad_key is not None:
                shifts = lse2.masked_fill(lse2 == -math.inf, _NO_KEY)
                for b in range(query.shape[0]):
                    labels = _item(query_labels, b), _item(key_labels, b)
                    sweep = _Sweep(query[b], key[b], *labels, ctx.temperature, ctx.exclude_self)
                    weighted = [None if g is None else g[b].unsqueeze(-1) * query[b] for g in gains]
                    _sum_keys(sweep, shifts[:, b], weighted, grad_key[b])
        return grad_query, grad_key, None, None, None, None, None, None


class _PairLSE(torch.autograd.Function):
    """Row and column log-sum-exp of bounded logits in one sweep; each side constant in the other's direction."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, temperature: float, exclude_self: bool, keep: bool
    ) -> tuple[Tensor, Tensor]:
        sums = query.new_zeros(query.shape[:2]), key.new_zeros(key.shape[:2])
        moments = [
            side.new_zeros(side.shape if keep and needed else 0)
            for side, needed in zip((query, key), ctx.needs_input_grad[:2], strict=True)
        ]
        with full_precision(query.device):
            for b in range(query.shape[0]):
                sweep = _Sweep(query[b], key[b], None, None, temperature, exclude_self)
                _sum_both(sweep, query[b], [s[b] for s in sums], [m[b] if m.numel() else None for m in moments])
        for moment, total in zip(moments, sums, strict=True):
            if moment.numel():
                moment.div_(_positive(total).unsqueeze(-1))
        lse = sums[0].log(), sums[1].log()
        ctx.save_for_backward(*lse, *moments)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        *lse, row_means, column_means = ctx.saved_tensors
        grads: list[Tensor | None] = []
        for g, total, mean, needed in zip(
            upstream, lse, (row_means, column_means), ctx.needs_input_grad[:2], strict=True
        ):
            gain = _gain(g, total, ctx.temperature)
            grads.append(gain.unsqueeze(-1) * mean if needed and gain is not None else None)
        return *grads, None, None, None


class _Sweep:
    """The similarities of one item in base 2, tile by tile, in buffers that are used again and again."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        query_labels: Tensor | None,
        key_labels: Tensor | None,
        temperature: float,
        exclude_self: bool,
    ) -> None:
        self.query = query.contiguous() * (_LOG2_E / temperature)
        self.key = key.contiguous()
        self.query_labels, self.key_labels = query_labels, key_labels
        self.exclude_self = exclude_self
        self.row_blocks = list(_blocks(query.shape[0], query.device))
        self.column_blocks = list(_blocks(key.shape[0], key.device))
        height, width = (max(map(_length, side), default=0) for side in (self.row_blocks, self.column_blocks))
        self.scratch = query.new_empty(1 if query_labels is None else 2, height * width)

    def tile(self, rows: slice, columns: slice) -> list[Tensor]:
        """Return the logits of a tile: over all keys and, with labels, a second time over other labels only."""
        shape = _length(rows), _length(columns)
        tiles = [buffer[: shape[0] * shape[1]].view(shape) for buffer in self.scratch]
        torch.mm(self.query[rows], self.key[columns].t(), out=tiles[0])
        if self.exclude_self:
            tiles[0].diagonal(rows.start - columns.start).fill_(-math.inf)
        if self.query_labels is not None and self.key_labels is not None:
            torch.eq(self.query_labels[rows, None], self.key_labels[None, columns], out=tiles[1])
            torch.add(tiles[0], tiles[1], alpha=_BARRED, out=tiles[1])
        return tiles


class _RowBlock:
    """Running maximum, sum of exponentials and, where wanted, exponential-weighted sum of keys of a block of rows."""

    def __init__(self, query: Tensor, bounded: bool, keep: bool) -> None:
        self.peak = None if bounded else query.new_full(query.shape[:1], _FLOOR)
        self.total = query.new_zeros(query.shape[:1])
        self.moment = torch.zeros_like(query) if keep else None

    def add(self, logits: Tensor, key: Tensor) -> None:
        """Take in one tile of logits; the tile is overwritten."""
        if self.peak is not None:
            peak = torch.maximum(self.peak, logits.amax(dim=1))
            decay = torch.exp2(self.peak - peak)
            self.total.mul_(decay)
            if self.moment is not None:
                self.moment.mul_(decay.unsqueeze(-1))
            logits.sub_(peak.unsqueeze(-1))
            self.peak = peak
        logits.exp2_()
        self.total.add_(logits.sum(dim=1))
        if self.moment is not None:
            self.moment.addmm_(logits, key)

    def write(self, lse2: Tensor, mean: Tensor | None) -> None:
        """Write the log-sum-exp (base 2) and the mean key; a row without keys gets -inf and 0."""
        torch.log2(self.total, out=lse2)
        if self.peak is not None:
            lse2.add_(self.peak)
        if self.moment is not None and mean is not None:
            torch.div(self.moment, _positive(self.total).unsqueeze(-1), out=mean)


def _sum_rows(sweep: _Sweep, bounded: bool, lse2: Tensor, means: Tensor) -> None:
    """Fill (streams, N) log-sum-exp and (streams or 0, N, C) mean keys of one item."""
    keep = means.shape[0] > 0
    for rows in sweep.row_blocks:
        blocks = [_RowBlock(sweep.query[rows], bounded, keep) for _ in lse2]
        for columns in sweep.column_blocks:
            for block, logits in zip(blocks, sweep.tile(rows, columns), strict=True):
                block.add(logits, sweep.key[columns])
        for stream, block in enumerate(blocks):
            block.write(lse2[stream, rows], means[stream, rows] if keep else None)


def _sum_keys(sweep: _Sweep, shifts: Tensor, weighted: list[Tensor | None], grad_key: Tensor) -> None:
    """Add softmax^T @ (gain * query) of every stream to the (M, C) gradient of the keys of one item."""
    for rows in sweep.row_blocks:
        for columns in sweep.column_blocks:
            for shift, query, logits in zip(shifts, weighted, sweep.tile(rows, columns), strict=True):
                if query is not None:
                    softmax = logits.sub_(shift[rows].unsqueeze(-1)).exp2_()
                    grad_key[columns].addmm_(softmax.t(), query[rows])


def _sum_both(sweep: _Sweep, query: Tensor, sums: list[Tensor], moments: list[Tensor | None]) -> None:
    """Add up exponentials, and exponential-weighted partners where wanted, along rows and along columns."""
    row_moment, column_moment = moments
    for rows in sweep.row_blocks:
        for columns in sweep.column_blocks:
            weights = sweep.tile(rows, columns)[0].exp2_()
            sums[0][rows].add_(weights.sum(dim=1))
            sums[1][columns].add_(weights.sum(dim=0))
            if row_moment is not None:
                row_moment[rows].addmm_(weights, sweep.key[columns])
            if column_moment is not None:
                column_moment[columns].addmm_(weights.t(), query[rows])


def _gain(upstream: Tensor | None, lse: Tensor, temperature: float) -> Tensor | None:
    """Return the upstream gradient divided by the temperature, 0 where a row saw no key."""
    if upstream is None:
        return None
    return (upstream / temperature).masked_fill_(lse == -math.inf, 0.0)


def _positive(total: Tensor) -> Tensor:
    """Return a sum of exponentials fit to divide by: rows without keys hold 0 and divide 0."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)


def _blocks(length: int, device: torch.device) -> Iterator[slice]:
    """Cut a length in about equal blocks of at most 1,152 (a tile of 5 MB), on a GPU of 4,096.

    Measured on CPU: smaller tiles pay more for each call (several times more where cores are shared), larger ones fall
    out of cache. Widths are multiples of 16, but not of 512, where rows of a tile would fall on the same cache sets.
    """
    largest = 1152 if device.type == "cpu" else 4096
    width = math.ceil(length / max(1, math.ceil(length / largest)) / 16) * 16
    width += 16 * (width % 512 == 0)
    for start in range(0, length, max(width, 1)):
        yield slice(start, min(start + width, length))


def _length(block: slice) -> int:
    return int(block.stop - block.start)


def _item(labels: Tensor | None, index: int) -> Tensor | None:
    return None if labels is None else labels[index]
