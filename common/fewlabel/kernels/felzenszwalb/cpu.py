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

from fewlabel.kernels.felzenszwalb import edges
from fewlabel.kernels.felzenszwalb._types import KEY_END, LOW31, Doubles, Grid, Ints, Longs, Singles
from fewlabel.kernels.felzenszwalb.forest import contract, root_entry, unite_below_threshold, unite_small
from fewlabel.kernels.felzenszwalb.graph import Graph
from fewlabel.kernels.felzenszwalb.order import sort

__all__ = ["segment"]

_RANGE = 0.5  # edges of a range, per pixel
_SAMPLES = 1021  # pixels whose edges are looked at to choose the ranges; a prime, to meet all columns


def segment(image: NDArray[np.float64], graph: Graph, k: float, min_size: int) -> Ints:
    """Compiled form of :func:`fewlabel.kernels.felzenszwalb.reference.segment`."""
    source = _Edges(image, graph)
    forest = np.full(source.size, root_entry(k, 1))
    labels, renamed = np.arange(source.size, dtype=np.int32), np.empty(source.size, np.int32)
    regions = source.size
    if k > 0:
        source.seed(forest, renamed.view(np.float32), k)
        low = 1  # all edges of key 0 are inside of regions now
        while low < KEY_END:
            regions, active = contract(forest, regions, labels, renamed, low, 0)
            if active < 2:
                break
            records, low = source.between(labels, False, low)
            unite_below_threshold(records, source.pairs, source.weights, forest, k)
    low = 0
    regions, small = contract(forest, regions, labels, renamed, 0, max(1, min_size))
    while small and low < KEY_END:
        records, low = source.between(labels, True, low)
        unite_small(records, source.pairs, forest, min_size, small)
        regions, small = contract(forest, regions, labels, renamed, 0, min_size)
    return (labels & LOW31).reshape(image.shape[1:])


class _Edges:
    """The edges of one image and the buffers for those of a range."""

    def __init__(self, image: NDArray[np.float64], graph: Graph) -> None:
        grid: Grid = image.shape[1:]
        self._strides = graph.offsets @ np.array([grid[1] * grid[2], grid[2], 1])
        self._lattice = image.reshape(len(image), -1), grid, graph.offsets, self._strides, graph.factors
        self.size = image[0].size
        self._step = max(1, self.size // _SAMPLES)
        self._sampled = edges.sample(self._lattice, self._step)
        self._allocate(max(64, self.size // 4))

    def _allocate(self, capacity: int) -> None:
        shape = len(self._strides), capacity
        self._store = np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape)
        self._buffers = np.empty(shape, np.int64).ravel(), np.empty(shape, np.int64).ravel()

    @property
    def pairs(self) -> Longs:
        """Both regions of the edges to which records point."""
        return self._store[1].ravel()

    @property
    def weights(self) -> Doubles:
        """Weights of the edges to which records point."""
        return self._store[2].ravel()

    def seed(self, forest: Longs, lightest: Singles, k: float) -> None:
        """Do the unions whose order does not matter."""
        edges.seed(self._lattice, forest, lightest, k)

    def between(self, labels: Ints, both: bool, low: int) -> tuple[Longs, int]:
        """Return sorted records of the edges from a key on, and the key at which they end."""
        wanted = max(1, int(self.size * _RANGE) // self._step)
        high: int = edges.key_limit(self._sampled, self._strides, labels, both, low, wanted)
        counts = np.empty(len(self._strides), np.int64)
        while not edges.collect(self._lattice, labels, both, low, high, self._store, counts):
            self._allocate(min(self.size, 2 * self._store[0].shape[1]))
        return sort(self._store[0], counts, self.weights, *self._buffers), high
