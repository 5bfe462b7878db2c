# SPDX-License-Identifier: Apache-2.0
"""Regions against NumPy, SciPy and a dense product in float64, in every layout that a network makes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import one_hot

from fewlabel.kernels import memory
from fewlabel.kernels.regions import (
    RegionIndex,
    region_index,
    region_max,
    region_mean,
    region_sum,
    stack_indices,
)

SPACES = ((7, 13), (37, 1), (3, 5, 7), (1, 1))
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "planes": torch.Tensor.contiguous,
    "rows": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every second channel": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "transposed space": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "part of a batch": lambda x: torch.stack([x, x], dim=1)[:, 1],
}
backends = pytest.mark.parametrize("backend", ["cpu", "reference"])


def labels_of(*shape: int, most: int = 6, seed: int = 0) -> Tensor:
    """Labels -1 ... most - 1, half of each image in one of them."""
    labels = torch.randint(-1, most, shape, generator=torch.Generator().manual_seed(seed))
    labels.flatten(1)[:, : labels[0].numel() // 2] = most // 2
    return labels


def features_of(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def dense_sum(features: Tensor, index: RegionIndex) -> Tensor:
    """(B, L, C) by the product with all memberships, in float64."""
    ids = index.ids.flatten(1).long()
    members = one_hot(ids.clamp(min=0), max(index.regions, 1)).double() * (ids >= 0).unsqueeze(-1)
    return (features.double().flatten(2) @ members).mT[:, : index.regions]


def by_scipy(function: Callable[..., np.ndarray], features: Tensor, index: RegionIndex) -> Tensor:
    ids, numbers = index.ids.numpy(), np.arange(index.regions)
    images = zip(features.double().numpy(), ids, strict=True)
    return torch.from_numpy(np.stack([np.stack([function(c, i, numbers) for c in image]) for image, i in images])).mT


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("change", ["none", "sparse", "uint16", "int8"])
def test_index_is_that_of_numpy(space: tuple[int, ...], change: str) -> None:
    labels = labels_of(3, *space)
    if change == "sparse":
        labels = torch.where(labels < 0, -(2**40), labels * (2**62 // 7) + 70000)
    elif change != "none":
        labels = labels.clamp(min=0 if change == "uint16" else -1).to(getattr(torch, change))
    index = region_index(labels, spatial_dims=len(space))
    flat = labels.flatten(1).long().numpy()
    names = [np.unique(row[row >= 0]) for row in flat]
    assert index.regions == max(map(len, names))
    for b, (row, known) in enumerate(zip(flat, names, strict=True)):
        ids = np.where(row >= 0, np.searchsorted(known, row), -1)
        np.testing.assert_array_equal(index.ids[b].flatten(), ids)
        np.testing.assert_array_equal(
            index.labels[b], np.pad(known, (0, index.regions - len(known)), constant_values=-1)
        )
        np.testing.assert_array_equal(index.perm[b], np.argsort(np.where(ids < 0, len(ids), ids), kind="stable"))
        counts = np.bincount(ids[ids >= 0], minlength=index.regions)
        np.testing.assert_array_equal(index.offsets[b], np.cumsum([0, *counts]))
        np.testing.assert_array_equal(index.counts[b], counts)
    assert {t.dtype for t in (index.ids, index.perm, index.offsets)} == {torch.int32}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_label_is_region_where_the_number_of_labels_is_given(dtype: torch.dtype) -> None:
    labels = labels_of(2, 5, 9).clamp(min=0).to(dtype)
    index = region_index(labels, num_labels=9)
    assert torch.equal(index.ids, labels.int())
    assert index.labels.tolist() == [list(range(9))] * 2
    assert index.counts[:, 6:].tolist() == [[0, 0, 0]] * 2


def test_labels_of_one_image_and_non_contiguous_labels() -> None:
    labels = labels_of(1, 6, 8)
    for other in (labels[0], labels.mT.contiguous().mT, labels.repeat_interleave(2, dim=2)[:, :, ::2]):
        for one, expected in zip(
            region_index(other).tensors().values(), region_index(labels).tensors().values(), strict=True
        ):
            assert torch.equal(one, expected)


@backends
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("space", SPACES)
def test_sum_and_gradient_are_those_of_the_dense_product(space: tuple[int, ...], layout: str, backend: str) -> None:
    index = region_index(labels_of(2, *space), spatial_dims=len(space), num_labels=8)
    features = LAYOUTS[layout](features_of(2, 6, *space)).requires_grad_()
    total, expected = region_sum(features, index, backend=backend), dense_sum(features, index)
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=1e-6)
    weight = features_of(*total.shape, seed=1)
    (gradient,) = torch.autograd.grad((total * weight).sum(), features)
    (exact,) = torch.autograd.grad((expected * weight).sum(), features)
    assert torch.equal(gradient, exact)
    if backend == "cpu" and layout in ("planes", "rows"):
        assert gradient.stride() == features.stride()


@backends
@pytest.mark.parametrize("channels", [1, 3, 9])
def test_means_and_maxima_are_those_of_scipy(channels: int, backend: str) -> None:
    """Enough rows for several threads, runs longer than 256 pixels, and labels beyond 16 bits."""
    labels = labels_of(2, 301, 293, most=5) * 33333
    labels[0, :, :3] = -1
    index = region_index(labels)
    for layout in ("planes", "rows"):
        features = LAYOUTS[layout](features_of(2, channels, 301, 293))
        mean = region_mean(features, index, backend=backend)
        torch.testing.assert_close(mean.double(), by_scipy(ndimage.mean, features, index), rtol=0, atol=1e-6)
        largest = region_max(features, index, backend=backend)
        assert torch.equal(largest.double(), by_scipy(ndimage.maximum, features, index))


@backends
def test_more_labels_than_int16_holds(backend: str) -> None:
    labels = torch.arange(2 * 220 * 180).view(2, 220, 180) // 2
    index = region_index(labels)
    assert index.regions == 19800
    many = region_index(labels, num_labels=39600)
    features = features_of(2, 2, 220, 180)
    pairs = features.flatten(2).unflatten(2, (-1, 2)).mT
    assert torch.equal(region_max(features, index, backend=backend), pairs.amax(2).mT)
    means = region_mean(features, many, backend=backend)
    torch.testing.assert_close(means[1, 19800:], pairs.mean(2).mT[1])
    assert means[1, :19800].abs().max() == 0


@backends
def test_derivatives(backend: str) -> None:
    index = region_index(labels_of(2, 3, 5, most=3), num_labels=4)
    for layout in ("planes", "rows"):
        features = LAYOUTS[layout](features_of(2, 5, 3, 5, dtype=torch.float64)).requires_grad_()
        for operator in (region_sum, region_mean, region_max):
            assert torch.autograd.gradcheck(lambda x, f=operator: f(x, index, backend=backend), features)
    mean = region_mean(features, index, backend=backend)
    (gradient,) = torch.autograd.grad(mean.square().sum(), features, create_graph=True)
    if backend == "reference":
        assert torch.autograd.gradgradcheck(lambda x: region_mean(x, index, backend=backend).square(), features)
    else:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


@backends
def test_maximum_takes_the_first_of_equals_and_shows_nan(backend: str) -> None:
    index = region_index(torch.tensor([[0, 0, 1, 1], [0, 2, 1, -1]]), num_labels=4)
    nan, inf = float("nan"), float("inf")
    features = torch.tensor([[[[3.0, 3.0, nan, 5.0], [1.0, -inf, nan, 9.0]]]], requires_grad=True)
    for layout in ("planes", "rows"):
        largest = region_max(LAYOUTS[layout](features), index, backend=backend)
        expected = torch.tensor([[[3.0], [nan], [-inf], [0.0]]])
        torch.testing.assert_close(largest, expected, equal_nan=True)
        (gradient,) = torch.autograd.grad(largest, features, torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
        assert gradient.tolist() == [[[[1, 0, 2, 0], [0, 3, 0, 0]]]]


@backends
def test_what_is_not_a_number_stays_in_its_region(backend: str) -> None:
    index = region_index(torch.tensor([[0, 1, -1, 1]]))
    features = torch.tensor([float("inf"), 1.0, float("nan"), 2.0]).view(1, 1, 1, 4).repeat(1, 5, 1, 1)
    assert region_sum(features, index, backend=backend)[0, :, 0].tolist() == [float("inf"), 3.0]


@backends
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["planes", "rows"])
def test_half_precision_is_summed_in_float32(layout: str, dtype: torch.dtype, backend: str) -> None:
    """A sum of 1e5 values in 11 or 8 bits would stop to grow."""
    index = region_index(torch.zeros(1, 320, 320, dtype=torch.int32))
    features = LAYOUTS[layout](1 + features_of(1, 3, 320, 320, dtype=dtype) / 8).requires_grad_()
    mean = region_mean(features, index, backend=backend)
    assert mean.dtype == torch.float32
    exact = features.detach().double().mean((2, 3)).unsqueeze(1)
    torch.testing.assert_close(mean.double(), exact, rtol=1e-6 if backend == "cpu" else 1e-4, atol=0)
    (gradient,) = torch.autograd.grad(mean.sum(), features)
    assert gradient.dtype == dtype
    assert torch.equal(gradient, torch.full_like(gradient, 1 / 320**2))
    largest = region_max(features, index, backend=backend)
    assert largest.dtype == dtype
    assert torch.equal(largest[:, 0], features.amax((2, 3)))


def test_autocast_changes_nothing() -> None:
    index = region_index(labels_of(1, 20, 20))
    features = features_of(1, 4, 20, 20)
    for backend in ("cpu", "reference"):
        expected = region_mean(features, index, backend=backend)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(region_mean(features, index, backend=backend), expected)


@pytest.mark.parametrize("layout", ["planes", "rows"])
def test_any_number_of_threads_gives_the_same_bits(layout: str) -> None:
    index = region_index(labels_of(2, 260, 300))
    features = LAYOUTS[layout](features_of(2, 10, 260, 300)).requires_grad_()
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 1, 2, 5):
            torch.set_num_threads(threads)
            mean, largest = region_mean(features, index), region_max(features, index)
            (gradient,) = torch.autograd.grad(mean.square().sum() + largest.sum(), features)
            found.append([*region_index(labels_of(2, 260, 300)).tensors().values(), mean, largest, gradient])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@backends
@pytest.mark.parametrize("num_labels", [None, 0, 2])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 0, 5), (0, 3, 4, 5), (2, 0, 4, 5)])
def test_nothing_to_sum(shape: tuple[int, ...], num_labels: int | None, backend: str) -> None:
    features = torch.ones(shape, requires_grad=True)
    index = region_index(torch.full((shape[0], *shape[2:]), -1), num_labels=num_labels)
    for operator in (region_sum, region_mean, region_max):
        result = operator(features, index, backend=backend)
        assert torch.equal(result, torch.zeros(shape[0], num_labels or 0, shape[1]))
        (gradient,) = torch.autograd.grad(result.sum(), features)
        assert torch.equal(gradient, torch.zeros(shape))


def test_one_region_and_a_region_without_pixels() -> None:
    features = features_of(1, 4, 9, 9)
    whole = region_mean(features, region_index(torch.full((1, 9, 9), 12)))
    torch.testing.assert_close(whole[:, 0], features.mean((2, 3)))
    index = region_index(torch.full((1, 9, 9), 1), num_labels=3)
    assert region_mean(features, index)[0, ::2].abs().sum() == 0
    assert index.counts.tolist() == [[0, 81, 0]]


def test_stacked_indices_are_the_index_of_the_batch() -> None:
    labels = torch.stack([labels_of(1, 5, 6, most=n, seed=n)[0] for n in (2, 6, 4)])
    stacked = stack_indices([region_index(labels[:1]), region_index(labels[1:])])
    for name, tensor in region_index(labels).tensors().items():
        assert torch.equal(stacked.tensors()[name], tensor), name
    with pytest.raises(ValueError, match="expected indices of one image size, got"):
        stack_indices([stacked, region_index(labels[:, 1:])])
    with pytest.raises(ValueError, match="one image size"):
        stack_indices([])


def test_index_is_kept_as_plain_tensors() -> None:
    index = region_index(labels_of(2, 5, 6))
    assert index.to("meta").device.type == "meta"
    file = io.BytesIO()
    torch.save(index.tensors(), file)
    file.seek(0)
    loaded = RegionIndex.from_tensors(torch.load(file, weights_only=True))
    for other in (loaded, pickle.loads(pickle.dumps(index)), index.to("cpu")):
        for name, tensor in index.tensors().items():
            assert torch.equal(other.tensors()[name], tensor), name


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids", lambda t: t + 1),
        ("ids", lambda t: t.long()),
        ("perm", lambda t: t - 1),
        ("perm", lambda t: t[:, 1:]),
        ("offsets", lambda t: t.flip(1)),
        ("labels", lambda t: t[:, 1:]),
    ],
)
def test_broken_tensors_are_refused(name: str, change: Callable[[Tensor], Tensor]) -> None:
    tensors = region_index(labels_of(2, 5, 6)).tensors()
    with pytest.raises(ValueError, match="are not an index of regions"):
        RegionIndex.from_tensors(tensors | {name: change(tensors[name])})
    del tensors[name]
    with pytest.raises(ValueError, match="expected the tensors ids, perm, offsets, labels, got"):
        RegionIndex.from_tensors(tensors)


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    index = region_index(labels_of(2, 5, 6))
    with pytest.raises(ValueError, match=r"expected features \(2, C, 5, 6\) for this index, got \(2, 3, 6, 5\)"):
        region_sum(torch.zeros(2, 3, 6, 5), index)
    with pytest.raises(TypeError, match=r"features must be floating, got torch\.int64"):
        region_mean(torch.zeros(2, 3, 5, 6, dtype=torch.int64), index)
    with pytest.raises(ValueError, match="must be on one device, got meta and cpu"):
        region_max(torch.zeros(2, 3, 5, 6, device="meta"), index)
    with pytest.raises(ValueError, match="no such backend for regions on cpu, expected one of auto, cpu, reference"):
        region_max(torch.zeros(2, 3, 5, 6), index, backend="triton")
    monkeypatch.setenv("FEWLABEL_BACKEND", "nonsense")
    with pytest.raises(ValueError, match="FEWLABEL_BACKEND='nonsense'"):
        region_sum(torch.zeros(2, 3, 5, 6), index)
    with pytest.raises(TypeError, match=r"labels must be integers, got torch\.float32"):
        region_index(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"expected labels of 3 axes, or 4 with a batch .*, got \(2, 3\)"):
        region_index(torch.zeros(2, 3, dtype=torch.int64), spatial_dims=3)
    with pytest.raises(ValueError, match="labels must be below num_labels = 2, got 2"):
        region_index(torch.tensor([[0, 2]]), num_labels=2)
    with pytest.raises(ValueError, match="num_labels must be 0 to"):
        region_index(torch.tensor([[0, 2]]), num_labels=-1)


def test_huge_pages_are_a_hint() -> None:
    """Values survive, whole pages or not, and small tensors are left alone."""
    for size in (10, 3 * 2**20 + 5):
        fresh = torch.empty(size).fill_(3)
        assert memory.with_huge_pages(fresh) is fresh
        assert (fresh == 3).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_labels", [None, 40])
def test_index_of_a_gpu_is_that_of_the_cpu(num_labels: int | None) -> None:
    labels = labels_of(3, 61, 47, most=40)
    expected, index = (region_index(side, num_labels=num_labels) for side in (labels, labels.cuda()))
    assert index.device.type == "cuda"
    for name, tensor in index.tensors().items():
        assert torch.equal(tensor.cpu(), expected.tensors()[name]), name
    features = features_of(3, 4, 61, 47)
    assert torch.equal(region_max(features.cuda(), index).cpu(), region_max(features, expected))
