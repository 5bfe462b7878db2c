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
Otherwise each row carries an online maximum.

Blocks of rows (of keys in their backward pass) are dealt out to threads that meet once, at the end. Each sums its tiles
in a fixed order, without locks or atomics: with the same number of threads, repeats are bit-equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.backend import full_precision
from fewlabel.kernels.threads import run_shares, share_count

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
            _Sweep(query, key, query_labels, key_labels, temperature, exclude_self).rows(bounded, lse2, means)
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
                sweep = _Sweep(query, key, query_labels, key_labels, ctx.temperature, ctx.exclude_self)
                weighted = [None if gain is None else gain.unsqueeze(-1) * query for gain in gains]
                sweep.keys(lse2.masked_fill(lse2 == -math.inf, _NO_KEY), weighted, grad_key)
        return grad_query, grad_key, None, None, None, None, None, None


class _PairLSE(torch.autograd.Function):
    """Row and column log-sum-exp of bounded logits in one sweep; each side constant in the other's direction."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, temperature: float, exclude_self: bool, keep: bool
    ) -> tuple[Tensor, Tensor]:
        wanted = [keep and needed for needed in ctx.needs_input_grad[:2]]
        with full_precision(query.device):
            sums, moments = _Sweep(query, key, None, None, temperature, exclude_self).both(query, wanted)
        for moment, total in zip(moments, sums, strict=True):
            if moment is not None:
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
    """All similarities in base 2, tile by tile: each share of the work has buffers that it uses again and again."""

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
        self.row_blocks = list(_blocks(query.shape[1], query.device))
        self.column_blocks = list(_blocks(key.shape[1], key.device))

    def rows(self, bounded: bool, lse2: Tensor, means: Tensor) -> None:
        """Fill (streams, B, N) log-sum-exp and (streams or 0, B, N, C) mean keys; a share has its own rows."""

        def block(b: int, rows: slice, scratch: Tensor, share: int) -> None:
            blocks = [_RowBlock(self.query[b, rows], bounded, len(means) > 0) for _ in lse2]
            for columns in self.column_blocks:
                for running, logits in zip(blocks, self._tile(b, rows, columns, scratch), strict=True):
                    running.add(logits, self.key[b, columns])
            for stream, running in enumerate(blocks):
                running.write(lse2[stream, b, rows], means[stream, b, rows] if len(means) else None)

        self._share(block, self.row_blocks, self._count(self.row_blocks))

    def keys(self, shifts: Tensor, weighted: list[Tensor | None], grad_key: Tensor) -> None:
        """Add softmax^T @ (gain * query) of every stream to the (B, M, C) gradient; a share has its own keys."""

        def block(b: int, columns: slice, scratch: Tensor, share: int) -> None:
            for rows in self.row_blocks:
                tiles = self._tile(b, rows, columns, scratch)
                for shift, query, logits in zip(shifts, weighted, tiles, strict=True):
                    if query is not None:
                        softmax = logits.sub_(shift[b, rows].unsqueeze(-1)).exp2_()
                        grad_key[b, columns].addmm_(softmax.t(), query[b, rows])

        self._share(block, self.column_blocks, self._count(self.column_blocks))

    def both(self, query: Tensor, wanted: list[bool]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return sums of exponentials and, where wanted, sums weighted by partners, along rows and along columns.

        A share has its own rows. Columns it shares with others, so each adds up its own part; parts are added last.
        """
        shares = self._count(self.row_blocks)
        row_sum, column_sums = query.new_zeros(query.shape[:2]), self.key.new_zeros(shares, *self.key.shape[:2])
        row_moment = torch.zeros_like(self.query) if wanted[0] else None
        column_moments = self.key.new_zeros(shares, *self.key.shape) if wanted[1] else None

        def block(b: int, rows: slice, scratch: Tensor, share: int) -> None:
            for columns in self.column_blocks:
                weights = self._tile(b, rows, columns, scratch)[0].exp2_()
                row_sum[b, rows].add_(weights.sum(dim=1))
                column_sums[share, b, columns].add_(weights.sum(dim=0))
                if row_moment is not None:
                    row_moment[b, rows].addmm_(weights, self.key[b, columns])
                if column_moments is not None:
                    column_moments[share, b, columns].addmm_(weights.t(), query[b, rows])

        self._share(block, self.row_blocks, shares)
        column_moment = None if column_moments is None else column_moments.sum(dim=0)
        return [row_sum, column_sums.sum(dim=0)], [row_moment, column_moment]

    def _count(self, blocks: list[slice]) -> int:
        return share_count(len(blocks) * self.query.shape[0], self.query.device)

    def _share(self, block: Callable[[int, slice, Tensor, int], None], blocks: list[slice], shares: int) -> None:
        """Deal (item, block) pairs out to shares in turn."""
        tasks = [(b, part) for b in range(self.query.shape[0]) for part in blocks]
        height, width = (max(map(_length, side), default=0) for side in (self.row_blocks, self.column_blocks))
        scratch = self.query.new_empty(shares, 1 if self.query_labels is None else 2, height * width)

        def work(share: int) -> None:
            for b, part in tasks[share::shares]:
                block(b, part, scratch[share], share)

        run_shares(work, shares)

    def _tile(self, b: int, rows: slice, columns: slice, scratch: Tensor) -> list[Tensor]:
        """Return the logits of a tile: over all keys and, with labels, a second time over other labels only."""
        shape = _length(rows), _length(columns)
        tiles = [buffer[: shape[0] * shape[1]].view(shape) for buffer in scratch]
        torch.mm(self.query[b, rows], self.key[b, columns].t(), out=tiles[0])
        if self.exclude_self:
            tiles[0].diagonal(rows.start - columns.start).fill_(-math.inf)
        if self.query_labels is not None and self.key_labels is not None:
            torch.eq(self.query_labels[b, rows, None], self.key_labels[b, None, columns], out=tiles[1])
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


def _gain(upstream: Tensor | None, lse: Tensor, temperature: float) -> Tensor | None:
    """Return the upstream gradient divided by the temperature, 0 where a row saw no key."""
    if upstream is None:
        return None
    return (upstream / temperature).masked_fill_(lse == -math.inf, 0.0)


def _positive(total: Tensor) -> Tensor:
    """Return a sum of exponentials fit to divide by: rows without keys hold 0 and divide 0."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)


def _blocks(length: int, device: torch.device) -> Iterator[slice]:
    """Cut a length in about equal blocks of at most 576 (a tile of 1.3 MB stays in the cache of a core); GPU: 4,096.

    Widths are multiples of 16, but not of 512, where rows of a tile would fall on the same cache sets.
    """
    largest = 576 if device.type == "cpu" else 4096
    width = math.ceil(length / max(1, math.ceil(length / largest)) / 16) * 16
    width += 16 * (width % 512 == 0)
    for start in range(0, length, max(width, 1)):
        yield slice(start, min(start + width, length))


def _length(block: slice) -> int:
    return int(block.stop - block.start)
