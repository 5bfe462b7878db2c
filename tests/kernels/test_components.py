# SPDX-License-Identifier: Apache-2.0
"""Labels of connected components; oracles: scipy, scikit-image, and the definition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure
from tests.kernels._threads import torch_threads
from torch import Tensor

from fewlabel.kernels.components import connected_components, cpu, relabel

BACKENDS = ("cpu", "torch", "reference")
HOPS = {4: (2, 1), 8: (2, 2), 6: (3, 1), 18: (3, 2), 26: (3, 3)}  # dimensions, coordinates in which neighbors differ
SIZES = {2: [(1, 1), (1, 9), (9, 1), (17, 23), (16, 64)], 3: [(1, 1, 1), (1, 7, 5), (5, 1, 7), (6, 1, 1), (7, 9, 11)]}
CASES = [(c, size) for c, (dims, _) in HOPS.items() for size in SIZES[dims]]
SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)


@pytest.fixture
def slabs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three threads, and slabs so small that they share even a tiny image."""
    monkeypatch.setattr(cpu, "_SLAB", 16)
    with torch_threads(3):
        yield


def scipy_labels(mask: NDArray[np.bool_], connectivity: int) -> tuple[NDArray[np.int32], int]:
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(*HOPS[connectivity]))
    return labels, count


def in_raster_order(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Number labels in the order in which they appear, without the code under test."""
    names = dict.fromkeys(labels.ravel().tolist())
    names.pop(0, None)
    out = np.zeros_like(labels)
    for number, name in enumerate(names, 1):
        out[labels == name] = number
    return out


def random_mask(*shape: int, share: float, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def random_labels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-1, 3, shape, generator=torch.Generator().manual_seed(seed))


def spiral(side: int) -> Tensor:
    """One path, one pixel wide, that winds from the corner to the middle: the longest component there is."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    turns = 0

    def free(y: int, x: int) -> bool:
        return 0 <= y < side and 0 <= x < side and not mask[y, x]

    while turns < 2:
        far = (y + 2 * dy, x + 2 * dx)
        beyond = 0 <= far[0] < side and 0 <= far[1] < side and bool(mask[far])
        if free(y + dy, x + dx) and not beyond:
            y, x, turns = y + dy, x + dx, 0
            mask[y, x] = True
        else:
            dy, dx, turns = dx, -dy, turns + 1
    return mask


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.6, 0.9, 1.0])
@pytest.mark.parametrize(("connectivity", "size"), CASES)
def test_equals_scipy(connectivity: int, size: tuple[int, ...], share: float) -> None:
    masks = random_mask(3, *size, share=share)
    expected = [scipy_labels(mask.numpy(), connectivity) for mask in masks]
    for backend in BACKENDS:
        labels, counts = connected_components(masks, connectivity, backend=backend)
        assert labels.dtype == counts.dtype == torch.int32
        assert labels.shape == masks.shape and labels.is_contiguous()
        assert counts.tolist() == [count for _, count in expected], backend
        np.testing.assert_array_equal(labels.numpy(), np.stack([label for label, _ in expected]), backend)


@pytest.mark.usefixtures("slabs")
@pytest.mark.parametrize(("connectivity", "size"), [case for case in CASES if max(case[1]) > 1])
@pytest.mark.parametrize("by_label", [False, True])
def test_slabs_on_threads_change_nothing(connectivity: int, size: tuple[int, ...], by_label: bool) -> None:
    for seed in range(8):
        mask = random_labels(*size, seed=seed) if by_label else random_mask(*size, share=0.5, seed=seed)
        got = connected_components(mask, connectivity, by_label=by_label, backend="cpu")
        expected = connected_components(mask, connectivity, by_label=by_label, backend="reference")
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize(("connectivity", "size"), CASES)
def test_by_label_equals_scikit_image(connectivity: int, size: tuple[int, ...]) -> None:
    values = random_labels(2, *size)
    expected = [
        in_raster_order(np.asarray(measure.label(v, background=0, connectivity=HOPS[connectivity][1])))
        for v in values.numpy()
    ]
    for backend in BACKENDS:
        labels, counts = connected_components(values, connectivity, by_label=True, backend=backend)
        np.testing.assert_array_equal(labels.numpy(), np.stack(expected), backend)
        assert counts.tolist() == [int(e.max()) for e in expected]


