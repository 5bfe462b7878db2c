# SPDX-License-Identifier: Apache-2.0
"""Tiled log-sum-exp of similarities: ordinary PyTorch, memory linear in N, runs on every device.

The N x M similarities exist one tile at a time, in a buffer that stays in cache. With E = exp(s / temperature):

- forward: every block of rows sums E over its key tiles and, where the query needs a gradient, E @ key too. Their
  quotient, the softmax-weighted mean key, *is* temperature times the gradient of the log-sum-exp, so the backward pass
  of the query is elementwise on N x C: nothing is recomputed and each similarity is exponentiated once;
- backward of the key, only where it needs one: the tiles are computed again, because
  dk_j = sum_i g_i softmax_ij q_i / temperature needs the upstream gradient g. A frozen key costs nothing;
- both directions at once (``pair_lse``): row and column sums of the same E, keys constant in each direction, so both
  gradients are again plain quotients of sums, and one sweep replaces two;
- query and key one tensor: see :mod:`fewlabel.kernels.contrast.cpu_self`.

Exponentials are taken in base 2 (log2(e) / temperature is folded into the query), which is more than twice as fast as
``exp``. Logits known to be bounded need no shift at all: with |logit| <= 40, sums of E lie far inside float32.
Otherwise each row carries an online maximum.

Threads take blocks of rows (of keys in their backward pass) or, where a tile serves both sides, tiles. What is added to
a row comes in a fixed order, so results are bit-equal for any number of threads.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewlabel.kernels.backend import full_precision
from fewlabel.kernels.contrast._tiles import LOG2_E, NO_KEY, Pairs, Sweep, gain_of, positive
from fewlabel.kernels.contrast.cpu_self import self_lse


def masked_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
    """Tiled form of :func:`fewlabel.kernels.contrast.masked_lse`; arguments are already checked and float32/64."""
    keep = torch.is_grad_enabled() and query.requires_grad
    if key is query and pairs.key_labels is pairs.query_labels and pairs.key_mask is None and not pairs.second_only:
        return self_lse(query, pairs)
    lse: tuple[Tensor, ...] = _RowLSE.apply(query, key, pairs, keep)
    return lse[0], None if pairs.query_labels is None else lse[-1]


def pair_lse(query: Tensor, key: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of every row and of every column; rows differentiable in the query, columns in the key, alone.

    One sweep where the logits are bounded; otherwise rows and columns need different shifts, hence two sweeps.
    """
    if not pairs.bounded:
        rows, _ = masked_lse(query, key.detach(), pairs)
        columns, _ = masked_lse(key, query.detach(), pairs)
        return rows, columns
    keep = torch.is_grad_enabled()
    return _PairLSE.apply(query, key, pairs, keep)


class _RowLSE(torch.autograd.Function):
    """Log-sum-exp over all keys and, with labels, over the keys that the second sum wants."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, pairs: Pairs, keep: bool) -> tuple[Tensor, ...]:
        batch, length, channels = query.shape
        lse2 = query.new_empty(pairs.streams, batch, length)
        means = query.new_empty(pairs.streams if keep else 0, batch, length, channels)
        with full_precision(query.device):
            Sweep(query, key, pairs).rows(lse2, means)
        ctx.save_for_backward(query, key, pairs.query_labels, pairs.key_labels, pairs.key_mask, lse2, means)
        ctx.pairs = pairs
        ctx.set_materialize_grads(False)
        return tuple(lse2 / LOG2_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        query, key, query_labels, key_labels, key_mask, lse2, means = ctx.saved_tensors
        temperature = ctx.pairs.temperature
        gains = [gain_of(g, lse, temperature) for g, lse in zip(upstream, lse2, strict=True)]
        grad_query = torch.zeros_like(query) if ctx.needs_input_grad[0] else None
        grad_key = torch.zeros_like(key, memory_format=torch.contiguous_format) if ctx.needs_input_grad[1] else None
        with full_precision(query.device):
            if grad_query is not None:
                for gain, mean in zip(gains, means, strict=True):
                    if gain is not None:
                        grad_query.addcmul_(gain.unsqueeze(-1), mean)
            if grad_key is not None:
                saved = {"query_labels": query_labels, "key_labels": key_labels, "key_mask": key_mask}
                sweep = Sweep(query, key, dataclasses.replace(ctx.pairs, **saved))
                weighted = [None if gain is None else gain.unsqueeze(-1) * query for gain in gains]
                sweep.keys(lse2.masked_fill(lse2 == -math.inf, NO_KEY), weighted, grad_key)
        return grad_query, grad_key, None, None


class _PairLSE(torch.autograd.Function):
    """Row and column log-sum-exp of bounded logits in one sweep; each side constant in the other's direction."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, pairs: Pairs, keep: bool) -> tuple[Tensor, Tensor]:
        wanted = [keep and needed for needed in ctx.needs_input_grad[:2]]
        with full_precision(query.device):
            sums, moments = Sweep(query, key, pairs).both(query, wanted)
        for moment, total in zip(moments, sums, strict=True):
            if moment is not None:
                moment.div_(positive(total).unsqueeze(-1))
        lse = sums[0].log(), sums[1].log()
        ctx.save_for_backward(*lse, *moments)
        ctx.temperature = pairs.temperature
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
            gain = gain_of(g, total, ctx.temperature)
            grads.append(gain.unsqueeze(-1) * mean if needed and gain is not None else None)
        return *grads, None, None
