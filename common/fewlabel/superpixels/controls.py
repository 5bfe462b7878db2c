# SPDX-License-Identifier: Apache-2.0
"""Regions that know nothing of the image: what superpixels must beat to show that their borders matter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fewlabel.kernels.components import relabel
from fewlabel.kernels.distance import point_seeds, voronoi_labels

__all__ = ["grid_regions", "random_regions"]

_TRIES = 12


def grid_regions(mask: Tensor, count: int, spacing_mm: Sequence[float]) -> Tensor:
    """Cut what is masked into squares or cubes of equal edges in millimeters, about ``count`` of them.

    The edge is searched for: (area / count)^(1/d) first, then corrected by what came out. Cells that the mask cuts
    count like whole ones. Sizes are whole pixels, so where cells are a few pixels wide the number is met less well.

    Args:
        mask: (H, W) or (D, H, W), bool.
        count: how many cells are wanted, >= 0.
        spacing_mm: distance of neighbors along each axis.

    Returns:
        int32 of the same shape: 1, 2, ... in raster order of first pixels, 0 outside of the mask and everywhere for
        ``count`` 0.

    Raises:
        ValueError: ``count`` or ``spacing_mm`` does not fit.

    Example:
        >>> grid_regions(torch.ones(2, 6, dtype=torch.bool), 3, (1.0, 1.0)).tolist()
        [[1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3]]
    """
    spacing = _checked(mask, count, spacing_mm)
    pixels = int(mask.sum())
    best, miss = torch.zeros(mask.shape, dtype=torch.int32, device=mask.device), math.inf
    if not (count and pixels):
        return best
    edge = (pixels * math.prod(spacing) / count) ** (1 / mask.ndim)
    for _ in range(_TRIES):
        cells, found = relabel(torch.where(mask, _cells(mask, edge, spacing), 0), mask.ndim)
        if abs(int(found) - count) < miss:
            best, miss = cells, abs(int(found) - count)
        if not miss:
            break
        edge *= (int(found) / count) ** (1 / mask.ndim)
    return best


def _cells(mask: Tensor, edge: float, spacing: Sequence[float]) -> Tensor:
    """Number the cells of a grid from 1, in an int32 for each pixel."""
    cells = torch.zeros((), dtype=torch.int32, device=mask.device)
    for axis, (size, step) in enumerate(zip(mask.shape, spacing, strict=True)):
        places = ((torch.arange(size, device=mask.device) + 0.5) * (step / edge)).int()
        shape = [1] * mask.ndim
        shape[axis] = size
        cells = cells * (int(places[-1]) + 1) + places.view(shape)
    return cells + 1


def random_regions(mask: Tensor, count: int, spacing_mm: Sequence[float], generator: torch.Generator) -> Tensor:
    """Cut what is masked into the Voronoi cells of random pixels of it.

    Args:
        mask: (H, W) or (D, H, W), bool.
        count: how many cells, >= 0; no more than there are pixels.
        spacing_mm: distance of neighbors along each axis.
        generator: of the CPU; draws are equal on all devices.

    Returns:
        int32 of the same shape: 1, 2, ... in raster order of first pixels, 0 outside of the mask and everywhere for
        ``count`` 0.

    Raises:
        ValueError: ``count`` or ``spacing_mm`` does not fit.
    """
    spacing = _checked(mask, count, spacing_mm)
    places = mask.cpu().nonzero()
    chosen = places[torch.randperm(len(places), generator=generator)[:count]].to(mask.device)
    cells = voronoi_labels(point_seeds(chosen, mask.shape), mask.ndim, spacing=spacing)
    return relabel(torch.where(mask, cells, 0), mask.ndim)[0]


def _checked(mask: Tensor, count: int, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    spacing = tuple(map(float, spacing_mm))
    if mask.dtype != torch.bool or mask.ndim not in (2, 3):
        raise ValueError(f"expected a mask (H, W) or (D, H, W) of bool, got {tuple(mask.shape)} {mask.dtype}")
    if count < 0 or len(spacing) != mask.ndim or not all(s > 0 and math.isfinite(s) for s in spacing):
        raise ValueError(f"expected count >= 0 and {mask.ndim} finite spacings > 0, got {count} and {spacing_mm}")
    return spacing
