# SPDX-License-Identifier: Apache-2.0
"""Smooth random fields and small numerical helpers that all phantoms draw with. Lengths are in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, spatial

Field = NDArray[np.float32]


def value_noise(rng: np.random.Generator, size: tuple[int, int], cell: float) -> Field:
    """Return smooth noise: independent normal numbers on a grid, interpolated by cubic splines.

    Args:
        rng: source of the numbers.
        size: height and width in pixels.
        cell: distance of the grid points in pixels, at least 1.

    Returns:
        Shape ``size``, about standard normal.
    """
    grid = [int(np.ceil(n / cell)) + 3 for n in size]
    points = rng.standard_normal(grid, dtype=np.float32)
    box = (1.0, 1.0, 1.0 + size[1] / cell, 1.0 + size[0] / cell)
    return np.asarray(Image.fromarray(points).resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box))


def fractal(rng: np.random.Generator, size: tuple[int, int], cell: float, octaves: int = 4, gain: float = 0.5) -> Field:
    """Return noise of several scales, each half as coarse as the one before.

    Args:
        rng: source of the numbers.
        size: height and width in pixels.
        cell: size of the coarsest feature in pixels.
        octaves: number of scales; scales finer than a pixel are left out.
        gain: amplitude of a scale relative to the one before.

    Returns:
        Shape ``size``, mean about 0, standard deviation about 1.
    """
    total, power = np.zeros(size, np.float32), 0.0
    for octave in range(octaves):
        if (scale := cell / 2**octave) < 1:
            break
        total += np.float32(gain**octave) * value_noise(rng, size, scale)
        power += gain ** (2 * octave)
    return total / np.float32(0.7 * max(power, 1e-6) ** 0.5)


def cells(rng: np.random.Generator, size: tuple[int, int], cell: float, bend: Field) -> tuple[Field, Field]:
    """Return a cellular pattern, as of fat lobules: distances to the two nearest of scattered points.

    Args:
        rng: source of the points.
        size: height and width in pixels.
        cell: typical distance of neighboring points in pixels.
        bend: two fields, shape ``(2, H, W)``: displacement along y and x in units of ``cell``, which rounds the
            borders.

    Returns:
        Two fields in units of ``cell``: the distance to the nearest point, and how much farther the second nearest is
        (0 on the border between two cells).
    """
    count = max(4, int(size[0] * size[1] / cell**2))
    points = rng.uniform((0.0, 0.0), size, (count, 2))
    step = 2 if min(size) > 64 else 1
    where = np.stack(np.mgrid[0 : size[0] : step, 0 : size[1] : step] + cell * bend[:, ::step, ::step], axis=-1)
    near = spatial.cKDTree(points).query(where, k=2)[0].astype(np.float32) / np.float32(cell)
    first, second = (resize(near[..., k], size) for k in range(2))
    return first, second - first


def resize(field: Field, size: tuple[int, int]) -> Field:
    """Return a field at another size, bilinear."""
    return np.asarray(Image.fromarray(field).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def smoothstep(low: float, high: float, x: Field) -> Field:
    """Return 0 below ``low``, 1 above ``high`` and a smooth rise between."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blur(field: Field, sigma: float) -> Field:
    """Return a field blurred over its two first axes; wide blurs are done at a coarser grid."""
    step = int(max(1, sigma // 3))
    if step == 1:
        return ndimage.gaussian_filter(field, (sigma, sigma) + (0,) * (field.ndim - 2), mode="nearest")
    size = (field.shape[0], field.shape[1])
    planes = field.reshape(*size, -1)
    coarse_size = (-(-size[0] // step), -(-size[1] // step))
    coarse = np.stack([resize(planes[..., k], coarse_size) for k in range(planes.shape[-1])], -1)
    coarse = ndimage.gaussian_filter(coarse, (sigma / step, sigma / step, 0), mode="nearest")
    return np.stack([resize(coarse[..., k], size) for k in range(coarse.shape[-1])], -1).reshape(field.shape)


def mix(a: Field, b: Field | np.float32, weight: Field) -> Field:
    """Return ``a (1 - weight) + b weight``; a weight without channels serves all channels."""
    w = weight[..., None] if weight.ndim < a.ndim else weight
    return a + (b - a) * w
