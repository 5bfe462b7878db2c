# SPDX-License-Identifier: Apache-2.0
"""Keep, drop and fill components; oracles: scipy, scikit-image, and counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure, morphology
from tests.kernels._threads import torch_threads
from torch import Tensor

from fewlabel.kernels.components import fill_holes, largest_component, remove_small, tables

BACKENDS = ("cpu", "torch", "reference")
HOPS = {4: (2, 1), 8: (2, 2), 6: (3, 1), 18: (3, 2), 26: (3, 3)}  # dimensions, coordinates in which neighbors differ
SIZES = {2: [(1, 1), (1, 9), (17, 23)], 3: [(1, 1, 1), (1, 7, 5), (7, 9, 11)]}
CASES = [(c, size) for c, (dims, _) in HOPS.items() for size in SIZES[dims]]
SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)


def random_mask(*shape: int, share: float = 0.5, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def random_labels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed)) * 9 % 13  # 0, 9, 5, 1


def kept(image: NDArray[np.integer], hops: int, k: int, by_label: bool) -> NDArray[np.integer]:
    """The k largest by scikit-image's labels: one component after another, in the order of (size, first pixel)."""
    out = np.zeros_like(image)
    for values in [[v] for v in np.unique(image[image != 0])] if by_label else [np.unique(image[image != 0])]:
        labels = np.asarray(measure.label(np.isin(image, values), connectivity=hops))
        flat = labels.ravel()
        regions = [(-np.sum(flat == n), int(np.argmax(flat == n)), n) for n in range(1, labels.max() + 1)]
        for *_, number in sorted(regions)[:k]:
            out[labels == number] = image[labels == number]
    return out


@pytest.mark.parametrize(("connectivity", "size"), CASES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("by_label", [False, True])
def test_largest(connectivity: int, size: tuple[int, ...], k: int, by_label: bool) -> None:
    images = random_labels(3, *size)
    expected = np.stack([kept(image.numpy(), HOPS[connectivity][1], k, by_label) for image in images])
    for backend in BACKENDS:
        got = largest_component(images, connectivity, k=k, by_label=by_label, backend=backend)
        assert got.dtype == images.dtype
        np.testing.assert_array_equal(got.numpy(), expected, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_equal_components_the_first_stays(backend: str) -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 0], [1, 0, 1, 1]], dtype=torch.bool)
    assert largest_component(mask, 4, backend=backend).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert largest_component(mask, 4, k=2, backend=backend).tolist() == [[0, 0, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert torch.equal(largest_component(mask, 4, k=9, backend=backend), mask)


@pytest.mark.parametrize(("connectivity", "size"), CASES)
@pytest.mark.parametrize("min_size", [0, 1, 2, 5, 10**6])
def test_remove_small_equals_scikit_image(connectivity: int, size: tuple[int, ...], min_size: int) -> None:
    masks = random_mask(3, *size, share=0.4)
    hops = HOPS[connectivity][1]
    expected = [morphology.remove_small_objects(m, max_size=min_size - 1, connectivity=hops) for m in masks.numpy()]
    for backend in BACKENDS:
        got = remove_small(masks, connectivity, min_size, backend=backend)
        assert got.dtype == torch.bool
        np.testing.assert_array_equal(got.numpy(), np.stack(expected), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_remove_small_by_label(backend: str) -> None:
    values = torch.tensor([[7, 7, 2], [2, 7, 2], [2, 0, 0]])
    assert remove_small(values, 4, 3, by_label=True, backend=backend).tolist() == [[7, 7, 0], [0, 7, 0], [0, 0, 0]]
    assert torch.equal(remove_small(values, 4, 3, backend=backend), values)  # as a mask it is one component


@pytest.mark.parametrize(("connectivity", "size"), CASES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 1.0])
def test_fill_holes_equals_scipy(connectivity: int, size: tuple[int, ...], share: float) -> None:
    masks = random_mask(3, *size, share=share)
    structure = ndimage.generate_binary_structure(*HOPS[connectivity])
    expected = np.stack([ndimage.binary_fill_holes(mask, structure) for mask in masks.numpy()])
    for backend in BACKENDS:
        np.testing.assert_array_equal(fill_holes(masks, connectivity, backend=backend).numpy(), expected, backend)
        values = fill_holes(masks.to(torch.int16) * -7, connectivity, backend=backend)
        assert values.dtype == torch.int16
        np.testing.assert_array_equal(values.numpy(), expected * np.int16(-7), backend)


def holes_by_hand(image: NDArray[np.integer], hops: int) -> NDArray[np.integer]:
    """Hole after hole: a hole takes the only value that touches its pixels by an edge or face."""
    labels = np.asarray(measure.label(image == 0, connectivity=hops))
    rim = np.ones(image.shape, bool)
    rim[(slice(1, -1),) * image.ndim] = False
    out = image.copy()
    for number in range(1, labels.max() + 1):
        hole = labels == number
        around = np.unique(image[ndimage.binary_dilation(hole) & ~hole])
        around = around[around != 0]
        if not (hole & rim).any() and len(around) == 1:
            out[hole] = around[0]
    return out


@SETTINGS
@given(data=st.data(), connectivity=st.sampled_from(sorted(HOPS)))
def test_holes_of_label_maps(data: st.DataObject, connectivity: int) -> None:
    dims, hops = HOPS[connectivity]
    shape = data.draw(arrays.array_shapes(min_dims=dims, max_dims=dims, min_side=3, max_side=8))
    image = data.draw(arrays.arrays(np.int32, shape, elements=st.sampled_from([0, 1, 1, 1, -5])))
    for backend in BACKENDS:
        got = fill_holes(torch.from_numpy(image), connectivity, backend=backend)
        np.testing.assert_array_equal(got.numpy(), holes_by_hand(image, hops), backend)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_types_and_strides(dtype: torch.dtype) -> None:
    view = random_labels(2, 23, 34).to(dtype)[..., ::2].transpose(1, 2)
    for apply in (
        lambda x: largest_component(x, 4),
        lambda x: largest_component(x, 4, by_label=True),
        lambda x: remove_small(x, 8, 4),
        lambda x: fill_holes(x, 4),
    ):
        before = view.clone()
        got = apply(view)
        assert got.dtype == dtype and got.shape == view.shape
        assert torch.equal(got, apply(view.contiguous()))
        assert torch.equal(view, before)
        assert got.data_ptr() != view.data_ptr()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0)])
