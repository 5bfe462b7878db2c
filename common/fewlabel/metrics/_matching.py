# SPDX-License-Identifier: Apache-2.0
"""Choose among weighted pairs: the best partner of each, or one partner for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Index = NDArray[np.int64]


def best_pairs(rows: Index, cols: Index, weight: NDArray[Any]) -> Index:
    """Return the heaviest pair of every row that has one; of equal weights the one with the first column."""
    order = np.lexsort((cols, -weight, rows))
    return order[np.flatnonzero(np.diff(rows[order], prepend=-1))]


def assign(rows: Index, cols: Index, weight: NDArray[np.float64]) -> Index:
    """Return, ascending, the pairs of a one-to-one matching of the largest total weight; weights are positive.

    The pairs fall into groups that share no row and no column, nearly all of them tiny; each is solved by itself
    (Hungarian method), so that time grows with the number of pairs instead of rows times columns.
    """
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(cols)[cols] == 1)
    chosen = [np.flatnonzero(alone)]
    for group in _groups(rows, cols, np.flatnonzero(~alone)):
        r, c = (np.unique(side[group], return_inverse=True)[1] for side in (rows, cols))
        weights, pairs = np.zeros((r.max() + 1, c.max() + 1)), np.full((r.max() + 1, c.max() + 1), -1)
        weights[r, c], pairs[r, c] = weight[group], group
        found = pairs[linear_sum_assignment(weights, maximize=True)]
        chosen.append(found[found >= 0])
    return np.sort(np.concatenate(chosen))


def _groups(rows: Index, cols: Index, pairs: Index) -> Iterator[Index]:
    """Split pairs where they hang together by no row and no column."""
    if pairs.size == 0:
        return
    r, c = rows[pairs], cols[pairs] + rows.max() + 1
    graph = coo_matrix((np.ones(pairs.size), (r, c)), shape=(c.max() + 1, c.max() + 1))
    group = connected_components(graph, directed=False)[1][r]
    order = np.argsort(group, kind="stable")
    yield from np.split(pairs[order], np.flatnonzero(np.diff(group[order])) + 1)
