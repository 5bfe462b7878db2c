# SPDX-License-Identifier: Apache-2.0
"""Similarities tile by tile: what the tiled forms share."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewlabel.kernels.contrast._order import rectangle
from fewlabel.kernels.tasks import run_tasks
from fewlabel.kernels.threads import share_count

LOG2_E = math.log2(math.e)
NO_KEY = 1e30  # stands for the log-sum-exp of a row without keys where exp2(logit - lse) must be 0
_FLOOR = -1e29  # a row's first maximum: below every logit, above _BARRED
_BARRED = -1e30  # added to the logit of a key that a row must not see


@dataclass(frozen=True)
class Pairs:
    """Which pairs of a query and a key count, and how; already checked.

    Attributes:
        temperature: > 0; similarities are divided by it.
        exclude_self: the pair i = j does not count.
        bounded: all logits are small enough to be exponentiated as they are.
        query_labels: (B, N) integers, or ``None`` for no second sum.
        key_labels: (B, M) integers; the same object as ``query_labels`` where both sides are one.
        same_label: the second sum is over keys of the query's own label, else over those of other labels.
        key_mask: (B, M) bool, false where a key does not exist; ``None`` where all do.
        second_only: the first sum is left out; for the tiled form alone.
    """

    temperature: float
    exclude_self: bool = False
    bounded: bool = False
    query_labels: Tensor | None = None
    key_labels: Tensor | None = None
    same_label: bool = False
    key_mask: Tensor | None = None
    second_only: bool = False

    @property
    def streams(self) -> int:
        """How many sums a row has."""
        return self.tiles - self.second_only

    @property
    def tiles(self) -> int:
        """How many tiles of logits are in work at a time."""
        return 1 if self.query_labels is None else 2


class Sweep:
    """All similarities in base 2, tile by tile, in buffers that are used again and again."""

    def __init__(self, query: Tensor, key: Tensor, pairs: Pairs) -> None:
        self.query = query.contiguous() * (LOG2_E / pairs.temperature)
        self.key = key.contiguous()
        self.pairs = pairs
        self.hidden = None if pairs.key_mask is None else ~pairs.key_mask
        self.row_blocks = list(blocks_of(query.shape[1], query.device))
        self.column_blocks = list(blocks_of(key.shape[1], key.device))

    def rows(self, lse2: Tensor, means: Tensor) -> None:
        """Fill (streams, B, N) log-sum-exp and (streams or 0, B, N, C) mean keys, a block of rows at a time."""

        def fill(b: int, rows: slice, scratch: Tensor) -> None:
            blocks = [RowBlock(self.query[b, rows], self.pairs.bounded, len(means) > 0) for _ in lse2]
            for columns in self.column_blocks:
                for running, logits in zip(blocks, self.tile(b, rows, columns, scratch), strict=True):
                    running.add(logits, self.key[b, columns])
            for stream, running in enumerate(blocks):
                running.write(lse2[stream, b, rows], means[stream, b, rows] if len(means) else None)

        self.run(fill, [(b, rows) for b in range(len(self.query)) for rows in self.row_blocks])

    def keys(self, shifts: Tensor, weighted: list[Tensor | None], grad_key: Tensor) -> None:
        """Add softmax^T @ (gain * query) of every stream to the (B, M, C) gradient, a block of keys at a time."""

        def add(b: int, columns: slice, scratch: Tensor) -> None:
            for rows in self.row_blocks:
                tiles = self.tile(b, rows, columns, scratch)
                for shift, query, logits in zip(shifts, weighted, tiles, strict=True):
                    if query is not None:
                        softmax = logits.sub_(shift[b, rows].unsqueeze(-1)).exp2_()
                        grad_key[b, columns].addmm_(softmax.t(), query[b, rows])

        self.run(add, [(b, columns) for b in range(len(self.query)) for columns in self.column_blocks])

    def both(self, query: Tensor, wanted: list[bool]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return sums of exponentials and, where wanted, sums weighted by partners, along rows and along columns."""
        row_sum, column_sum = query.new_zeros(query.shape[:2]), self.key.new_zeros(self.key.shape[:2])
        row_moment = torch.zeros_like(self.query) if wanted[0] else None
        column_moment = torch.zeros_like(self.key) if wanted[1] else None

        def add(b: int, rows: slice, columns: slice, scratch: Tensor) -> None:
            weights = self.tile(b, rows, columns, scratch)[0].exp2_()
            row_sum[b, rows].add_(weights.sum(dim=1))
            column_sum[b, columns].add_(weights.sum(dim=0))
            if row_moment is not None:
                row_moment[b, rows].addmm_(weights, self.key[b, columns])
            if column_moment is not None:
                column_moment[b, columns].addmm_(weights.t(), query[b, rows])

        numbers = rectangle(len(self.row_blocks), len(self.column_blocks))
        tiles = [(b, self.row_blocks[i], self.column_blocks[j]) for i, j in numbers for b in range(len(query))]
        self.run(add, tiles, places=[((b, 0, rows.start), (b, 1, columns.start)) for b, rows, columns in tiles])
        return [row_sum, column_sum], [row_moment, column_moment]

    def run(
        self,
        work: Callable[..., None],
        tasks: Sequence[tuple[Any, ...]],
        places: Sequence[Iterable[Hashable]] | None = None,
        tiles: int | None = None,
    ) -> None:
        """Call ``work(*task, scratch)`` for every task, on threads; ``scratch`` has room for a number of tiles."""
        shares = share_count(len(tasks), self.query.device)
        scratch = self.scratch(shares, tiles or self.pairs.tiles)
        run_tasks(lambda task, share: work(*tasks[task], scratch[share]), len(tasks), shares, places)

    def scratch(self, shares: int, tiles: int) -> Tensor:
        """Return (shares, tiles, numbers of the largest tile), uninitialized, all tiles aligned alike."""
        height, width = (max(map(length_of, side), default=0) for side in (self.row_blocks, self.column_blocks))
        return self.query.new_empty(shares, tiles, math.ceil(height * width / 16) * 16)

    def tile(self, b: int, rows: slice, columns: slice, scratch: Tensor) -> list[Tensor]:
        """Return the logits of a tile for each sum: over all keys and, with labels, over those of the second sum."""
        shape = length_of(rows), length_of(columns)
        tiles = [view_of(buffer, shape) for buffer in scratch[: self.pairs.tiles]]
        torch.mm(self.query[b, rows], self.key[b, columns].t(), out=tiles[0])
        if self.pairs.exclude_self:
            tiles[0].diagonal(rows.start - columns.start).fill_(-math.inf)
        if self.hidden is not None:
            tiles[0].masked_fill_(self.hidden[b, None, columns], -math.inf)
        if self.pairs.query_labels is not None and self.pairs.key_labels is not None:
            barred = torch.ne if self.pairs.same_label else torch.eq
            barred(self.pairs.query_labels[b, rows, None], self.pairs.key_labels[b, None, columns], out=tiles[1])
            torch.add(tiles[0], tiles[1], alpha=_BARRED, out=tiles[1])
        return tiles[-self.pairs.streams :]


