# SPDX-License-Identifier: Apache-2.0
"""Superpixels against scikit-image, and the compiled form against the plain loop, ties and all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data
from skimage.segmentation import felzenszwalb as scikit
from tests.kernels._threads import torch_threads
from torch import Tensor

from fewlabel.kernels.felzenszwalb import cpu, felzenszwalb, reference
from fewlabel.kernels.felzenszwalb.graph import Graph, prepare

SETTINGS = settings(deadline=None, max_examples=80, derandomize=True)
PARAMETERS = [(1.0, 0.0, 0), (1.0, 0.8, 20), (30.0, 0.5, 7), (100.0, 1.3, 50), (0.0, 0.8, 9), (1e4, 0.8, 10**6)]
SIZES = [(1, 1), (1, 2), (1, 40), (37, 1), (2, 2), (17, 23), (64, 33), (90, 101)]


def untied(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    """Blobs of three gray values under noise: all differences of neighbors differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, tuple(-(-n // 8) for n in shape)) / 3
    blobs = coarse[np.ix_(*(np.arange(n) // 8 for n in shape))]
    return blobs + 0.05 * rng.standard_normal(shape)


def tied(*shape: int, levels: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, shape, generator=generator).to(torch.uint8)


def both(image: Tensor, *parameters: Any, **options: Any) -> Tensor:
    """Labels of the compiled form, once the reference agrees."""
    expected = felzenszwalb(image, *parameters, **options, backend="reference")
    got = felzenszwalb(image, *parameters, **options, backend="cpu")
    assert got.dtype == expected.dtype
    assert torch.equal(got.int(), expected.int())
    return got


def assert_in_raster_order(labels: Tensor) -> None:
    for one in labels.flatten(1).tolist():
        assert list(dict.fromkeys(one)) == list(range(max(one) + 1))


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_equals_scikit_image_without_ties(size: tuple[int, int], parameters: tuple[Any, ...], backend: str) -> None:
    scale, sigma, min_size = parameters
    image = untied(*size, seed=sum(size))
    expected = scikit(image, scale=scale, sigma=sigma, min_size=min_size, channel_axis=None)
    got = felzenszwalb(torch.from_numpy(image)[None, None], scale, sigma, min_size, backend=backend)
    assert np.array_equal(got[0].numpy(), expected)


@pytest.mark.filterwarnings("ignore:Got image with third dimension")
@pytest.mark.parametrize("channels", [2, 3, 7, 9, 16])
def test_equals_scikit_image_with_channels(channels: int) -> None:
    image = np.stack([untied(45, 38, seed=c) for c in range(channels)])
    expected = scikit(np.moveaxis(image, 0, -1), scale=60.0, sigma=0.7, min_size=12)
    got = felzenszwalb(torch.from_numpy(image)[None], 60.0, 0.7, 12)
    assert expected.max() > 5
    assert np.array_equal(got[0].numpy(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float16, np.float32, np.bool_])
def test_equals_scikit_image_for_types(dtype: type) -> None:
    image = (untied(40, 50) * 20000).clip(0, 255 if dtype is np.uint8 else None)
    image = (image > 7000) if dtype is np.bool_ else (image / 2e4 if dtype in (np.float16, np.float32) else image)
    image = image.astype(dtype)
    if dtype in (np.uint8, np.bool_, np.float16, np.int32):  # ties: only the loop with a stable sort is a reference
        both(torch.from_numpy(image)[None, None], 40.0, 0.0, 10)
        image, sigma = image.astype(dtype), 0.9
    else:
        sigma = 0.0
    expected = scikit(image, scale=40.0, sigma=sigma, min_size=10, channel_axis=None)
    got = felzenszwalb(torch.from_numpy(image)[None, None], 40.0, sigma, 10)
    assert np.array_equal(got[0].numpy(), expected)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_equals_scikit_image_on_photographs(scale: float) -> None:
    gray = data.camera()[100:260, 150:330].astype(np.float64) / 255
    image = gray + 1e-4 * np.random.default_rng(0).standard_normal(gray.shape)
    expected = scikit(image, scale=scale, sigma=0.8, min_size=30, channel_axis=None)
    got = felzenszwalb(torch.from_numpy(image)[None, None], scale, 0.8, 30)
    assert np.array_equal(got[0].numpy(), expected)


def test_order_of_ties_is_scikit_image_s() -> None:
    for seed in range(6):  # its own sort is unstable: equal only where that sort is used on the same list of edges
        image = tied(1, 1, 30, 29, seed=seed)
        edges = prepare(image[0].numpy(), 0.0, (1.0, 1.0)), Graph.grid(8, (1.0, 1.0))
        expected = scikit(image[0, 0].numpy(), scale=250.0, sigma=0.0, min_size=4, channel_axis=None)
        assert np.array_equal(reference.segment(*edges, 250.0 / 255.0, 4, kind="quicksort")[0], expected)


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("levels", [1, 2, 4, 60])
def test_equals_the_loop_on_ties(levels: int, parameters: tuple[Any, ...]) -> None:
    scale, sigma, min_size = parameters
    for seed in range(2):
        labels = both(tied(2, 1, 31, 46, levels=levels, seed=seed), 3 * scale, sigma, min_size)
        assert_in_raster_order(labels)
        both(tied(1, 3, 21, 26, levels=levels, seed=seed), 3 * scale, sigma, min_size)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 9, 8), (7, 1, 9), (6, 8, 1), (9, 11, 13)])
def test_volumes_equal_the_loop(size: tuple[int, int, int], connectivity: int) -> None:
    noisy = torch.from_numpy(untied(2, *size))[:, None]
    for image in (noisy, tied(2, 1, *size), tied(1, 2, *size)):
        for scale, sigma, min_size in PARAMETERS[:4]:
            labels = both(image, 2 * scale, sigma, min_size, None, connectivity)
            assert labels.shape == (len(image), *size)
            assert_in_raster_order(labels)


def test_volume_of_one_slice_is_the_slice() -> None:
    for image in (tied(1, 1, 40, 33), torch.from_numpy(untied(40, 33))[None, None]):
        for flat, solid in ((8, 26), (8, 18), (4, 6)):
            slices = felzenszwalb(image, 50.0, 0.6, 8, None, flat)
            volume = felzenszwalb(image[:, :, None], 50.0, 0.6, 8, None, solid)
            assert torch.equal(volume[:, 0].int(), slices.int())


def test_four_neighbors() -> None:
    checkers = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None, None]
    assert both(checkers, 1.0, 0.0, 0, None, 4).tolist() == [[[0, 1], [2, 3]]]
    assert both(checkers, 1.0, 0.0, 0, None, 8).tolist() == [[[0, 1], [1, 0]]]


def test_spacing() -> None:
    image = torch.from_numpy(untied(2, 9, 10, 11))[:, None]
    equal = felzenszwalb(image, 30.0, 0.5, 5)
    assert torch.equal(felzenszwalb(image, 30.0, 0.5, 5, (0.7, 0.7, 0.7)).int(), equal.int())
    assert not torch.equal(both(image, 30.0, 0.5, 5, (3.0, 1.0, 1.5)).int(), equal.int())
    both(tied(1, 1, 20, 20), 100.0, 0.5, 5, (2.0, 0.5))
    step = torch.zeros(1, 1, 2, 2)
    step[:, :, 1] = 1.0  # rows differ by 1, and 4 times as far apart as columns: weight 1 / 4, diagonals less than 1/2
    assert both(step, 0.6 * 255, 0.0, 0, (1.0, 1.0)).unique().numel() == 2
    assert both(step, 0.6 * 255, 0.0, 0, (4.0, 1.0)).unique().numel() == 1


def test_factors_and_order_of_edges() -> None:
    graph = Graph.grid(8, (4.0, 2.0))
    assert graph.offsets.tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, -1]]
    np.testing.assert_allclose(graph.factors, [1, 1 / 2, (2 / 5) ** 0.5, (2 / 5) ** 0.5], rtol=1e-15)
    for connectivity in (6, 18, 26):
        solid = Graph.grid(connectivity, (3.3,) * 3)
        assert (solid.factors == 1.0).all()
        assert len(np.unique(np.concatenate([solid.offsets, -solid.offsets]), axis=0)) == connectivity


