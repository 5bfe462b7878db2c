# SPDX-License-Identifier: Apache-2.0
"""Pixel grids of two and three dimensions: which pixels are neighbors, and one layout for all operators on them."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from fewlabel.kernels.backend import has_triton

__all__ = ["as_volumes", "available", "neighbor_rows", "neighbor_steps", "overlap", "spatial_dims_of"]

_GRIDS = {4: (2, 1), 8: (2, 2), 6: (3, 1), 18: (3, 2), 26: (3, 3)}  # dimensions, coordinates in which neighbors differ


def spatial_dims_of(connectivity: int) -> int:
    """Return 2 for connectivity 4 and 8, 3 for 6, 18 and 26.

    Args:
        connectivity: number of neighbors of a pixel: 4 share an edge, 8 an edge or corner; 6 share a face, 18 a face or
            edge, 26 a face, edge or corner.

    Raises:
        ValueError: another number.

    Example:
        >>> spatial_dims_of(18)
        3
    """
    if connectivity not in _GRIDS:
        raise ValueError(f"connectivity must be 4 or 8 (2-D), 6, 18 or 26 (3-D), got {connectivity!r}")
    return _GRIDS[connectivity][0]


def neighbor_rows(connectivity: int) -> tuple[tuple[int, int, int], ...]:
    """Return the earlier rows that hold neighbors of a row's pixels, and how far along the row these reach.

    Args:
        connectivity: 4, 8, 6, 18 or 26; see :func:`spatial_dims_of`.

    Returns:
        Triples (dz, dy, reach): a pixel at (z, y, x) has the neighbors (z + dz, y + dy, x - reach ... x + reach).
        Besides these it has x - 1 of its own row, and the mirror images of all.

    Example:
        >>> neighbor_rows(18)
        ((0, -1, 1), (-1, 0, 1), (-1, -1, 0), (-1, 1, 0))
    """
    dims, hops = spatial_dims_of(connectivity), _GRIDS[connectivity][1]
    rows = [(0, -1)] if dims == 2 else [(0, -1), (-1, 0), (-1, -1), (-1, 1)]
    return tuple((dz, dy, int(abs(dz) + abs(dy) < hops)) for dz, dy in rows if abs(dz) + abs(dy) <= hops)


def neighbor_steps(connectivity: int) -> list[tuple[int, int, int]]:
    """Return the steps (dz, dy, dx) to the neighbors that come before a pixel in raster order.

    Args:
        connectivity: 4, 8, 6, 18 or 26; see :func:`spatial_dims_of`.

    Example:
        >>> neighbor_steps(4)
        [(0, -1, 0), (0, 0, -1)]
    """
    steps = [(dz, dy, dx) for dz, dy, reach in neighbor_rows(connectivity) for dx in range(-reach, reach + 1)]
    return [*steps, (0, 0, -1)]


def overlap(step: tuple[int, int, int], shape: torch.Size) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of a batch of volumes whose pixels have a neighbor one step away, and the part of the neighbors.

    Args:
        step: (dz, dy, dx).
        shape: (B, D, H, W).

    Returns:
        Indices of both parts, which have the same shape.
    """
    pairs = list(zip(step, shape[1:], strict=True))
    here = [slice(max(0, -d), n - max(0, d)) for d, n in pairs]
    there = [slice(max(0, d), n - max(0, -d)) for d, n in pairs]
    return (slice(None), *here), (slice(None), *there)


def as_volumes(x: Tensor, spatial_dims: int) -> Tensor:
    """Return the images of a tensor as a batch of volumes.

    Args:
        x: (..., H, W) or (..., D, H, W); any strides.
        spatial_dims: 2 or 3.

    Returns:
        (B, D, H, W), contiguous, D = 1 in 2-D; a view of ``x`` where that is contiguous.

    Raises:
        ValueError: ``x`` has too few dimensions, or 2^31 pixels or more in one image.

    Example:
        >>> tuple(as_volumes(torch.zeros(4, 2, 5, 7), 2).shape)
        (8, 1, 5, 7)
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
    if x.ndim < spatial_dims:
        expected = "(..., H, W)" if spatial_dims == 2 else "(..., D, H, W)"
        raise ValueError(f"expected {expected}, got {tuple(x.shape)}")
    batch, space = x.shape[:-spatial_dims], x.shape[-spatial_dims:]
    if math.prod(space) >= 2**31:
        raise ValueError(f"an image must have fewer than 2^31 pixels, got {tuple(space)}")
    depth = space[0] if spatial_dims == 3 else 1
    return x.as_subclass(Tensor).reshape(math.prod(batch), depth, *space[-2:]).contiguous()


def available(device: torch.device) -> tuple[str, ...]:
    """Return the backends of operators on grids for a device, best first.

    ``cpu`` is compiled by Numba and for CPU tensors only, ``torch`` is plain PyTorch for every device, ``triton`` is
    for CUDA devices, and for CPU tensors under Triton's interpreter (``TRITON_INTERPRET=1``).

    Args:
        device: where the operands live.

    Example:
        >>> available(torch.device("cpu"))[0]
        'cpu'
    """
    forms = ["torch", "reference"]
    if device.type == "cpu":
        forms.insert(0, "cpu")
    if has_triton():
        if device.type == "cuda":
            forms.insert(0, "triton")
        elif device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
            forms.append("triton")
    return tuple(forms)