class RowBlock:
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
            torch.div(self.moment, positive(self.total).unsqueeze(-1), out=mean)


def gain_of(upstream: Tensor | None, lse: Tensor, temperature: float) -> Tensor | None:
    """Return the upstream gradient divided by the temperature, 0 where a row saw no key."""
    if upstream is None:
        return None
    return (upstream / temperature).masked_fill_(lse == -math.inf, 0.0)


def positive(total: Tensor) -> Tensor:
    """Return a sum of exponentials fit to divide by: rows without keys hold 0 and divide 0."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)


def blocks_of(length: int, device: torch.device) -> Iterator[slice]:
    """Cut a length in about equal blocks of at most 576 (a tile of 1.3 MB stays in the cache of a core); GPU: 4,096.

    Widths are multiples of 16, but not of 512, where rows of a tile would fall on the same cache sets.
    """
    largest = 576 if device.type == "cpu" else 4096
    width = math.ceil(length / max(1, math.ceil(length / largest)) / 16) * 16
    width += 16 * (width % 512 == 0)
    for start in range(0, length, max(width, 1)):
        yield slice(start, min(start + width, length))


def length_of(block: slice) -> int:
    """Return how many rows or columns a block has."""
    return int(block.stop - block.start)


def view_of(buffer: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the beginning of a flat buffer as a matrix."""
    return buffer[: shape[0] * shape[1]].view(shape)