@SETTINGS
@given(data=st.data(), connectivity=st.sampled_from(sorted(HOPS)), by_label=st.booleans())
def test_any_image(data: st.DataObject, connectivity: int, by_label: bool) -> None:
    dims, hops = HOPS[connectivity]
    shape = data.draw(arrays.array_shapes(min_dims=dims, max_dims=dims, max_side=9))
    image = data.draw(arrays.arrays(np.int8, shape, elements=st.sampled_from([0, 0, 1, 2, -128])))
    oracle = np.asarray(measure.label(image if by_label else image != 0, background=0, connectivity=hops))
    for backend in BACKENDS:
        labels, count = connected_components(torch.from_numpy(image), connectivity, by_label=by_label, backend=backend)
        np.testing.assert_array_equal(labels.numpy(), in_raster_order(oracle), backend)
        assert count.item() == oracle.max()


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_longest_paths(backend: str) -> None:
    path = spiral(65)
    assert path.sum() > 2000
    comb = torch.zeros(33, 65, dtype=torch.bool)
    comb[:, ::2] = True  # columns that meet in the last row only
    comb[-1] = True
    for mask in (path, ~path, path.T, comb, comb.flip(0)):
        for connectivity in (4, 8):
            labels, count = connected_components(mask, connectivity, backend=backend)
            expected = scipy_labels(mask.numpy(), connectivity)
            np.testing.assert_array_equal(labels.numpy(), expected[0])
            assert count.item() == expected[1]


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_more_components_than_int16_holds(backend: str) -> None:
    board = torch.zeros(2, 301, 303, dtype=torch.bool)
    board[0, ::2, ::2] = True
    board[1, 1::2, 1::2] = True
    labels, counts = connected_components(board, 8, backend=backend)
    assert counts.tolist() == [151 * 152, 150 * 151]
    chess = (torch.arange(300)[:, None] + torch.arange(300)) % 2 == 0
    labels, counts = connected_components(chess, 4, backend=backend)
    assert counts.item() == 45000
    assert torch.equal(labels[chess], torch.arange(1, 45001, dtype=torch.int32))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64]
)
@pytest.mark.parametrize("by_label", [False, True])
def test_types_of_values(dtype: torch.dtype, by_label: bool, backend: str) -> None:
    values = random_labels(2, 7, 9).clamp(min=0)
    if dtype not in (torch.bool, torch.uint8, torch.int8):
        values *= 30000  # 0, 30,000 and 60,000, which int16 holds as a negative number
    got = connected_components(values.to(dtype), 4, by_label=by_label, backend=backend)
    expected = connected_components(values.to(dtype).to(torch.int64), 4, by_label=by_label, backend="reference")
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_beyond_32_bits_stay_apart(backend: str) -> None:
    values = torch.tensor([[1, 1 + 2**32, 2**40, 2**40, 2**32]])
    assert connected_components(values, 4, by_label=True, backend=backend)[0].tolist() == [[1, 2, 3, 3, 4]]
    assert connected_components(values, 4, backend=backend)[0].tolist() == [[1, 1, 1, 1, 1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_and_leading_dimensions(backend: str) -> None:
    base = random_mask(22, 3, 34, 2, share=0.5)
    view = base.permute(3, 1, 0, 2)[..., ::2]  # (2, 3, 22, 17)
    labels, counts = connected_components(view, 8, backend=backend)
    assert labels.shape == view.shape
    assert counts.shape == (2, 3)
    again = connected_components(view.contiguous(), 8, backend=backend)
    assert torch.equal(labels, again[0])
    for i in range(2):
        for j in range(3):
            alone = connected_components(view[i, j], 8, backend=backend)
            assert torch.equal(labels[i, j], alone[0])
            assert torch.equal(counts[i, j], alone[1])
    volumes = connected_components(view, 26, backend=backend)
    assert volumes[1].shape == (2,)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0)])
