# SPDX-License-Identifier: Apache-2.0
"""Distances and nearest seeds; oracles: scipy, torch.cdist, and every pixel asking every seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from tests.kernels._threads import torch_threads
from torch import Tensor

from fewlabel.kernels.distance import cpu, nearest_seed

BACKENDS = ("cpu", "torch", "reference")
SIZES = [(1, 1), (1, 9), (9, 1), (17, 23), (40, 35), (1, 1, 5), (1, 7, 5), (6, 1, 4), (7, 9, 11)]
SPACINGS = {"one": (1.0, 1.0, 1.0), "whole": (3.0, 1.0, 2.0), "halves": (0.5, 2.5, 1.5), "any": (0.7, 0.31, 1.3)}


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three threads, and shares and groups of lines so small that a tiny image has several."""
    monkeypatch.setattr(cpu, "_SHARE", 16)
    with torch_threads(3):
        yield


def random_seeds(*shape: int, share: float, seed: int = 0) -> Tensor:
    """At least one seed in each image of a batch."""
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.rand(shape, generator=generator) < share
    flat = seeds.view(shape[0], -1)
    flat.scatter_(1, torch.randint(flat.shape[1], (shape[0], 1), generator=generator), True)
    return seeds


def by_cdist(seeds: Tensor, spacing: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Distance to the nearest seed and the first of those that reach it, by all pairs of coordinates."""
    axes = [torch.arange(n).double() * step for n, step in zip(seeds.shape, spacing, strict=True)]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, seeds.ndim)
    chosen = seeds.flatten().nonzero().flatten()
    far = torch.cdist(pixels, pixels[chosen], compute_mode="donot_use_mm_for_euclid_dist")
    least = far.amin(dim=1, keepdim=True)
    first = (far <= least * (1 + 1e-12)).int().argmax(dim=1)
    return least.view(seeds.shape), chosen[first].view(seeds.shape)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_scipy(size: tuple[int, ...], spacing: str, share: float) -> None:
    steps = SPACINGS[spacing][-len(size) :]
    seeds = random_seeds(3, *size, share=share)
    expected = np.stack([ndimage.distance_transform_edt(~mask, sampling=steps) for mask in seeds.numpy()])
    definition = nearest_seed(seeds, len(size), spacing=steps, backend="reference")
    for backend in BACKENDS:
        distance, index = nearest_seed(seeds, len(size), spacing=steps, backend=backend)
        assert distance.dtype == torch.float64 and index.dtype == torch.int32
        assert distance.shape == index.shape == seeds.shape
        assert distance.is_contiguous() and index.is_contiguous()
        if spacing == "any":  # SciPy and we round another sum
            np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-14)
        else:
            np.testing.assert_array_equal(distance.numpy(), expected, backend)
        assert torch.equal(distance, definition[0])
        assert torch.equal(index, definition[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("size", [(17, 23), (7, 9, 11)])
def test_equals_all_pairs(size: tuple[int, ...], spacing: str, backend: str) -> None:
    steps = SPACINGS[spacing][-len(size) :]
    seeds = random_seeds(2, *size, share=0.03)
    distance, index = nearest_seed(seeds, len(size), spacing=steps, backend=backend)
    for b in range(2):
        far, first = by_cdist(seeds[b], steps)
        torch.testing.assert_close(distance[b], far, rtol=1e-12, atol=0)
        if spacing != "any":
            assert torch.equal(index[b].long(), first)


@pytest.mark.usefixtures("shares")
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("size", [*SIZES, (1, 99), (1, 1, 99)])
def test_shares_on_threads_change_nothing(size: tuple[int, ...], spacing: str) -> None:
    steps = SPACINGS[spacing][-len(size) :]
    for batch in (1, 4):
        seeds = random_seeds(batch, *size, share=0.1)
        got = nearest_seed(seeds, len(size), spacing=steps, backend="cpu")
        expected = nearest_seed(seeds, len(size), spacing=steps, backend="reference")
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


@settings(deadline=None, max_examples=80, derandomize=True)
@given(data=st.data(), dims=st.sampled_from([2, 3]))
def test_any_seeds(data: st.DataObject, dims: int) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=dims, max_dims=dims, max_side=9))
    seeds = torch.from_numpy(data.draw(arrays.arrays(np.bool_, shape)))
    steps = data.draw(st.tuples(*[st.sampled_from([1.0, 0.25, 2.0, 1 / 3, 1e-3, 1e3])] * dims))
    distance, index = nearest_seed(seeds, dims, spacing=steps, backend="cpu")
    other = nearest_seed(seeds, dims, spacing=steps, backend="torch")
    assert torch.equal(distance, other[0])
    assert torch.equal(index, other[1])
    assert torch.equal(distance, nearest_seed(seeds, dims, spacing=steps, backend="reference")[0])
    if not seeds.any():
        assert torch.isinf(distance).all() and (index == -1).all()
        return
    expected = ndimage.distance_transform_edt(~seeds.numpy(), sampling=steps)
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-14)
    assert seeds.flatten()[index.flatten().long()].all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_several_nearest_the_first_counts(backend: str) -> None:
    corners = torch.zeros(5, 5, dtype=torch.bool)
    corners[::4, ::4] = True
    _, index = nearest_seed(corners, 2, backend=backend)
    assert index.tolist() == [
        [0, 0, 0, 4, 4],
        [0, 0, 0, 4, 4],
        [0, 0, 0, 4, 4],
        [20, 20, 20, 24, 24],
        [20, 20, 20, 24, 24],
    ]
    crossed = torch.zeros(3, 3, dtype=torch.bool)  # the middle is 1 from four; a column alone would take the upper
    crossed[1, 0] = crossed[0, 1] = crossed[2, 1] = crossed[1, 2] = True
    assert nearest_seed(crossed, 2, backend=backend)[1][1, 1] == 1
    assert nearest_seed(crossed[1:], 2, backend=backend)[1][0, 1] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_seeds(backend: str) -> None:
    seeds = torch.zeros(2, 4, 5, dtype=torch.bool)
    seeds[1, 2, 3] = True
    distance, index = nearest_seed(seeds, 2, backend=backend)
    assert torch.isinf(distance[0]).all() and (index[0] == -1).all()
    assert torch.isfinite(distance[1]).all() and (index[1] == 13).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0)])
def test_no_pixels(shape: tuple[int, ...], backend: str) -> None:
    distance, index = nearest_seed(torch.zeros(shape), 2, backend=backend)
    assert distance.shape == index.shape == shape
    assert distance.dtype == torch.float64 and index.dtype == torch.int32


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_types_strides_and_leading_dimensions(dtype: torch.dtype, backend: str) -> None:
    base = random_seeds(22, 3, 34, 2, share=0.05).to(dtype)
    if dtype.is_floating_point:
        base *= 0.25
    view = base.permute(3, 1, 0, 2)[..., ::2]  # (2, 3, 22, 17)
    before = view.clone()
    distance, index = nearest_seed(view, 2, backend=backend)
    assert torch.equal(view, before)
    for i in range(2):
        for j in range(3):
            alone = nearest_seed(view[i, j] != 0, 2, backend=backend)
            assert torch.equal(distance[i, j], alone[0])
            assert torch.equal(index[i, j], alone[1])
    in_space = nearest_seed(view, 3, backend=backend)
    assert torch.equal(in_space[1], nearest_seed(view.contiguous(), 3, backend=backend)[1])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_repeats_change_nothing(threads: int) -> None:
    seeds = random_seeds(2, 230, 301, share=0.001)
    expected = [ndimage.distance_transform_edt(~mask) for mask in seeds.numpy()]
    with torch_threads(threads):
        first = nearest_seed(seeds, 2, backend="cpu")
        again = nearest_seed(seeds, 2, backend="cpu")
    np.testing.assert_array_equal(first[0].numpy(), np.stack(expected))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert torch.equal(first[1], nearest_seed(seeds, 2, backend="torch")[1])


def test_mistakes() -> None:
    seeds = torch.ones(3, 4)
    with pytest.raises(TypeError, match=r"bool or real numbers, got torch.complex64"):
        nearest_seed(seeds.to(torch.complex64), 2)
    with pytest.raises(TypeError, match="got list"):
        nearest_seed([[1]], 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"spacing must be one number > 0 or 2 of them, got \(1.0, 1.0, 1.0\)"):
        nearest_seed(seeds, 2, spacing=(1.0, 1.0, 1.0))
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="spacing must be"):
            nearest_seed(seeds, 2, spacing=wrong)
    with pytest.raises(ValueError, match=r"expected \(..., D, H, W\), got \(3, 4\)"):
        nearest_seed(seeds, 3)
    with pytest.raises(ValueError, match="no such backend for distance on cpu"):
        nearest_seed(seeds, 2, backend="gpu")
