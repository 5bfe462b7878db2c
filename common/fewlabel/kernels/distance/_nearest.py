# SPDX-License-Identifier: Apache-2.0
"""The operator on which all others of this folder rest: validation and the choice of the backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fewlabel.kernels import backend as _backend
from fewlabel.kernels.grid import as_volumes, available

__all__ = ["nearest_seed"]


def nearest_seed(
    seeds: Tensor, spatial_dims: int, *, spacing: float | Sequence[float] = 1.0, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distance of each pixel to the nearest seed of its image, and which seed that is.

    SciPy's ``distance_transform_edt(mask)`` is the distance for ``seeds = ~mask``.

    Args:
        seeds: (..., H, W) or (..., D, H, W), bool or numbers; what is not 0 is a seed.
        spatial_dims: 2 or 3: how many of the last dimensions are space.
        spacing: between pixels, > 0: one number, or one for each spatial dimension in the order of the shape.
        backend: ``auto``, ``cpu`` (compiled), ``torch``, ``triton`` or ``reference``; ``FEWLABEL_BACKEND`` replaces
            ``auto``.

    Returns:
        Distances, float64, in the unit of ``spacing``, and raster indices of the seeds in their image, int32; both of
        the shape of ``seeds``. Of several nearest seeds the first in raster order. In an image without seeds all
        distances are inf and all indices -1.

    Raises:
        ValueError: shape, size or spacing do not fit; the backend does not exist.
        TypeError: seeds are not a tensor of real numbers.

    Note:
        The compiled form takes a time linear in pixels and no memory besides its results. The others take as many
        operations a pixel as the image has rows, columns and slices.

    References:
        Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", Theory of Computing 8, 2012.

    Example:
        >>> import torch
        >>> distance, nearest = nearest_seed(torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]]), 2, spacing=(2.0, 1.0))
        >>> distance.square().round().int().tolist()
        [[0, 1, 1, 0], [4, 5, 5, 4]]
        >>> nearest.tolist()
        [[0, 0, 3, 3], [0, 0, 3, 3]]
    """
    if not isinstance(seeds, Tensor) or seeds.is_complex():
        got = seeds.dtype if isinstance(seeds, Tensor) else type(seeds).__name__
        raise TypeError(f"expected a tensor of bool or real numbers, got {got}")
    volumes = as_volumes(seeds if seeds.dtype == torch.bool else seeds != 0, spatial_dims).view(torch.uint8)
    steps = _three(spacing, spatial_dims)
    chosen = _backend.resolve("distance", seeds.device, backend, available=available(seeds.device))
    if volumes.numel() == 0:
        return volumes.double().view(seeds.shape), volumes.int().view(seeds.shape)
    form = _backend.form("distance", chosen)
    squared, index = form.nearest(volumes, steps)
    return _root(squared).view(seeds.shape), index.view(seeds.shape)


def _root(squared: Tensor) -> Tensor:
    """Square root in place, rounded correctly: torch's own on a CPU may be off by the last bit."""
    if squared.device.type != "cpu":
        return squared.sqrt_()
    np.sqrt(squared.numpy(), out=squared.numpy())
    return squared


def _three(spacing: float | Sequence[float], spatial_dims: int) -> tuple[float, float, float]:
    """Spacing along D, H and W; 1 along a D that is not there."""
    single = isinstance(spacing, int | float)
    steps = [float(spacing)] * spatial_dims if single else [float(step) for step in spacing]  # type: ignore
    if len(steps) != spatial_dims or not all(0 < step < math.inf for step in steps):
        raise ValueError(f"spacing must be one number > 0 or {spatial_dims} of them, got {spacing!r}")
    z, y, x = [1.0] * (3 - spatial_dims) + steps
    return z, y, x
