# SPDX-License-Identifier: Apache-2.0
"""Voronoi cells and their borders; oracles: torch.cdist, scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import segmentation
from torch import Tensor

from fewlabel.kernels.distance import point_seeds, voronoi_edges, voronoi_labels

BACKENDS = ("cpu", "torch", "reference")
HOPS = {4: (2, 1), 8: (2, 2), 6: (3, 1), 18: (3, 2), 26: (3, 3)}  # dimensions, coordinates in which neighbors differ


def cells(points: Tensor, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Tensor:
    """Number of the nearest point (N, dims) of each pixel, by all pairs; of several the first in raster order."""
    axes = [torch.arange(n).double() for n in shape]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, len(shape))
    order = np.lexsort(points.numpy().T[::-1])
    steps = torch.tensor(spacing).double()
    far = torch.cdist(pixels * steps, points[order] * steps, compute_mode="donot_use_mm_for_euclid_dist").square()
    first = (far <= far.amin(dim=1, keepdim=True) + 1e-9).int().argmax(dim=1)
    return torch.from_numpy(order)[first].view(shape) + 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "spacing"), [((21, 34), (1.0, 1.0)), ((9, 8, 13), (3.0, 1.0, 0.5))])
def test_cells_of_points(shape: tuple[int, ...], spacing: tuple[float, ...], backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.stack([torch.randperm(int(np.prod(shape)), generator=generator)[:12] for _ in range(3)])
    points = torch.stack(torch.unravel_index(chosen, shape), dim=-1).double()
    labels = voronoi_labels(point_seeds(points, shape), len(shape), spacing=spacing, backend=backend)
    assert labels.dtype == torch.int32
    assert torch.equal(labels.long(), torch.stack([cells(p, shape, spacing) for p in points]))


def test_points() -> None:
    points = torch.tensor([[[0.4, 2.5], [0.0, 2.0], [1.6, -0.4], [-1.0, -1.0], [3.0, 0.0], [2.0, 5.0]]])
    assert point_seeds(points, (3, 4)).tolist() == [[[0, 0, 1, 0], [0, 0, 0, 0], [3, 0, 0, 0]]]
    assert torch.equal(point_seeds(points.round().long(), (3, 4)), point_seeds(points, (3, 4)))
    assert point_seeds(torch.zeros(2, 0, 3), (2, 3, 4)).shape == (2, 2, 3, 4)
    assert not point_seeds(torch.full((2, 5, 2), torch.nan), (3, 4)).any()
    for wrong in (torch.zeros(4, 3), torch.zeros(2)):
        with pytest.raises(ValueError, match=r"expected points \(..., N, 2\) for the shape \(3, 4\)"):
            point_seeds(wrong, (3, 4))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_cells_of_seed_regions(dtype: torch.dtype, backend: str) -> None:
    seeds = torch.zeros(2, 2, 5, 12, dtype=dtype)
    seeds[0, 0, :2, 1:3], seeds[0, 0, 4, 9] = 1, 100
    seeds[1, 1, 0, 0] = 1
    labels = voronoi_labels(seeds, 2, backend=backend)
    assert labels.dtype == dtype and labels.shape == seeds.shape
    assert torch.equal(labels[seeds != 0], seeds[seeds != 0])
    assert not labels[0, 1].any() and not labels[1, 0].any()
    assert (labels[1, 1] == 1).all()
    if dtype != torch.bool:
        assert set(labels[0, 0].flatten().tolist()) == {1, 100}


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5)])
def test_no_pixels(shape: tuple[int, ...]) -> None:
    empty = torch.zeros(shape, dtype=torch.int64)
    assert voronoi_labels(empty, 2).shape == shape
    assert voronoi_edges(empty, 8).shape == shape


@settings(deadline=None, max_examples=80, derandomize=True)
@given(data=st.data(), connectivity=st.sampled_from(sorted(HOPS)))
def test_edges_equal_scikit_image(data: st.DataObject, connectivity: int) -> None:
    dims, hops = HOPS[connectivity]
    shape = data.draw(arrays.array_shapes(min_dims=dims, max_dims=dims, max_side=9))
    labels = data.draw(arrays.arrays(np.int32, shape, elements=st.integers(0, 3)))
    expected = segmentation.find_boundaries(labels, connectivity=hops, mode="thick")
    np.testing.assert_array_equal(voronoi_edges(torch.from_numpy(labels), connectivity).numpy(), expected)


def test_edges_of_a_batch_stay_in_their_image() -> None:
    labels = torch.arange(6).view(2, 3, 1, 1).expand(2, 3, 4, 5)
    assert not voronoi_edges(labels, 8).any()
    assert voronoi_edges(labels, 6).all()


def test_mistakes() -> None:
    with pytest.raises(TypeError, match=r"bool or integers, got torch.float32"):
        voronoi_labels(torch.zeros(3, 4), 2)
    with pytest.raises(ValueError, match="connectivity must be"):
        voronoi_edges(torch.zeros(3, 4), 5)
