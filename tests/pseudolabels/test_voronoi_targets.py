# SPDX-License-Identifier: Apache-2.0
"""Voronoi targets against cells found with all pairs and scikit-image's erosion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.morphology import disk, erosion

from fewlabel.pseudolabels import voronoi_targets


def oracle(points: np.ndarray, shape: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    order = np.lexsort(points.T[::-1])  # of equally near points the first in raster order has the pixel
    cells = np.argmin([(y - points[i, 0]) ** 2 + (x - points[i, 1]) ** 2 for i in order], axis=0)
    target = np.full(shape, 255)
    for n in range(len(points)):
        cell = cells == n
        target[cell & ~erosion(cell, disk(1))] = 0
    for r, c in points:
        target[(y - r) ** 2 + (x - c) ** 2 <= radius * radius] = 1
    return target


@pytest.mark.parametrize("radius", [0, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_against_cells_and_erosion(count: int, radius: int) -> None:
    rng = np.random.default_rng(count)
    points = np.stack([rng.permutation(41)[:count], rng.permutation(57)[:count]], axis=1)
    got = voronoi_targets(torch.from_numpy(points), (41, 57), radius)
    assert got.shape == (1, 41, 57) and got.dtype == torch.uint8
    assert np.array_equal(got[0].numpy(), oracle(points, (41, 57), radius))


def test_a_seed_has_13_pixels_and_is_cut_at_the_border() -> None:
    assert int((voronoi_targets(torch.tensor([[5, 5]]), (11, 11)) == 1).sum()) == 13
    assert int((voronoi_targets(torch.tensor([[0, 0]]), (11, 11)) == 1).sum()) == 6
    near = voronoi_targets(torch.tensor([[5, 4], [5, 6]]), (11, 11))[0]
    assert bool((near[5, 2:9] == 1).all()) and bool((near[0, 4:7] == 0).any())  # seeds lie over edges


def test_no_points_and_points_outside() -> None:
    assert bool((voronoi_targets(torch.empty(0, 2, dtype=torch.int64), (5, 6)) == 255).all())
    some = torch.tensor([[2.4, 3.0], [-1.0, -1.0], [9.0, 2.0]])
    assert torch.equal(voronoi_targets(some, (5, 6)), voronoi_targets(torch.tensor([[2, 3]]), (5, 6)))
    with pytest.raises(ValueError, match=r"points \(P, 2\)"):
        voronoi_targets(torch.zeros(3), (5, 6))