def test_weights_that_float32_cannot_tell_apart() -> None:
    rng = np.random.default_rng(0)
    image = tied(1, 1, 40, 40, levels=3).double() + torch.from_numpy(1e-9 * rng.random((1, 1, 40, 40)))
    both(image, 200.0, 0.0, 10)
    both(1e-9 * torch.from_numpy(rng.random((1, 1, 40, 40))), 1e-7, 0.0, 10)
    both(1e-44 * torch.from_numpy(rng.random((1, 1, 25, 25))), 1e-17, 0.0, 10)  # below float32's smallest


@SETTINGS
@given(st.data())
def test_any_small_image_equals_the_loop(draw: st.DataObject) -> None:
    dims = draw.draw(st.sampled_from((2, 3)))
    size = draw.draw(st.tuples(*[st.integers(1, 7 if dims == 3 else 14)] * dims))
    channels, seed = draw.draw(st.integers(1, 3)), draw.draw(st.integers(0, 10**6))
    levels = draw.draw(st.sampled_from((2, 3, 10, 10**6)))
    values = np.random.default_rng(seed).integers(0, levels, (1, channels, *size)) / levels
    scale = draw.draw(st.sampled_from((0.0, 1e-3, 10.0, 120.0, 300.0, 2000.0, 1e5)))
    min_size, sigma = draw.draw(st.integers(0, 30)), draw.draw(st.sampled_from((0.0, 0.4, 1.1)))
    connectivity = draw.draw(st.sampled_from((4, 8) if dims == 2 else (6, 18, 26)))
    spacing = draw.draw(st.none() | st.tuples(*[st.sampled_from((0.5, 1.0, 3.0))] * dims))
    labels = both(torch.from_numpy(values), scale, sigma, min_size, spacing, connectivity)
    assert_in_raster_order(labels)
    sizes = labels.int().flatten().bincount()
    assert len(sizes) == 1 or int(sizes.min()) >= min_size


