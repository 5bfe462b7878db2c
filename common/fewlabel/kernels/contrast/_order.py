# SPDX-License-Identifier: Apache-2.0
"""Orders of tiles in which neighbors share no block, so that threads that add to rows and to columns seldom meet."""

from __future__ import annotations

__all__ = ["rectangle", "triangle"]


def rectangle(rows: int, columns: int) -> list[tuple[int, int]]:
    """Return all (row, column) of a rectangle, diagonal by diagonal, each wrapped around the longer side."""
    longer = max(rows, columns)
    tiles = ((i, (i + step) % longer) for step in range(longer) for i in range(rows))
    return [(i, j) for i, j in tiles if j < columns]


def triangle(size: int) -> list[tuple[int, int]]:
    """Return all (row, column) with row <= column, in rounds in which every number occurs once, as in a tournament.

    A round has the pairs whose sum is the same modulo the size. Each starts at the pairs about half of that sum, which
    had their last turn at the beginning of the round before.
    """
    tiles = []
    for total in range(size):
        low, high = total // 2, total - total // 2
        for step in range((size + 1) // 2 if total % 2 else size // 2 + 1):
            pair = (low - step) % size, (high + step) % size
            tiles.append((min(pair), max(pair)))
    return tiles
