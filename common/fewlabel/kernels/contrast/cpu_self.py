# SPDX-License-Identifier: Apache-2.0
"""Tiled log-sum-exp of a set's similarities with itself: E is symmetric, so half of the tiles are enough.

Forward: a tile above the diagonal is summed along its rows and along its columns. Backward: with g the upstream
gradient of row i over the temperature and w_i = g_i / sum_j E_ij,

    dZ = W Z,   W_ij = E_ij (w_i + w_j),

one sweep in which a tile of W serves its rows and, transposed, its columns. Together 4 N^2 C operations, where separate
gradients of query and key take 8. With labels the second sum has weights of its own under the label mask, and W is the
sum of both. Where the logits are not bounded, E_ij w_i is exp(s_ij - lse_i) g_i, and rows keep their own maximum.

Tiles of one block of rows or columns are added one after another, in an order that does not depend on the number of
threads (:mod:`fewlabel.kernels.tasks`): nor do the bits of the result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.backend import full_precision
from fewlabel.kernels.contrast._order import triangle
from fewlabel.kernels.contrast._tiles import LOG2_E, NO_KEY, Pairs, Sweep, gain_of, length_of, view_of


def self_lse(z: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Log-sum-exp of (B, N, C) rows' similarities with rows of the same item; labels of both sides are one tensor."""
    lse: tuple[Tensor, ...] = _SelfLSE.apply(z, pairs)
    return lse[0], lse[1] if len(lse) == 2 else None


class _SelfLSE(torch.autograd.Function):
    """Log-sum-exp over all rows and, with labels, over the rows that the second sum wants."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, pairs: Pairs) -> tuple[Tensor, ...]:
        with full_precision(z.device):
            if pairs.bounded:
                lse2 = _Triangle(z, pairs).sums().log2_()
            else:
                lse2 = z.new_empty(pairs.streams, *z.shape[:2])
                Sweep(z, z, pairs).rows(lse2, z.new_empty(0))
        ctx.save_for_backward(z, pairs.query_labels, lse2)
        ctx.pairs = pairs
        ctx.set_materialize_grads(False)
        return tuple(lse2 / LOG2_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        z, labels, lse2 = ctx.saved_tensors
        pairs = dataclasses.replace(ctx.pairs, query_labels=labels, key_labels=labels)
        gains = [gain_of(g, lse, pairs.temperature) for g, lse in zip(upstream, lse2, strict=True)]
        shifts = lse2.masked_fill(lse2 == -math.inf, NO_KEY)
        with full_precision(z.device):
            return _Triangle(z, pairs).gradient(gains, shifts), None


class _Triangle(Sweep):
    """The tiles on and above the diagonal."""

    def __init__(self, z: Tensor, pairs: Pairs) -> None:
        super().__init__(z, z, pairs)
        blocks = self.row_blocks
        self.tasks = [(b, blocks[i], blocks[j]) for i, j in triangle(len(blocks)) for b in range(len(z))]

    def sums(self) -> Tensor:
        """Return sums of exponentials of bounded logits, (streams, B, N)."""
        totals = self.key.new_zeros(self.pairs.streams, *self.key.shape[:2])

        def add(b: int, rows: slice, columns: slice, scratch: Tensor) -> None:
            for total, logits in zip(totals, self.tile(b, rows, columns, scratch), strict=True):
                logits.exp2_()
                total[b, rows].add_(logits.sum(dim=1))
                if columns != rows:
                    total[b, columns].add_(logits.sum(dim=0))

        self._each(add, tiles=self.pairs.streams)
        return totals

    def gradient(self, gains: list[Tensor | None], shifts: Tensor) -> Tensor:
        """Return W Z, (B, N, C), from the (B, N) gain and shift (log-sum-exp, base 2) of each sum."""
        total = torch.zeros_like(self.key)
        weigh = self._bounded_weights(gains, shifts) if self.pairs.bounded else self._any_weights(gains, shifts)

        def add(b: int, rows: slice, columns: slice, scratch: Tensor) -> None:
            weights = weigh(b, rows, columns, scratch)
            if weights is None:
                return
            total[b, rows].addmm_(weights, self.key[b, columns])
            if columns != rows:
                total[b, columns].addmm_(weights.t(), self.key[b, rows])

        self._each(add, tiles=self.pairs.streams + 2)
        return total

    def _bounded_weights(self, gains: list[Tensor | None], shifts: Tensor) -> _Weigh:
        """W as the sum over the streams of E (w_i + w_j)."""
        weights = [None if gain is None else gain * torch.exp2(-s) for gain, s in zip(gains, shifts, strict=True)]

        def weigh(b: int, rows: slice, columns: slice, scratch: Tensor) -> Tensor | None:
            out = None
            tiles = self.tile(b, rows, columns, scratch)
            for w, logits in zip(weights, tiles, strict=True):
                if w is None:
                    continue
                both = view_of(scratch[-1], (length_of(rows), length_of(columns)))
                torch.add(w[b, rows, None], w[b, None, columns], out=both)
                term = logits.exp2_().mul_(both)
                out = term if out is None else out.add_(term)
            return out

        return weigh

    def _any_weights(self, gains: list[Tensor | None], shifts: Tensor) -> _Weigh:
        """W as the sum over the streams of g_i exp(s - lse_i) + g_j exp(s - lse_j); no exponential exceeds 1."""

        def weigh(b: int, rows: slice, columns: slice, scratch: Tensor) -> Tensor | None:
            shape = length_of(rows), length_of(columns)
            tiles = self.tile(b, rows, columns, scratch)
            out, part = view_of(scratch[-2], shape).zero_(), view_of(scratch[-1], shape)
            for gain, shift, logits in zip(gains, shifts, tiles, strict=True):
                if gain is None:
                    continue
                for at in ((b, rows, None), (b, None, columns)):
                    out.add_(torch.sub(logits, shift[at], out=part).exp2_().mul_(gain[at]))
            return out

        return weigh

    def _each(self, add: Callable[[int, slice, slice, Tensor], None], tiles: int) -> None:
        """Call ``add`` for every tile; tiles with a common block follow one another."""
        places = [((b, rows.start), (b, columns.start)) for b, rows, columns in self.tasks]
        self.run(add, self.tasks, places, tiles)


_Weigh = Callable[[int, slice, slice, Tensor], Tensor | None]
