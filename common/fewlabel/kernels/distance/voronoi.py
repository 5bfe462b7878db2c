# SPDX-License-Identifier: Apache-2.0
"""Voronoi cells of points or seed regions, and the borders between cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fewlabel.kernels.distance._nearest import nearest_seed
from fewlabel.kernels.grid import as_volumes, neighbor_steps, overlap, spatial_dims_of

__all__ = ["point_seeds", "voronoi_edges", "voronoi_labels"]


def point_seeds(points: Tensor, shape: Sequence[int]) -> Tensor:
    """Draw points as seeds: the n-th point of an image becomes a pixel of value n + 1.

    Args:
        points: (..., N, 2) or (..., N, 3) in the order of ``shape``, in pixels, floating or integers; a point belongs
            to the pixel whose center is nearest (of two the one with the even coordinate). What lies outside the image
            is no seed: fill short lists up with -1.
        shape: (H, W) or (D, H, W).

    Returns:
        (..., *shape) int32, 0 where there is no point. Of several points in one pixel the first counts.

    Raises:
        ValueError: points and shape do not fit.

    Example:
        >>> point_seeds(torch.tensor([[0.0, 2.2], [1.0, 0.0], [-1.0, -1.0]]), (2, 3)).tolist()
        [[0, 0, 1], [2, 0, 0]]
    """
    if len(shape) not in (2, 3) or points.ndim < 2 or points.shape[-1] != len(shape):
        expected = f"points (..., N, {len(shape)}) for the shape {tuple(shape)}"
        raise ValueError(f"expected {expected}, got {tuple(points.shape)}")
    places = points.round() if points.is_floating_point() else points
    at = torch.zeros(points.shape[:-1], dtype=torch.int64, device=points.device)
    inside = torch.ones_like(at, dtype=torch.bool)
    for place, size in zip(places.unbind(-1), shape, strict=True):
        inside &= (place >= 0) & (place < size)
        at = at * size + place.long()
    at = at.masked_fill(~inside, math.prod(shape))  # an entry that is cut off
    count = points.shape[-2]
    numbers = torch.arange(1, count + 1, dtype=torch.int32, device=points.device).expand(at.shape)
    drawn = numbers.new_full((*points.shape[:-2], math.prod(shape) + 1), count + 1)
    drawn.scatter_reduce_(-1, at, numbers, "amin")
    return drawn.masked_fill(drawn > count, 0)[..., :-1].reshape(*points.shape[:-2], *shape)


def voronoi_labels(
    seeds: Tensor, spatial_dims: int, *, spacing: float | Sequence[float] = 1.0, backend: str = "auto"
) -> Tensor:
    """Give every pixel the label of the nearest seed.

    Args:
        seeds: (..., H, W) or (..., D, H, W), integers or bool, 0 where there is no seed; for points see
            :func:`point_seeds`.
        spatial_dims: 2 or 3: how many of the last dimensions are space.
        spacing: see :func:`fewlabel.kernels.distance.nearest_seed`.
        backend: see :func:`fewlabel.kernels.distance.nearest_seed`.

    Returns:
        Labels of the shape and type of ``seeds``. Of several nearest seeds the first in raster order counts. An image
        without seeds stays 0.

    Raises:
        ValueError: see :func:`fewlabel.kernels.distance.nearest_seed`.
        TypeError: seeds are neither bool nor integers.

    Example:
        >>> voronoi_labels(point_seeds(torch.tensor([[0, 0], [0, 3]]), (2, 5)), 2).tolist()
        [[1, 1, 2, 2, 2], [1, 1, 2, 2, 2]]
    """
    if not isinstance(seeds, Tensor) or seeds.is_floating_point():
        got = seeds.dtype if isinstance(seeds, Tensor) else type(seeds).__name__
        raise TypeError(f"expected a tensor of bool or integers, got {got}")
    _, index = nearest_seed(seeds, spatial_dims, spacing=spacing, backend=backend)
    labels = as_volumes(seeds, spatial_dims).flatten(1)
    nearest = index.reshape(labels.shape).long()
    return labels.gather(1, nearest.clamp(min=0)).view(seeds.shape)  # without seeds the first pixel is as good: it is 0


def voronoi_edges(labels: Tensor, connectivity: int) -> Tensor:
    """Mark the pixels that have a neighbor of another label, on both sides of each border.

    Args:
        labels: (..., H, W) or (..., D, H, W), bool or integers.
        connectivity: 4 or 8 (2-D), 6, 18 or 26 (3-D).

    Returns:
        bool, of the same shape.

    Raises:
        ValueError: connectivity or shape do not fit.

    Example:
        >>> voronoi_edges(torch.tensor([[1, 1, 2, 2], [1, 1, 1, 2]]), 4).int().tolist()
        [[0, 1, 1, 0], [0, 0, 1, 1]]
    """
    volumes = as_volumes(labels, spatial_dims_of(connectivity))
    edges = torch.zeros_like(volumes, dtype=torch.bool)
    for step in neighbor_steps(connectivity):
        here, there = overlap(step, volumes.shape)
        differ = volumes[here] != volumes[there]
        edges[here] |= differ
        edges[there] |= differ
    return edges.view(labels.shape)
