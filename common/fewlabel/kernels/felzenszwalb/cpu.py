# SPDX-License-Identifier: Apache-2.0
"""The algorithm compiled by Numba: the same unions as the reference, found without a sorted list of all edges.

Edges are taken in ranges of weight, each small enough for the cache. Before a range, regions are numbered afresh, and
those whose threshold lies below the range are final: an edge to one of them can never be accepted and is not even
stored. Inside of a range only the lightest of several edges between two regions counts: once it is refused, one of
both regions is final. Two kinds of edges need no order and come first; see :func:`.edges.seed`.

Numba rather than C: no compiler on the user's machine, equal speed (measured), and loops that Python people can read.
Memory for N pixels: 20 N bytes, and buffers that grow with the widest range, usually below 40 N bytes; many equal
weights, which cannot be told apart by ranges, may need 40 bytes for each edge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewlabel.kernels.felzenszwalb import edges as compiled_edges
from fewlabel.kernels.felzenszwalb._types import KEY_END, LOW31, Grid, Ints, Longs, Singles
from fewlabel.kernels.felzenszwalb.forest import contract, root_entry, unite_below_threshold, unite_small
from fewlabel.kernels.felzenszwalb.graph import Graph
from fewlabel.kernels.felzenszwalb.order import sort

__all__ = ["segment"]

_RANGE = 0.5  # edges of a range, per pixel
_SAMPLES = 1021  # pixels whose edges are looked at to choose the ranges; a prime, to meet all columns


def segment(image: NDArray[np.float64], graph: Graph, k: float, min_size: int) -> Ints:
    """Compiled form of :func:`fewlabel.kernels.felzenszwalb.reference.segment`."""
    edges = _Edges(image, graph)
    forest = np.full(edges.size, root_entry(k, 1))
    labels, renamed = np.arange(edges.size, dtype=np.int32), np.empty(edges.size, np.int32)
    regions = edges.size
    if k > 0:
        edges.seed(forest, renamed.view(np.float32), k)
        low = 1  # all edges of key 0 are inside of regions now
        while low < KEY_END:
            regions, active = contract(forest, regions, labels, renamed, low, 0)
            if active < 2:
                break
            records, low = edges.between(labels, False, low)
            unite_below_threshold(records, edges.pairs.ravel(), edges.weights.ravel(), forest, k)
    low = 0
    regions, small = contract(forest, regions, labels, renamed, 0, max(1, min_size))
    while small and low < KEY_END:
        records, low = edges.between(labels, True, low)
        unite_small(records, edges.pairs.ravel(), forest, min_size, small)
        regions, small = contract(forest, regions, labels, renamed, 0, min_size)
    return (labels & LOW31).reshape(image.shape[1:])


class _Edges:
    """The edges of one image and the buffers for those of a range."""

    def __init__(self, image: NDArray[np.float64], graph: Graph) -> None:
        depth, height, width = image.shape[1:]
        grid: Grid = depth, height, width
        strides = graph.offsets @ np.array([height * width, width, 1])
        self.size = depth * height * width
        self._graph = image.reshape(len(image), -1), grid, graph.offsets, strides, graph.factors
        self._strides = strides
        self._step = max(1, self.size // _SAMPLES)
        self._sampled = compiled_edges.sample(*self._graph, self._step)
        self._allocate(max(64, self.size // 4))

    def _allocate(self, capacity: int) -> None:
        shape = len(self._strides), capacity
        self._records, self.pairs, self.weights = np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape)
        self._buffers = np.empty(self._records.size, np.int64), np.empty(self._records.size, np.int64)

    def seed(self, forest: Longs, lightest: Singles, k: float) -> None:
        """Do the unions whose order does not matter."""
        compiled_edges.seed(*self._graph, forest, lightest, k)

    def between(self, labels: Ints, both: bool, low: int) -> tuple[Longs, int]:
        """Return sorted records of edges from a key on, and the key at which they end."""
        wanted = max(1, int(self.size * _RANGE) // self._step)
        high = compiled_edges.key_limit(self._sampled, self._strides, labels, both, low, wanted)
        counts = np.empty(len(self._strides), np.int64)
        while True:
            stores = self._records, self.pairs, self.weights
            if compiled_edges.collect(*self._graph, labels, both, low, high, *stores, counts):
                return sort(self._records, counts, self.weights.ravel(), *self._buffers), high
            self._allocate(min(self.size, 2 * self._records.shape[1]))
