# SPDX-License-Identifier: Apache-2.0
"""The body mask against SciPy, and its choices one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from fewlabel.superpixels import body_mask


def noise(*shape: int, seed: int = 0) -> Tensor:
    rough = torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(ndimage.gaussian_filter(rough.numpy(), (0, *[1.5] * len(shape))))


def oracle(mask: np.ndarray) -> np.ndarray:
    """The largest component, of equals the first, and what it encloses."""
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))


@pytest.mark.parametrize("shape", [(40, 37), (13, 24, 19)])
def test_equals_scipy(shape: tuple[int, ...]) -> None:
    for seed in range(4):
        image = noise(*shape, seed=seed)
        expected = oracle(image[0].numpy() > 0.5)
        got = body_mask(image, 0.5, holes="volume")
        assert got.dtype == torch.bool and got.shape == (1, *shape)
        assert np.array_equal(got[0].numpy(), expected)
        assert expected.any() and not expected.all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_slices_by_themselves_equal_pictures(axis: int) -> None:
    image = noise(9, 14, 17)
    got = body_mask(image, 0.5, per_slice=True, slice_axis=axis)
    for n in range(image.shape[1:][axis]):
        picture = image[0].select(axis, n)[None]
        assert torch.equal(got[0].select(axis, n), body_mask(picture, 0.5)[0])


def airway() -> Tensor:
    """A block with a tube that is open at the first slice, and a speck beside it."""
    image = torch.zeros(1, 12, 12, 6)
    image[:, 2:9, 2:9] = 1
    image[:, 4:6, 4:6, :5] = 0
    image[:, 11, 11, 2] = 1
    return image


def test_airways_are_filled_in_slices_only() -> None:
    image = airway()
    full = torch.zeros(1, 12, 12, 6, dtype=torch.bool)
    full[:, 2:9, 2:9] = True
    assert torch.equal(body_mask(image, 0.5), full)
    assert torch.equal(body_mask(image, 0.5, holes="volume"), full & (image > 0.5))
    assert torch.equal(body_mask(image, 0.5, holes="keep"), full & (image > 0.5))


def test_parts() -> None:
    image = airway()
    assert not body_mask(image, 0.5)[0, 11, 11, 2]
    assert body_mask(image, 0.5, components=2)[0, 11, 11, 2]


@pytest.mark.parametrize(("shape", "spacing"), [((40, 37), (1.0, 2.0)), ((15, 18, 16), (2.0, 1.0, 1.5))])
def test_closing_equals_scipy(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    image, radius = noise(*shape), 3.2
    reach = [int(radius // step) for step in spacing]
    grid = np.meshgrid(*[np.arange(-n, n + 1) * step for n, step in zip(reach, spacing, strict=True)], indexing="ij")
    ball = sum(axis**2 for axis in grid) <= radius**2
    mask = np.pad(image[0].numpy() > 0.52, 8)
    closed = ndimage.binary_closing(mask, ball)[tuple([slice(8, -8)] * len(shape))]
    got = body_mask(image, 0.52, closing_mm=radius, spacing_mm=spacing, holes="keep", components=999)
    assert np.array_equal(got[0].numpy(), closed)
    assert closed.sum() > (image > 0.52).sum() and not closed.all()


def test_channels_and_types() -> None:
    image = airway()
    expected = body_mask(image, 100)
    assert not expected.any()
    hu = (image * 1000 - 1000).short()
    assert torch.equal(body_mask(hu, -300), body_mask(image, 0.5))
    assert torch.equal(body_mask(torch.cat([image, image * 3]), 1.5), body_mask(image, 0.5))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        body_mask(torch.zeros(4, 4), 0)
    with pytest.raises(ValueError, match="slice, volume, keep, got 'all'"):
        body_mask(torch.zeros(1, 4, 4), 0, holes="all")
    with pytest.raises(ValueError, match="axis -3 to 2"):
        body_mask(torch.zeros(1, 4, 4, 4), 0, slice_axis=3)
    with pytest.raises(TypeError, match="real"):
        body_mask(torch.zeros(1, 4, 4, dtype=torch.complex64), 0)