def test_ranges_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [tied(1, 1, 60, 70, levels=9), torch.from_numpy(untied(60, 70))[None, None]]
    expected = [felzenszwalb(image, 80.0, 0.0, 15, backend="reference") for image in images]
    for share in (1e-9, 0.02, 100.0):
        monkeypatch.setattr(cpu, "_RANGE", share)
        for image, labels in zip(images, expected, strict=True):
            assert torch.equal(felzenszwalb(image, 80.0, 0.0, 15).int(), labels.int())


def test_buffers_grow_where_all_weights_are_equal() -> None:
    y, x = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    both((y % 2 + 2 * (x % 2)).double()[None, None], 1.0, 0.0, 50, None, 4)


def test_threads_and_batches_do_not_matter() -> None:
    images = torch.from_numpy(np.stack([untied(2, 50, 61, seed=s) for s in range(7)]))
    alone = torch.stack([felzenszwalb(image[None], 40.0, 0.8, 20)[0].int() for image in images])
    for threads in (1, 2, 5):
        with torch_threads(threads):
            for _ in range(2):
                assert torch.equal(felzenszwalb(images, 40.0, 0.8, 20).int(), alone)


def test_layout_does_not_matter() -> None:
    image = torch.from_numpy(np.stack([untied(3, 40, 52, seed=s) for s in range(2)]))
    expected = felzenszwalb(image, 40.0, 0.8, 20).int()
    assert torch.equal(felzenszwalb(image.to(memory_format=torch.channels_last), 40.0, 0.8, 20).int(), expected)
    wide = torch.zeros(2, 3, 80, 104, dtype=torch.float64)
    wide[..., ::2, 1::2] = image
    assert torch.equal(felzenszwalb(wide[..., ::2, 1::2].requires_grad_(), 40.0, 0.8, 20).int(), expected)
    half = image.to(torch.bfloat16)
    assert torch.equal(felzenszwalb(half, 40.0).int(), felzenszwalb(half.double(), 40.0).int())


