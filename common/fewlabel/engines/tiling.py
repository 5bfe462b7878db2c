# SPDX-License-Identifier: Apache-2.0
"""Overlapping tiles that cover an image, and the core of each, which is what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

Window = tuple[slice, slice]


class Tile(NamedTuple):
    """What a network sees, and what is kept of its answer.

    Args:
        seen: rows and columns of the image.
        core: the part of them that is kept; the cores of all tiles cover the image once.
    """

    seen: Window
    core: Window

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is seen."""
        rows, columns = self.seen
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def inner(self) -> Window:
        """The core within what is seen."""
        (rows, columns), (y, x) = self.core, (self.seen[0].start, self.seen[1].start)
        return slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)


def tiles(shape: tuple[int, int], tile_px: int, overlap_px: int, align_px: int = 1) -> Iterator[Tile]:
    """Yield the tiles of an image, row by row.

    Tiles never reach beyond the image, so a network pads where it would pad the whole image. They begin at multiples of
    ``align_px``: a network that reduces its input by that factor then sees the grid that it sees in the whole image.
    Where two tiles overlap each keeps its half, so every pixel that is kept has at least ``overlap_px // 2`` pixels of
    context on each side, or the border of the image.

    Args:
        shape: (H, W).
        tile_px: side of a tile; the last ones are up to ``align_px - 1`` smaller, and all are no larger than the image.
        overlap_px: least overlap of neighbors.
        align_px: see above.

    Raises:
        ValueError: a step of less than ``align_px``.

    Example:
        >>> [(t.seen[1], t.core[1]) for t in tiles((4, 20), 8, 2, 2)]
        [(slice(0, 8, None), slice(0, 7, None)), (slice(6, 14, None), slice(7, 13, None)),
         (slice(12, 20, None), slice(13, 20, None))]
    """
    rows, columns = (list(_spans(size, tile_px, overlap_px, align_px)) for size in shape)
    for seen_rows, core_rows in rows:
        for seen_columns, core_columns in columns:
            yield Tile((seen_rows, seen_columns), (core_rows, core_columns))


def _spans(size: int, tile: int, overlap: int, align: int) -> Iterator[tuple[slice, slice]]:
    step = (tile - overlap) // align * align
    if min(step, align, overlap + 1) < 1:
        raise ValueError(f"expected 0 <= overlap_px <= tile_px - align_px, received {overlap}, {tile}, {align}.")
    last = -(-max(0, size - tile) // align) * align
    starts = [*range(0, last, step), last]
    stops = [min(start + tile, size) for start in starts]
    cuts = [0, *((a_stop + b) // 2 for a_stop, b in zip(stops[:-1], starts[1:], strict=True)), size]
    for start, stop, (a, b) in zip(starts, stops, pairwise(cuts), strict=True):
        yield slice(start, stop), slice(a, b)
