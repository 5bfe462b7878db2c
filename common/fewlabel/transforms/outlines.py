# SPDX-License-Identifier: Apache-2.0
"""Exact outlines of an instance: the polygons along the edges of its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabel.kernels.compiled import compiled
from fewlabel.kernels.components.cpu import join

Ring = list[tuple[int, int]]
Polygon = list[Ring]


def polygons_of(mask: NDArray[np.bool_], left: int = 0, top: int = 0) -> list[Polygon]:
    """Return the polygons that cover the pixels of a mask and nothing else.

    Corners are corners of pixels: a pixel (row, column) covers [column, column + 1] x [row, row + 1]. Each 4-connected
    part is a polygon of its own, an outer ring and its holes. Rings are simple, they neither cross nor touch
    themselves, and two rings touch at corners at most. So the polygons are valid in the sense of OGC Simple Features,
    and rasterizing them at the centers of pixels gives the mask back.

    Args:
        mask: (H, W).
        left: added to x.
        top: added to y.

    Returns:
        For each part its rings of (x, y), closed (the first corner is repeated), without corners on straight lines; the
        outer ring comes first and has positive area by the shoelace formula, holes have negative. Parts are in raster
        order.

    Note:
        Runs of rows are linked by their ends, so temporary memory goes with the length of the outline.

    Example:
        >>> polygons_of(np.array([[1, 1], [1, 0]], bool))
        [[[(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 0)]]]
    """
    return polygons_of_ends(*run_ends(mask), left, top)


def run_ends(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the runs of a mask begin and end, in raster order: rows and columns, a begin and an end in turn.

    Args:
        mask: (H, W).
    """
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    rows, columns = np.nonzero(np.diff(padded, axis=1))
    return rows, columns


def polygons_of_ends(rows: NDArray[np.int64], columns: NDArray[np.int64], left: int = 0, top: int = 0) -> list[Polygon]:
    """Return the polygons of a mask that is given by its runs; see :func:`polygons_of`.

    Args:
        rows: of begins and ends, see :func:`run_ends`.
        columns: likewise.
        left: added to x.
        top: added to y.
    """
    if not len(rows):
        return []
    following, part = _link(rows, columns)
    polygons: dict[int, Polygon] = {}
    seen = np.zeros(len(rows), bool)
    for start in range(len(rows)):
        if seen[start]:
            continue
        corners: Ring = []
        edge = start
        while not seen[edge]:
            seen[edge] = True
            after = int(following[edge])
            if columns[after] != columns[edge]:
                y = top + int(rows[edge]) + edge % 2
                corners += [(left + int(columns[edge]), y), (left + int(columns[after]), y)]
            edge = after
        found = polygons.setdefault(int(part[start // 2]), [])
        for ring in _simple(corners):
            found.insert(0 if _doubled_area(ring) > 0 else len(found), [*ring, ring[0]])
    return list(polygons.values())


def _simple(corners: Ring) -> list[Ring]:
    """Cut a ring wherever it comes back to one of its corners."""
    if len(set(corners)) == len(corners):
        return [corners]
    rings: list[Ring] = []
    path: Ring = []
    place: dict[tuple[int, int], int] = {}
    for corner in corners:
        if corner in place:
            at = place[corner]
            rings.append(path[at:])
            for gone in path[at + 1 :]:
                del place[gone]
            del path[at + 1 :]
        else:
            place[corner] = len(path)
            path.append(corner)
    return [*rings, path]


def _doubled_area(ring: Ring) -> int:
    return sum(x * v - u * y for (x, y), (u, v) in zip(ring, [*ring[1:], ring[0]], strict=True))


@compiled
def _link(rows: NDArray[Any], columns: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return which end of a run follows each along the outline, and the 4-connected part of each run.

    Ends 2r and 2r + 1 open and close run r; the first are walked upwards, the second downwards. On the line between two
    rows both are swept from left to right; where exactly one of them is inside, the outline runs along the line, from
    one end to the next. Where both change at one place in opposite senses, two pixels touch at a corner: the outline
    keeps them apart.
    """
    count = rows.shape[0]
    following, parent = np.zeros(count, np.int64), np.arange(count // 2)
    a = b = stop = 0  # first ends of the row above the line, of the row below, and of the next
    for y in range(rows[0], rows[-1] + 2):
        while stop < count and rows[stop] == y:
            stop += 1
        above, below, waiting = a, b, -1
        while above < b or below < stop:
            is_above = above < b and (below == stop or columns[above] <= columns[below])
            is_below = below < stop and (above == b or columns[below] <= columns[above])
            first, second = (above, below) if is_above else (below, above)
            if is_above and is_below:
                if waiting >= 0 and (below - b) % 2 == 1:
                    first, second = below, above
                _pair(following, rows, y, first if waiting < 0 else waiting, second if waiting < 0 else first)
                waiting = second if waiting >= 0 else -1
            elif waiting < 0:
                waiting = first
            else:
                _pair(following, rows, y, waiting, first)
                waiting = -1
            above += is_above
            below += is_below
            if (above - a) % 2 == 1 and (below - b) % 2 == 1:
                join(parent, above // 2, below // 2)
        a, b = b, stop
    for run in range(parent.shape[0]):
        parent[run] = parent[parent[run]]
    return following, parent


@compiled
def _pair(following: NDArray[Any], rows: NDArray[Any], y: int, one: int, other: int) -> None:
    """Join two ends at a line: the one that arrives there is followed by the one that leaves."""
    if rows[one] + one % 2 == y:
        following[one] = other
    else:
        following[other] = one