def test_no_pixels(shape: tuple[int, ...], backend: str) -> None:
    for dtype in (torch.bool, torch.int32):
        empty = torch.zeros(shape, dtype=dtype)
        assert largest_component(empty, 4, backend=backend).shape == shape
        assert largest_component(empty, 4, by_label=True, backend=backend).shape == shape
        assert remove_small(empty, 4, 3, backend=backend).shape == shape
        assert fill_holes(empty, 4, backend=backend).shape == shape


@pytest.mark.parametrize("backend", BACKENDS)
def test_background_only_and_full(backend: str) -> None:
    for value in (0, 1):
        mask = torch.full((2, 5, 6), value, dtype=torch.uint8)
        assert torch.equal(largest_component(mask, 8, backend=backend), mask)
        assert torch.equal(remove_small(mask, 8, 30, backend=backend), mask)
        assert torch.equal(fill_holes(mask, 8, backend=backend), mask)
        assert not remove_small(mask, 8, 31, backend=backend).any()


def test_mistakes() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        largest_component(mask, 4, k=0)
    for apply in (largest_component, fill_holes):
        with pytest.raises(ValueError, match="connectivity must be"):
            apply(mask, 7)
        with pytest.raises(TypeError, match="bool or integers"):
            apply(mask.float(), 4)


def test_stretches_on_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = random_labels(3, 21, 19, seed=5)
    filters = (
        lambda: largest_component(masks, 4, by_label=True),
        lambda: largest_component(masks != 0, 8),
        lambda: remove_small(masks, 4, 3, by_label=True),
        lambda: fill_holes(masks, 4),
    )
    expected = [keep() for keep in filters]
    monkeypatch.setattr(tables, "_STRETCH", 50)
    with torch_threads(3):
        found = [keep() for keep in filters]
    assert all(map(torch.equal, found, expected))
