# SPDX-License-Identifier: Apache-2.0
"""The graph over the pixels of an image: which edges there are, in which order, and what is compared along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.util import img_as_float64

__all__ = ["Graph", "prepare"]

_HOPS = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}  # coordinates in which neighbors may differ


@dataclass(frozen=True)
class Graph:
    """The edges that start at a pixel, each pixel pair once.

    Attributes:
        offsets: (E, 3), int64: (dz, dy, dx) to the other end, which always comes later in raster order. Edges of equal
            weight are taken in the order of this table, and within one direction in raster order. In two dimensions
            dz = 0, and the table is scikit-image's: right, down, down-right, down-left.
        factors: (E,), float64: what the difference along an edge is multiplied by.
    """

    offsets: NDArray[np.int64]
    factors: NDArray[np.float64]

    @classmethod
    def grid(cls, connectivity: int, spacing: Sequence[float]) -> Graph:
        """Return the graph of neighboring pixels.

        Args:
            connectivity: 4, 8, 6, 18 or 26.
            spacing: distance of neighbors along each dimension of space.
        """
        dims = len(spacing)
        steps = product(*[(0,)] * (3 - dims), *[(-1, 0, 1)] * dims)
        forward = [o for o in steps if o > (0, 0, 0) and sum(map(abs, o)) <= _HOPS[connectivity]]
        forward.sort(key=lambda o: (sum(map(abs, o)), [abs(i) for i in o], [-i for i in o]))
        offsets = np.array(forward, np.int64)
        relative = np.array([1.0] * (3 - dims) + [s / min(spacing) for s in spacing])
        factors = np.sqrt((offsets**2).sum(1) / ((offsets * relative) ** 2).sum(1))
        return cls(offsets, factors)


def prepare(image: NDArray[Any], sigma: float, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Return an image as the graph sees it: float64 in scikit-image's ranges, smoothed, as a volume.

    Args:
        image: (C, H, W) or (C, D, H, W), any type; integers are divided by the largest of their type.
        sigma: standard deviation in pixels of the finest dimension.
        spacing: distance of neighbors along each dimension of space.

    Returns:
        (C, D, H, W), contiguous, D = 1 in two dimensions.

    Raises:
        ValueError: a value is not finite.
    """
    values = img_as_float64(image)
    if not np.isfinite(values).all():
        raise ValueError("image must be finite, got NaN or infinity")
    if sigma > 0:
        per_axis = [0.0, *(sigma * min(spacing) / s for s in spacing)]
        values = ndimage.gaussian_filter(values, per_axis, mode="reflect", truncate=4.0)
    return np.ascontiguousarray(values.reshape(len(values), -1, *values.shape[-2:]))