def test_no_pixels(shape: tuple[int, ...], backend: str) -> None:
    for dtype in (torch.bool, torch.int64):
        labels, counts = connected_components(torch.zeros(shape, dtype=dtype), 4, by_label=True, backend=backend)
        assert labels.shape == shape and labels.dtype == torch.int32
        assert counts.shape == shape[:-2] and not counts.any()
        numbers, counts = relabel(torch.zeros(shape, dtype=dtype), 2, backend=backend)
        assert numbers.shape == shape and counts.shape == shape[:-2]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_repeats_change_nothing(threads: int) -> None:
    masks = random_mask(7, 64, 65, share=0.58)
    expected = connected_components(masks, 4, backend="torch")
    with torch_threads(threads):
        for _ in range(3):
            labels, counts = connected_components(masks, 4, backend="cpu")
            assert torch.equal(labels, expected[0])
            assert torch.equal(counts, expected[1])
            large = connected_components(masks.repeat(1, 4, 4)[0], 4, backend="cpu")
            assert torch.equal(large[0], connected_components(masks.repeat(1, 4, 4)[0], 4, backend="torch")[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dims", [2, 3])
def test_relabel(dims: int, backend: str) -> None:
    values = torch.randint(-4, 5, (3, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    numbers, counts = relabel(values, dims, backend=backend)
    assert numbers.dtype == counts.dtype == torch.int32
    images, got = values.flatten(0, -dims - 1), numbers.flatten(0, -dims - 1)
    for image, number, count in zip(images, got, counts.flatten(), strict=True):
        np.testing.assert_array_equal(number.numpy(), in_raster_order(image.numpy()))
        assert count == len(set(image.flatten().tolist()) - {0})


@pytest.mark.parametrize("backend", BACKENDS)
def test_relabel_of_values_far_apart(backend: str) -> None:
    limits = torch.iinfo(torch.int64)
    values = torch.tensor([[limits.max, 0, limits.min], [5, limits.max, limits.min], [0, 5, 1 - 2**40]])
    assert relabel(values, 2, backend=backend)[0].tolist() == [[1, 0, 2], [3, 1, 2], [0, 3, 4]]
    many = torch.randperm(70000, generator=torch.Generator().manual_seed(0)).view(200, 350)
    numbers, count = relabel(many, 2, backend="torch" if backend == "reference" else backend)
    assert count == 69999
    assert torch.equal(numbers[many > 0], torch.arange(1, 70000, dtype=torch.int32))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"connectivity must be 4 or 8 \(2-D\), 6, 18 or 26 \(3-D\), got 5"):
        connected_components(torch.ones(2, 2, dtype=torch.bool), 5)
    with pytest.raises(TypeError, match=r"expected a tensor of bool or integers, got torch.float32"):
        connected_components(torch.ones(2, 2), 4)
    with pytest.raises(TypeError, match="got list"):
        connected_components([[1]], 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected \(..., D, H, W\), got \(2, 2\)"):
        connected_components(torch.ones(2, 2, dtype=torch.bool), 6)
    with pytest.raises(ValueError, match=r"fewer than 2\^31 pixels"):
        connected_components(torch.ones(1, 1, dtype=torch.bool).expand(2**16, 2**15), 4)
    with pytest.raises(ValueError, match="no such backend for components on cpu"):
        connected_components(torch.ones(2, 2, dtype=torch.bool), 4, backend="gpu")
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        relabel(torch.ones(2, 2, 2, 2, dtype=torch.bool), 4)


def test_the_input_is_not_changed() -> None:
    mask = random_mask(9, 9, share=0.5)
    before = mask.clone()
    connected_components(mask, 4)
    relabel(mask, 2)
    assert torch.equal(mask, before)