def test_type_of_labels() -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((1, 1, 256, 256)))
    few, many = felzenszwalb(image, 100.0), felzenszwalb(torch.cat([image, image], -1), 0.0, 0.0, 0)
    assert few.dtype == torch.uint16
    assert many.dtype == torch.int32
    assert torch.equal(many.flatten(), torch.arange(2 * 2**16, dtype=torch.int32))
    most = felzenszwalb(image, 0.0, 0.0, 0)
    assert most.dtype == torch.uint16
    assert int(most.int().max()) == 2**16 - 1
    assert felzenszwalb(image[:0]).shape == (0, 256, 256)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4), {}, r"expected an image \(B, C, H, W\)"),
        ((1, 1, 0, 4), {}, "none but B empty"),
        ((1, 0, 4, 4), {}, "none but B empty"),
        ((1, 1, 4, 4), {"scale": -1.0}, "scale must be 0 or between"),
        ((1, 1, 4, 4), {"scale": float("nan")}, "scale must be 0 or between"),
        ((1, 1, 4, 4), {"sigma": -0.1}, "sigma must be"),
        ((1, 1, 4, 4), {"sigma": float("inf")}, "sigma must be"),
        ((1, 1, 4, 4), {"min_size": -1}, "min_size must be"),
        ((1, 1, 4, 4), {"min_size": 2.5}, "min_size must be"),
        ((1, 1, 4, 4), {"spacing_mm": (1.0, 1.0, 1.0)}, "spacing_mm must be 2"),
        ((1, 1, 4, 4, 4), {"spacing_mm": (1.0, 1.0, 0.0)}, "spacing_mm must be 3"),
        ((1, 1, 4, 4), {"connectivity": 26}, "connectivity 26 does not fit"),
        ((1, 1, 4, 4), {"connectivity": 5}, "connectivity must be 4 or 8"),
        ((1, 1, 4, 4), {"backend": "triton"}, "no such backend for felzenszwalb"),
    ],
)
def test_mistakes_are_named(shape: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        felzenszwalb(torch.zeros(shape), **options)


def test_values_that_are_refused() -> None:
    for value in (float("nan"), float("inf")):
        image = torch.zeros(2, 1, 4, 4)
        image[1, 0, 2, 2] = value
        with pytest.raises(ValueError, match="finite"):
            felzenszwalb(image)
    with pytest.raises(TypeError, match="real"):
        felzenszwalb(torch.zeros(1, 1, 4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"2\^32 edges"):
        felzenszwalb(torch.zeros(1, 1, 1, 1, 1).expand(1, 1, 2000, 2000, 100))


@pytest.mark.filterwarnings("ignore:Got image with third dimension")
@SETTINGS
@given(st.data())
def test_any_small_image_without_ties_equals_scikit_image(draw: st.DataObject) -> None:
    size, channels = draw.draw(st.tuples(st.integers(1, 24), st.integers(1, 24))), draw.draw(st.integers(1, 3))
    values = np.random.default_rng(draw.draw(st.integers(0, 10**6))).random((*size, channels))
    scale = draw.draw(st.sampled_from((0.0, 1e-3, 1.0, 30.0, 1e4)))
    sigma, min_size = draw.draw(st.sampled_from((0.0, 0.4, 1.1))), draw.draw(st.integers(0, 30))
    expected = scikit(values, scale, sigma, min_size, channel_axis=-1)
    labels = felzenszwalb(torch.from_numpy(values).movedim(-1, 0)[None], scale, sigma, min_size)
    assert np.array_equal(labels[0].numpy(), expected)
