# SPDX-License-Identifier: Apache-2.0
"""The algorithm as published and as scikit-image orders and rounds it, edge by edge in Python: the oracle."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewlabel.kernels.felzenszwalb.graph import Graph

__all__ = ["segment"]


def segment(
    image: NDArray[np.float64],
    graph: Graph,
    k: float,
    min_size: int,
    kind: Literal["stable", "quicksort"] = "stable",
) -> NDArray[np.int32]:
    """Return the regions of one image.

    Args:
        image: (C, D, H, W), finite.
        graph: edges of the image.
        k: a region accepts an edge lighter than its heaviest inner edge + k / its number of pixels.
        min_size: regions with fewer pixels are joined to a neighbor, over the lightest edge first.
        kind: how equal weights are ordered; ``quicksort`` is scikit-image's choice, which differs between machines.

    Returns:
        (D, H, W), numbered from 0 in raster order of first pixels.
    """
    first, second, weights = _edges(image, graph)
    order = np.argsort(weights, kind=kind)
    queue = list(zip(first[order].tolist(), second[order].tolist(), weights[order].tolist(), strict=True))
    pixels = image[0].size
    parent, size, bound = list(range(pixels)), [1] * pixels, [float(np.float32(k))] * pixels

    def join(a: int, b: int) -> int:
        root, other = min(a, b), max(a, b)
        parent[other] = root
        size[root] += size[other]
        return root

    for start, end, weight in queue:
        a, b = _root(parent, start), _root(parent, end)
        if a != b and weight < min(bound[a], bound[b]):
            a = join(a, b)
            bound[a] = float(np.float32(weight + k / size[a]))  # scikit-image compares in float32
    for start, end, _ in queue:
        a, b = _root(parent, start), _root(parent, end)
        if a != b and min(size[a], size[b]) < min_size:
            join(a, b)
    roots = np.array([_root(parent, pixel) for pixel in range(pixels)])
    labels = np.unique(roots, return_inverse=True)[1]
    return labels.reshape(image.shape[1:]).astype(np.int32)


def _root(parent: list[int], pixel: int) -> int:
    """The smallest pixel of the region, found while the path to it is halved."""
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


def _edges(image: NDArray[np.float64], graph: Graph) -> tuple[NDArray[np.int64], ...]:
    """First pixel, second pixel and weight of every edge, in the order of ties."""
    pixels = np.arange(image[0].size).reshape(image.shape[1:])
    columns: list[tuple[NDArray[np.int64], ...]] = []
    for offset, factor in zip(graph.offsets.tolist(), graph.factors.tolist(), strict=True):
        here, there = _shifted(pixels.shape, [-o for o in offset]), _shifted(pixels.shape, offset)
        squares = np.zeros(pixels[here].shape)
        for channel in image:
            squares += (channel[here] - channel[there]) ** 2
        columns.append((pixels[here].ravel(), pixels[there].ravel(), (np.sqrt(squares) * factor).ravel()))
    first, second, weights = (np.concatenate(column) for column in zip(*columns, strict=True))
    return first, second, weights


def _shifted(shape: tuple[int, ...], offset: list[int]) -> tuple[slice, ...]:
    """Pixels that are at an offset from some pixel."""
    return tuple(slice(max(0, o), max(0, n + min(0, o))) for n, o in zip(shape, offset, strict=True))
